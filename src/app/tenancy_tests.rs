use super::*;

#[test]
fn a_restore_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let servers = [move_in(folder.path()).unwrap(), move_in(folder.path()).unwrap()];
    let refusal = be_alone(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains("a server is running"), "{refusal}");
    drop(servers);
    be_alone(folder.path()).unwrap();
}

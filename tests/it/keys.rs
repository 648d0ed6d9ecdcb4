//! `aichat keys`, as a person runs it.

use std::path::Path;
use std::process::{Command, Output};

fn aichat(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aichat")).args(arguments).current_dir(folder).output().unwrap()
}

fn told(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn a_key_is_made_shown_once_listed_and_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let (key, note) = told(&aichat(folder.path(), &["keys", "create", "laptop", "--scope", "admin"]));
    let key = key.trim();
    assert!(key.starts_with("aichat_") && key.len() == 56 && note.contains("owner local"), "{key} {note}");
    assert!(!note.contains(key));
    let (_, note) = told(&aichat(folder.path(), &["keys", "create", "guest", "--expires", "7", "--owner", "family"]));
    assert!(note.contains("owner family") && note.contains("expires "), "{note}");
    let again = aichat(folder.path(), &["keys", "create", "laptop"]);
    assert!(again.status.code() == Some(1) && told(&again).1.contains("laptop"), "{again:?}");
    let (list, _) = told(&aichat(folder.path(), &["keys", "list"]));
    assert!(list.lines().count() == 2 && list.contains(&key[..11]) && !list.contains(key), "{list}");
    for file in std::fs::read_dir(folder.path().join("data")).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "the key itself is nowhere");
    }
    let (_, note) = told(&aichat(folder.path(), &["keys", "revoke", "laptop"]));
    assert!(note.contains("laptop is revoked"), "{note}");
    assert_eq!(aichat(folder.path(), &["keys", "revoke", "laptop"]).status.code(), Some(1));
    let (list, _) = told(&aichat(folder.path(), &["keys", "list"]));
    assert!(list.lines().next().unwrap().contains("revoked "), "{list}");
}

#[test]
fn a_server_that_others_reach_needs_a_key_that_can_administer_it() {
    let folder = tempfile::tempdir().unwrap();
    let serve = || {
        let arguments =
            ["serve", "--host", "0.0.0.0", "--port", "0", "--models-dir", "nowhere", "--profile", "starter"];
        told(&aichat(folder.path(), &arguments)).1
    };
    assert!(serve().contains("HOST=0.0.0.0: others could reach"), "{}", serve());
    assert!(!folder.path().join("data").exists(), "looking makes no database");
    aichat(folder.path(), &["keys", "create", "guest"]);
    assert!(serve().contains("keys create NAME --scope admin"), "{}", serve());
    aichat(folder.path(), &["keys", "create", "laptop", "--scope", "admin"]);
    let text = serve();
    assert!(!text.contains("HOST=") && text.contains("aichat pull"), "it goes on to what else is missing: {text}");
    aichat(folder.path(), &["keys", "revoke", "laptop"]);
    assert!(serve().contains("HOST=0.0.0.0"), "{}", serve());
}

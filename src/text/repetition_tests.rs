use super::*;

#[test]
fn what_repeats_itself_compresses() {
    assert!(compression_ratio(&"five ".repeat(100)) > 2.4);
    let ratio = compression_ratio("Had he married a more amiable woman, he might have been made respectable.");
    assert!((0.5..1.5).contains(&ratio), "{ratio}");
    assert!(compression_ratio("").abs() < f32::EPSILON);
}

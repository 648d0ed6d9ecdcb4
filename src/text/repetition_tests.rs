use super::*;

#[test]
fn what_repeats_itself_compresses() {
    assert!(compression_ratio(&"five ".repeat(100)) > 2.4);
    let ratio = compression_ratio("Had he married a more amiable woman, he might have been made respectable.");
    assert!((0.5..1.5).contains(&ratio), "{ratio}");
    assert!(compression_ratio("").abs() < f32::EPSILON);
}

#[test]
fn the_same_words_twice_are_noticed() {
    assert!(is_said_twice("He was not there? He was not there."));
    assert!(!is_said_twice("He was not there. He was not here."));
    assert!(!is_said_twice("I do not. I do not."), "who says so little may say it twice");
    assert!(!is_said_twice("He was not there. And he was not there."));
    assert!(!is_said_twice(""));
}

use super::*;
use crate::provider::fake::{FakeActivity, FaultyActivity};

#[test]
fn doubtful_text_needs_a_voice_unless_nobody_can_tell() {
    let doubtful = Written { no_speech: 0.5, ..Written::default() };
    let certain = Written::default();
    let (loud, quiet) = (vec![0.5; 16_000], vec![0.0; 16_000]);
    let voiceless = |detector: &dyn VoiceActivity, samples, written| is_voiceless(Some(detector), samples, written);
    assert!(voiceless(&FakeActivity, &quiet, &doubtful));
    assert!(!voiceless(&FakeActivity, &loud, &doubtful));
    assert!(!voiceless(&FakeActivity, &quiet, &certain), "certain text needs none");
    assert!(!is_voiceless(None, &quiet, &doubtful));
    // On the model's thread: a panic here would end it for everybody.
    assert!(!voiceless(&FaultyActivity::new(7..8), &quiet, &doubtful));
}

#[test]
fn a_short_guess_at_what_may_be_no_speech_is_not_shown() {
    let written = |no_speech| Written { no_speech, ..Written::default() };
    assert!(is_murmur("No.", &written(0.57)));
    assert!(!is_murmur("No.", &written(0.3)), "a word");
    assert!(!is_murmur("No, I would rather not.", &written(0.57)), "a sentence");
}

//! What a prompt has room for: pieces of a long text as long as they come, spoken as slowly as anybody speaks.

use serde_json::Value;

use super::limits::{most_frames, needed_frames, seconds};
use super::model::Model;
use super::prompt::{QUIET_ROOM, Reference, Setting, Voice};
use super::story::{Story, pieces};
use super::text::fit_to_speak;
use super::tokens::PromptTokens;
use crate::nn::higgs::{Codes, Higgs, LoadOptions, Outcome, Precision, Prompt, Segment};
use crate::testing::fixture;

/// 400 words.
fn text() -> String {
    let sentences = [
        "The river runs past the old mill, and every evening the light turns the water into gold. ",
        "Then the children come down from the village and sail their boats, until somebody calls them home. ",
        "Nobody remembers who built the mill, or when the wheel was turned by the water for the last time. ",
    ];
    sentences.concat().repeat(8)
}

/// The tiny model with a tokenizer that has the words of `text`, as a checkpoint's has: with bytes alone texts would
/// take four times the room.
fn model(text: &str, positions: usize) -> Model {
    let folder = fixture("higgs_lm/wide");
    let json = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_str(&json).unwrap();
    let vocabulary = json["model"]["vocab"].as_object_mut().unwrap();
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        for word in [word.to_owned(), format!("\u{120}{word}")] {
            let id = vocabulary.len();
            vocabulary.entry(word).or_insert_with(|| id.into());
        }
    }
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("tokenizer.json"), json.to_string()).unwrap();
    let options = LoadOptions { precision: Precision::Float, slots: 1, positions };
    let higgs = Higgs::load(&folder, &candle_core::Device::Cpu, options).unwrap();
    let tokens = PromptTokens::load(at.path(), higgs.config()).unwrap();
    Model { name: "higgs".into(), higgs: Box::new(higgs), tokens }
}

fn columns(rows: usize) -> Codes {
    Codes::from_rows(8, (0..rows as u32 * 8).map(|index| index % 1024).collect()).unwrap()
}

fn setting(voice: Voice) -> Setting {
    Setting { voice, scene: Some(QUIET_ROOM.to_owned()) }
}

/// How many recordings and pieces of earlier speech are in it.
fn heard(prompt: &Prompt) -> usize {
    prompt.segments().iter().filter(|segment| matches!(segment, Segment::Audio(_))).count()
}

/// Tells a text with `setting`; gives how much each piece heard.
fn told(model: &Model, setting: Setting, text: &str) -> Vec<usize> {
    let mut story = Story::new(setting);
    let mut all = Vec::new();
    for piece in pieces(text) {
        let (prompt, frames) = model.compose(&story, &piece).unwrap();
        let needed = needed_frames(&fit_to_speak(&piece));
        assert!(prompt.len() + frames <= model.higgs.positions());
        assert!(frames >= needed, "{frames} frames for {needed}");
        all.push(heard(&prompt));
        story.keep(model.higgs.config(), &piece, &columns(needed), Outcome::Spoken);
    }
    all
}

#[test]
fn every_piece_of_a_long_text_hears_what_its_voice_is_known_by() {
    let text = text();
    let described =
        || setting(Voice::Described("Female, American accent, calm tone, and very clear audio.".to_owned()));
    let usual = told(&model(&text, 4096), described(), &text);
    assert!(usual.len() >= 5, "{usual:?}");
    // The first piece, then the two that were said last beside it.
    assert_eq!(usual[..4], [0, 1, 2, 3]);
    assert!(usual[4..].iter().all(|heard| *heard == 3), "{usual:?}");
    let short = told(&model(&text, 2048), described(), &text);
    assert_eq!(short[0], 0);
    assert!(short[1..].iter().all(|heard| *heard >= 1), "{short:?}");
}

#[test]
fn half_a_minute_of_recording_leaves_room_for_a_piece() {
    let text = text();
    for positions in [4096, 2048] {
        let model = model(&text, positions);
        let words = text.split_inclusive(". ").take(4).collect::<String>();
        let reference = Reference::new(model.higgs.config(), &words, &columns(750));
        let told = told(&model, setting(Voice::Cloned(reference)), &text);
        assert!(told.iter().all(|heard| *heard >= 1), "{told:?}");
    }
}

#[test]
fn a_text_that_does_not_end_is_given_up_late_where_there_is_room() {
    let text = text();
    let model = model(&text, 4096);
    let piece = pieces(&text).remove(0);
    let (_, frames) = model.compose(&Story::new(setting(Voice::Free)), &piece).unwrap();
    assert_eq!(frames, most_frames(&fit_to_speak(&piece)));
}

/// Scripts without blanks between their words are cut as others are.
#[test]
fn no_piece_takes_longer_than_a_prompt_has_room_for() {
    for sentence in ["今天天气很好, 我们去公园散步。", "The quick brown fox jumps over the lazy dog. ", "word "]
    {
        let pieces = pieces(&sentence.repeat(200));
        assert!(pieces.len() > 3, "{}", pieces.len());
        for piece in pieces {
            let seconds = seconds(&fit_to_speak(&piece));
            assert!(seconds < 45.0, "{seconds}: {piece}");
        }
    }
}

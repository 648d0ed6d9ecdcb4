use std::cell::Cell;

use candle_core::Device;

use super::super::load_listener;
use super::*;
use crate::audio::Mic;
use crate::testing::{fixture, model};

/// What is written along each draft of a sentence, and how many passes it took.
fn along(drafts: &[&[u32]]) -> (Vec<(Vec<u32>, f32, usize)>, Written) {
    let listener = load_listener(&model("whisper-tiny.en"), &Device::Cpu, None).unwrap();
    let clip = Mic::from_s16le(&std::fs::read(fixture("goforward.s16")).unwrap());
    let mel = listener.mel.log_mel(clip.as_slice(), 500).unwrap();
    let heard = listener.whisper.hear(&mel, 1, 500, &mut || true).unwrap().unwrap();
    let ask = Ask { prompt: vec![listener.tokens.start], start: 0, limit: 40 };
    let passes = Cell::new(0);
    let check = &mut || {
        passes.set(passes.get() + 1);
        true
    };
    let mut follow = |draft: &[u32]| follow(&listener.whisper, &listener.tokens, &heard, &ask, draft, check).unwrap();
    let plain = follow(&[]).unwrap();
    let follow = |draft: &&[u32]| {
        passes.set(0);
        let written = follow(draft).unwrap();
        (written.tokens, written.mean_log_probability, passes.get())
    };
    let along = drafts.iter().map(follow).collect();
    (along, plain)
}

#[test]
fn a_draft_changes_how_soon_it_is_written_and_not_what() {
    let (_, plain) = along(&[]);
    let text = plain.tokens.clone();
    let without = |at: usize| [&text[..at], &text[at + 1..]].concat();
    let with = |at: usize| [&text[..at], &[500], &text[at..]].concat();
    let other = |at: usize| [&text[..at], &[500], &text[at + 1..]].concat();
    let endless: Vec<u32> = text.iter().chain(&[500; 60]).copied().collect();
    let drafts: [&[u32]; 8] = [&text, &text[..3], &without(2), &with(2), &other(2), &endless, &[500; 3], &[500; 100]];
    let (along, _) = along(&drafts);
    for (place, (tokens, log_probability, passes)) in along.iter().enumerate() {
        assert_eq!(*tokens, text, "draft {place}");
        assert!((log_probability - plain.mean_log_probability).abs() < 1e-4, "draft {place}");
        println!("draft {place}: {passes} passes for {} tokens", text.len());
    }
    let passes: Vec<usize> = along.iter().map(|(.., passes)| *passes).collect();
    assert_eq!(passes[0], 1, "all of it was right");
    // A fault costs a pass, not the rest of the draft.
    assert!(passes[2..5].iter().all(|&passes| passes <= 4), "{passes:?}");
}

#[test]
fn the_draft_goes_on_after_what_was_written_instead() {
    let draft = [10, 11, 12, 13, 14, 15, 16, 17];
    assert_eq!(beyond(&draft, 2, 99), 3, "another word instead of one");
    assert_eq!(beyond(&draft, 2, 13), 4, "one left out");
    assert_eq!(beyond(&draft, 3, 12), 3, "one more than the draft had");
    assert_eq!(beyond(&draft, 1, 17), 2, "too far away to be it");
    assert_eq!(beyond(&draft, 12, 17), 13, "after its end");
    assert_eq!(beyond(&[], 0, 17), 1);
}

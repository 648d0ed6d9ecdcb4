use super::*;
use crate::provider::fake::{MILLIS_PER_CHAR, marks};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Sends a sentence as two pieces; answers where its audio ends.
fn speak(ledger: &mut Ledger, sequence_number: u64, spoken: &str, words: &[WordMark], plays_at: Instant) -> Duration {
    let pts = ledger.sent();
    let length = ms(spoken.chars().count() as u64 * MILLIS_PER_CHAR);
    let shift = |word: WordMark| WordMark { start: word.start + pts, end: word.end + pts, ..word };
    for (part, last) in [(0, false), (1, true)] {
        ledger.send(SentPiece {
            sequence_number,
            pts: pts + length / 2 * part,
            length: length / 2,
            plays_at: plays_at + length / 2 * part,
            words: if last { Vec::new() } else { words.iter().cloned().map(shift).collect() },
            last,
            served_by: "fake".into(),
            audio: None,
            first_audio: ms(80),
        });
    }
    pts + length
}

#[test]
fn only_whole_words_are_heard() {
    let mut ledger = Ledger::default();
    ledger.write(1, "One two ");
    ledger.write(1, "three. ");
    ledger.write(2, "Four five six.");
    let now = Instant::now();
    let first = speak(&mut ledger, 1, "One two three.", &marks("One two three."), now);
    speak(&mut ledger, 2, "Four five six.", &marks("Four five six."), now + first);
    for (played, heard) in [
        (0, ""),
        (179, ""),
        (180, "One"),
        (419, "One"),
        (420, "One two"),
        (839, "One two"),
        (840, "One two three."),
        (900, "One two three."),
        (840 + 240, "One two three. Four"),
        (840 + 839, "One two three. Four five"),
        (840 + 840, "One two three. Four five six."),
        (99_999, "One two three. Four five six."),
    ] {
        assert_eq!(ledger.heard(ms(played)), heard, "{played} ms");
    }
}

#[test]
fn spoken_words_are_found_in_what_was_written() {
    let mut ledger = Ledger::default();
    let written = "**Sure**, it costs $5 at *Dr. Who's*!";
    ledger.write(1, written);
    let spoken = "Sure, it costs five dollars at doctor Who's!";
    speak(&mut ledger, 1, spoken, &marks(spoken), Instant::now());
    let at = |word: &str| marks(spoken).into_iter().find(|mark| mark.text == word).unwrap().end;
    assert_eq!(ledger.heard(at("Sure,")), "**Sure**,");
    assert_eq!(ledger.heard(at("costs")), "**Sure**, it costs");
    assert_eq!(ledger.heard(at("five")), "**Sure**, it costs");
    assert_eq!(ledger.heard(at("at")), "**Sure**, it costs $5 at");
    assert_eq!(ledger.heard(at("Who's!")), written);
}

#[test]
fn what_cannot_be_spoken_is_heard_with_what_follows_it() {
    let mut ledger = Ledger::default();
    ledger.write(1, "Look: ");
    ledger.write(2, "```code``` ");
    ledger.write(3, "Nice.");
    let now = Instant::now();
    let first = speak(&mut ledger, 1, "Look:", &marks("Look:"), now);
    assert_eq!(ledger.heard(first), "Look:");
    let end = speak(&mut ledger, 3, "Nice.", &marks("Nice."), now + first);
    assert_eq!(ledger.heard(first), "Look:");
    assert_eq!(ledger.heard(end), "Look: ```code``` Nice.");
}

#[test]
fn without_word_marks_the_share_of_the_audio_counts() {
    let mut ledger = Ledger::default();
    ledger.write(1, "alpha beta gamma delta");
    let end = speak(&mut ledger, 1, "alpha beta gamma delta", &[], Instant::now());
    assert_eq!(ledger.heard(end / 2), "alpha beta");
    assert_eq!(ledger.heard(end), "alpha beta gamma delta");
}

#[test]
fn the_pace_knows_gaps() {
    let mut ledger = Ledger::default();
    ledger.write(1, "One two. ");
    ledger.write(2, "Three four.");
    let start = Instant::now();
    let first = speak(&mut ledger, 1, "One two.", &marks("One two."), start);
    // The second sentence was late by a second.
    speak(&mut ledger, 2, "Three four.", &marks("Three four."), start + first + ms(1000));
    assert_eq!(ledger.played_by(start), Duration::ZERO);
    assert_eq!(ledger.played_by(start + ms(100)), ms(100));
    assert_eq!(ledger.played_by(start + first + ms(900)), first);
    assert_eq!(ledger.played_by(start + first + ms(1100)), first + ms(100));
    assert_eq!(ledger.played_by(start + ms(99_000)), ledger.sent());
}

#[test]
fn text_before_audio_is_not_heard() {
    let mut ledger = Ledger::default();
    ledger.write(1, "Nothing of this was spoken yet.");
    assert_eq!(ledger.heard(ms(5000)), "");
    assert_eq!(ledger.text(), "Nothing of this was spoken yet.");
}

#[test]
fn what_follows_a_sentence_that_failed_half_way_is_heard() {
    let mut ledger = Ledger::default();
    let sentences = ["One two three.", "Four five."];
    for (number, text) in (1..).zip(sentences) {
        ledger.write(number, &format!("{text} "));
    }
    let now = Instant::now();
    let mut piece = SentPiece {
        sequence_number: 1,
        pts: ms(0),
        length: ms(420),
        plays_at: now,
        words: marks(sentences[0]),
        last: false,
        served_by: "fake".into(),
        audio: None,
        first_audio: ms(80),
    };
    ledger.send(piece.clone());
    let words = marks(sentences[1]).into_iter();
    let words = words.map(|word| WordMark { start: word.start + ms(420), end: word.end + ms(420), ..word });
    piece = SentPiece { words: words.collect(), pts: ms(420), length: ms(600), last: true, ..piece };
    ledger.send(SentPiece { sequence_number: 2, plays_at: now + ms(420), ..piece });
    assert_eq!(ledger.heard(ms(500)), "One two");
    assert_eq!(ledger.heard(ms(420 + 240)), "One two three. Four");
    assert_eq!(ledger.heard(ms(420 + 600)), "One two three. Four five.");
}

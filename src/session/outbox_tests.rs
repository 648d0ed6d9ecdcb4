use std::time::Duration;

use super::super::event::{ServedBy, Timings, TurnReport};
use super::super::settings::AudioFormat;
use super::*;
use crate::audio::{Samples, Speech};
use crate::provider::Usage;

fn piece(turn: u64, sequence_number: u64) -> AudioPiece {
    AudioPiece {
        turn: Turn(turn),
        character_id: "c".to_owned(),
        item_id: "i".to_owned(),
        sequence_number,
        pts: Duration::ZERO,
        audio: Speech::silence(Samples::from_millis(100)),
        words: Vec::new(),
        last: false,
        format: AudioFormat::Pcm,
    }
}

fn text(turn: u64) -> Told {
    Output::TextChunk {
        turn: Turn(turn),
        character_id: "c".to_owned(),
        item_id: "i".to_owned(),
        sequence_number: 1,
        text: "Yes.".to_owned(),
    }
    .into()
}

fn interrupted(turn: u64) -> Told {
    Output::Interrupted { turn: Turn(turn), item_id: "i".to_owned(), heard_text: String::new(), heard: Duration::ZERO }
        .into()
}

fn complete(turn: u64) -> Told {
    Output::TurnComplete(Box::new(TurnReport {
        turn: Turn(turn),
        character_id: "c".to_owned(),
        item_id: "i".to_owned(),
        sequence_number: 1,
        timings: Timings::default(),
        served_by: ServedBy::default(),
        usage: Usage::default(),
    }))
    .into()
}

/// Everything that leaves, where all of it waits already.
async fn leaves(control: Vec<Told>, audio: Vec<AudioPiece>) -> Vec<Output> {
    let (control_lane, control_out) = mpsc::channel(CONTROL_LANE);
    let (audio_lane, audio_out) = mpsc::channel(AUDIO_LANE);
    let mut outbox = Outbox::new(control_out, audio_out);
    for told in control {
        control_lane.try_send(told).unwrap();
    }
    for piece in audio {
        audio_lane.try_send(piece).unwrap();
    }
    let mut all = Vec::new();
    while let Ok(Some(told)) = tokio::time::timeout(Duration::from_millis(1), outbox.recv()).await {
        all.push(told.output);
    }
    all
}

#[tokio::test(start_paused = true)]
async fn control_leaves_before_audio() {
    let left = leaves(vec![text(1)], vec![piece(1, 1), piece(1, 2)]).await;
    assert_eq!(left, [text(1).output, Output::Audio(piece(1, 1)), Output::Audio(piece(1, 2))]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_reply_waits_for_its_audio() {
    let left = leaves(vec![complete(1), text(2)], vec![piece(1, 1), piece(1, 2)]).await;
    let expected = [Output::Audio(piece(1, 1)), Output::Audio(piece(1, 2)), complete(1).output, text(2).output];
    assert_eq!(left, expected);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_reply_leaves_after_its_interruption() {
    let control = vec![interrupted(3), text(3), complete(3), text(4)];
    let left = leaves(control, vec![piece(3, 1), piece(2, 1), piece(5, 2)]).await;
    assert_eq!(left, [interrupted(3).output, text(4).output, Output::Audio(piece(5, 2))]);
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_session() {
    let (control_lane, control_out) = mpsc::channel(CONTROL_LANE);
    let (audio_lane, audio_out) = mpsc::channel(AUDIO_LANE);
    let mut outbox = Outbox::new(control_out, audio_out);
    control_lane.send(complete(1)).await.unwrap();
    audio_lane.send(piece(1, 1)).await.unwrap();
    drop((control_lane, audio_lane));
    assert_eq!(outbox.recv().await.map(|told| told.output), Some(Output::Audio(piece(1, 1))));
    assert_eq!(outbox.recv().await, Some(complete(1)));
    assert_eq!(outbox.recv().await, None);
}

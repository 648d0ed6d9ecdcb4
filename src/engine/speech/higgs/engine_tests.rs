//! The engine on a tiny random model and a tiny codec, loaded from disk: what it says is noise, all else is as it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::join_all;

use super::*;
use crate::audio::{Samples, Speech};
use crate::engine::EngineError;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::nn::higgs::codec::Chunking;
use crate::nn::higgs::{Codes, Precision};
use crate::provider::{ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, StoryId};
use crate::testing::fixture;

pub(super) const SLOTS: usize = 3;
pub(super) const OPTIONS: HiggsOptions = HiggsOptions {
    precision: Precision::Float,
    slots: SLOTS,
    positions: 1024,
    chunking: Chunking { first: 5, longest: 25, first_ahead: 8, ahead: 10, tail: 8 },
};

pub(super) fn engine() -> HiggsEngine {
    let (model, codec) = folders();
    HiggsEngine::load("higgs", &model, &codec, DeviceChoice::Cpu, OPTIONS, Precedence::default()).unwrap()
}

pub(super) fn folders() -> (PathBuf, PathBuf) {
    (fixture("higgs_lm/wide"), fixture("higgs_codec/transformers"))
}

pub(super) fn request(text: &str, voice: &str) -> SpeakRequest {
    SpeakRequest { text: text.to_owned(), voice: Some(voice.to_owned()), seed: Some(7), ..SpeakRequest::default() }
}

fn in_conversation(text: &str, voice: &str) -> SpeakRequest {
    SpeakRequest { story: Some(StoryId::Part("one".into())), ..request(text, voice) }
}

/// Everything a request yields, checked for its form.
pub(super) async fn heard(engine: &HiggsEngine, request: SpeakRequest) -> Vec<f32> {
    let chunks: Vec<SpeechChunk> = engine.speak(request).map(|chunk| chunk.unwrap()).collect().await;
    let last = chunks.iter().position(|chunk| chunk.last);
    assert_eq!(last, Some(chunks.len() - 1), "one last chunk, at the end");
    assert!(chunks.iter().all(|chunk| &*chunk.served_by == "higgs"));
    chunks.iter().flat_map(|chunk| chunk.audio.as_slice().to_vec()).collect()
}

pub(super) async fn fault(engine: &HiggsEngine, request: SpeakRequest) -> ProviderError {
    let items: Vec<_> = engine.speak(request).collect().await;
    assert_eq!(items.len(), 1);
    items.into_iter().next().unwrap().unwrap_err()
}

/// A second of something.
pub(super) fn sound(seconds: f32) -> Speech {
    let samples = (0..(seconds * 24_000.0) as usize).map(|at| 0.3 * (at as f32 * 0.05).sin());
    Speech::new(samples.collect())
}

pub(super) fn cloned(name: &str, recording: Recording) -> HiggsVoice {
    let transcript = "These are the words.".to_owned();
    HiggsVoice {
        name: name.to_owned(),
        language: "en-us".to_owned(),
        kind: HiggsVoiceKind::Cloned { recording, transcript, scene: None },
    }
}

#[tokio::test]
async fn three_voices_stream_at_once_and_each_says_what_it_says_alone() {
    let engine = engine();
    let names: Vec<String> = engine.voices().into_iter().map(|voice| voice.name).collect();
    assert_eq!(names, ["clara", "henry", "james", "olive"]);
    let ask = |voice| request("Good morning, how are you?", voice);
    let voices = ["clara", "james", "olive"];
    let together = join_all(voices.map(|voice| heard(&engine, ask(voice)))).await;
    for (voice, together) in voices.into_iter().zip(&together) {
        assert!(together.len() >= 960 && together.len().is_multiple_of(960), "{voice}: {}", together.len());
        assert!(heard(&engine, ask(voice)).await == *together, "{voice} says something else alone");
    }
    assert!(together[0] != together[1] && together[1] != together[2]);
}

#[tokio::test]
async fn the_same_seed_is_the_same_audio_and_a_voice_has_its_own() {
    let engine = engine();
    let with = |seed| SpeakRequest { seed, ..request("Good morning.", "clara") };
    let first = heard(&engine, with(None)).await;
    assert!(heard(&engine, with(None)).await == first);
    assert!(heard(&engine, with(Some(3))).await != first);
    // A voice of OpenAI's is one of ours.
    let alloy = SpeakRequest { voice: Some("alloy".to_owned()), ..with(None) };
    assert!(heard(&engine, alloy).await == first);
    let nobody = SpeakRequest { voice: None, ..with(None) };
    assert!(heard(&engine, nobody).await == first);
}

#[tokio::test]
async fn in_a_conversation_a_voice_hears_what_it_said() {
    let engine = engine();
    let first = heard(&engine, in_conversation("Good morning.", "clara")).await;
    assert!(first == heard(&engine, request("Good morning.", "clara")).await);
    // Two at once are told one after the other, and whatever was said with an end changes what comes.
    let two = ["How are you?", "Fine, thank you."].map(|text| heard(&engine, in_conversation(text, "clara")));
    assert!(join_all(two).await.iter().all(|audio| !audio.is_empty()));
}

#[tokio::test]
async fn who_leaves_frees_the_slot() {
    let engine = engine();
    let long = "A long text that takes a while to say, and then some more of it, and more. ".repeat(90);
    let start = Instant::now();
    heard(&engine, request(&long, "clara")).await;
    let whole = start.elapsed();
    let mut streams: Vec<_> = (0..SLOTS as u64)
        .map(|seed| engine.speak(SpeakRequest { seed: Some(seed), ..request(&long, "clara") }))
        .collect();
    for stream in &mut streams {
        assert!(!stream.next().await.unwrap().unwrap().last);
    }
    drop(streams);
    let left = Instant::now();
    assert!(!heard(&engine, request("Hello.", "james")).await.is_empty());
    // Whoever waited for them to end would wait as long as one of them takes.
    assert!(left.elapsed() < whole / 2, "{:?} of {whole:?}", left.elapsed());
}

#[tokio::test]
async fn more_than_there_are_slots_wait_and_are_served() {
    let engine = engine();
    let ask = |seed: u64| heard(&engine, SpeakRequest { seed: Some(seed), ..request("Hello.", "clara") });
    let all = join_all((0..=2 * SLOTS as u64).map(ask)).await;
    assert!(all.iter().all(|audio| !audio.is_empty()));
}

#[tokio::test]
async fn a_listener_who_does_not_read_holds_nobody() {
    let engine = engine();
    let long = "A text that is longer than what anybody buffers, so that its sound must wait. ".repeat(8);
    let parked: Vec<_> = (0..SLOTS).map(|_| engine.speak(request(&long, "clara"))).collect();
    assert!(!heard(&engine, request("Hello.", "james")).await.is_empty());
    for stream in parked {
        assert!(stream.map(|chunk| chunk.unwrap().last).any(|last| async move { last }).await);
    }
}

#[tokio::test]
async fn the_speed_is_what_was_asked_for() {
    let engine = engine();
    let natural = heard(&engine, request("Good morning.", "clara")).await.len();
    let fast = SpeakRequest { speed: 2.0, ..request("Good morning.", "clara") };
    let fast = heard(&engine, fast).await.len();
    assert!(fast.abs_diff(natural / 2) < 240, "{fast} of {natural}");
}

#[tokio::test]
async fn a_recording_becomes_a_voice() {
    let engine = engine();
    engine.enrol(cloned("me", Recording::Sound(sound(1.5)))).unwrap();
    let as_me = heard(&engine, request("Good morning.", "me")).await;
    assert!(as_me != heard(&engine, request("Good morning.", "clara")).await);
    // The same recording is encoded once: a second time takes no time.
    let again = Instant::now();
    engine.enrol(cloned("me too", Recording::Sound(sound(1.5)))).unwrap();
    assert!(again.elapsed() < Duration::from_millis(100), "{:?}", again.elapsed());
    assert!(heard(&engine, request("Good morning.", "me too")).await == as_me);
    let codes = Codes::from_rows(8, vec![5; 8 * 30]).unwrap();
    engine.enrol(cloned("codes", Recording::Codes(codes))).unwrap();
    assert!(!heard(&engine, request("Good morning.", "codes")).await.is_empty());
    assert!(engine.forget("codes") && !engine.forget("codes"));
}

#[tokio::test]
async fn a_bad_recording_is_refused_by_what_is_wrong_with_it() {
    let engine = engine();
    let silent = Speech::silence(Samples::from_millis(2000));
    let many = Codes::from_rows(7, vec![5; 7 * 30]).unwrap();
    let beyond = Codes::from_rows(8, vec![1024; 8]).unwrap();
    for (recording, words) in [
        (Recording::Sound(sound(0.4)), "has 0.40 s"),
        (Recording::Sound(sound(31.0)), "cut it to 30 s"),
        (Recording::Sound(silent), "silent"),
        (Recording::Codes(many), "none of this model's codec"),
        (Recording::Codes(beyond), "none of this model's codec"),
    ] {
        let error = engine.enrol(cloned("bad", recording)).unwrap_err();
        assert!(matches!(error, ProviderError::InvalidRequest { .. }) && error.to_string().contains(words), "{error}");
    }
    let mut wordless = cloned("bad", Recording::Sound(sound(1.0)));
    let HiggsVoiceKind::Cloned { transcript, .. } = &mut wordless.kind else { unreachable!() };
    transcript.clear();
    assert!(engine.enrol(wordless).unwrap_err().to_string().contains("words"));
    assert!(engine.voices().iter().all(|voice| voice.name != "bad"));
    assert!(!heard(&engine, request("Hello.", "clara")).await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_said_is_refused_and_the_engine_lives() {
    let engine = engine();
    let invalid = |field, error: ProviderError| match error {
        ProviderError::InvalidRequest { field: named, message } => assert_eq!(named, field, "{message}"),
        other => panic!("{other}"),
    };
    invalid("text", fault(&engine, request(" \n ", "clara")).await);
    let endless = fault(&engine, request(&"many words ".repeat(2000), "clara")).await;
    assert!(endless.to_string().contains("22000 characters, of 20000 at most; send it in parts"), "{endless}");
    invalid("text", endless);
    invalid("speed", fault(&engine, SpeakRequest { speed: 3.0, ..request("Hello.", "clara") }).await);
    let unknown = fault(&engine, request("Hello.", "jim")).await;
    assert_eq!(unknown, ProviderError::VoiceUnavailable { voice: "jim".into(), nearest: "james".into() });
    // A recording that leaves no room to speak.
    let codes = Codes::from_rows(8, vec![5; 8 * 1000]).unwrap();
    engine.enrol(cloned("endless", Recording::Codes(codes))).unwrap();
    invalid("voice", fault(&engine, request("Hello.", "endless")).await);
    // Signs are no mistake: there is nothing to hear.
    assert!(heard(&engine, request("?!", "clara")).await.is_empty());
    assert!(!heard(&engine, request("Hello.", "clara")).await.is_empty());
}

#[tokio::test]
async fn ten_thousand_characters_are_spoken() {
    let engine = engine();
    let sentence = "The quick brown fox jumps over the lazy dog, and it does so again. ";
    let text: String = sentence.chars().cycle().take(10_000).collect();
    let pieces = super::story::pieces(&text).len();
    // What a tiny random model says of each piece is short, but it says each.
    let chunks: Vec<SpeechChunk> = engine.speak(request(&text, "clara")).map(|chunk| chunk.unwrap()).collect().await;
    let samples: usize = chunks.iter().map(|chunk| chunk.audio.as_slice().len()).sum();
    assert!(pieces >= 15 && samples >= pieces * 960, "{pieces} pieces, {samples} samples");
    assert!(chunks.last().unwrap().last);
    assert!(!heard(&engine, request("Hello.", "james")).await.is_empty());
}

#[test]
fn a_model_that_does_not_go_with_the_codec_is_refused() {
    let load = |model: &str, codec: &str| {
        let (model, codec) = (fixture(model), fixture(codec));
        let loaded = HiggsEngine::load(
            "higgs",
            &model,
            &codec,
            DeviceChoice::Cpu,
            HiggsOptions::default(),
            Precedence::default(),
        );
        let Err(EngineError::BadFile { path, reason }) = loaded else { panic!("it was loaded") };
        (path, reason)
    };
    // The narrow fixture has codebooks of its own size.
    let (path, reason) = load("higgs_lm/transformers", "higgs_codec/transformers");
    assert!(path.ends_with("config.json") && reason.contains("do not go together"), "{reason}");
    // A language model is no codec.
    load("higgs_lm/wide", "higgs_lm/wide");
    load("higgs_codec/transformers", "higgs_codec/transformers");
}

#[tokio::test]
async fn every_word_has_its_time_in_the_chunk_that_it_begins_in() {
    let engine = engine();
    let sentence = "The quick brown fox jumps over the lazy dog, again and again. ";
    let text = sentence.repeat(12);
    assert!(super::story::pieces(&text).len() > 1);
    for speed in [1.0, 1.5] {
        let asked = SpeakRequest { speed, ..request(&text, "clara") };
        let chunks: Vec<SpeechChunk> = engine.speak(asked).map(|chunk| chunk.unwrap()).collect().await;
        let (mut position, mut last, mut said) = (Duration::ZERO, Duration::ZERO, Vec::new());
        for chunk in chunks {
            let end = position + chunk.audio.duration();
            for word in chunk.words {
                // Samples are counted, and seconds rounded.
                let slack = Duration::from_millis(1);
                assert!(word.start + slack >= position && word.end <= end + slack, "{word:?} in {position:?}..{end:?}");
                assert!(last <= word.start + slack && word.start <= word.end, "{word:?} after {last:?}");
                last = word.end;
                said.push(word.text);
            }
            position = end;
        }
        assert_eq!(said, text.split_whitespace().collect::<Vec<_>>());
    }
}

/// A copy of a fixture that may be damaged.
fn copied(name: &str) -> tempfile::TempDir {
    let at = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(fixture(name)).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), at.path().join(file.file_name())).unwrap();
    }
    at
}

#[tokio::test]
async fn a_damaged_folder_is_refused_by_what_is_wrong_and_another_engine_lives() {
    let alive = engine();
    let refusal = |model: &Path, codec: &Path| {
        let loaded = HiggsEngine::load("other", model, codec, DeviceChoice::Cpu, OPTIONS, Precedence::default());
        loaded.err().expect("it was loaded").to_string()
    };
    let (model, codec) = folders();
    // A shard that the index names is not there.
    let shards = copied("higgs_lm/boson");
    std::fs::copy(model.join("config.json"), shards.path().join("config.json")).unwrap();
    std::fs::remove_file(shards.path().join("model-00002-of-00003.safetensors")).unwrap();
    let reason = refusal(shards.path(), &codec);
    assert!(reason.contains("model-00002-of-00003.safetensors") && reason.contains("pull the model again"), "{reason}");
    // Another model's weights under this one's config.
    let other = copied("higgs_lm/wide");
    std::fs::copy(codec.join("model.safetensors"), other.path().join("model.safetensors")).unwrap();
    let reason = refusal(other.path(), &codec);
    assert!(reason.contains("it has no tensor model.embed_tokens.weight"), "{reason}");
    // No tokenizer, a codec cut short, and none at all.
    let mute = copied("higgs_lm/wide");
    std::fs::remove_file(mute.path().join("tokenizer.json")).unwrap();
    assert!(refusal(mute.path(), &codec).contains("tokenizer.json"));
    let cut = copied("higgs_codec/transformers");
    let weights = std::fs::read(cut.path().join("model.safetensors")).unwrap();
    std::fs::write(cut.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    assert!(refusal(&model, cut.path()).contains("model.safetensors"));
    std::fs::remove_file(cut.path().join("model.safetensors")).unwrap();
    assert!(refusal(&model, cut.path()).contains("model.safetensors"));
    assert!(!heard(&alive, request("Hello.", "clara")).await.is_empty());
}

#[tokio::test]
async fn an_encoder_that_fails_is_told_and_the_engine_lives() {
    let codec = copied("higgs_codec/transformers");
    let (model, _) = folders();
    let load = HiggsEngine::load("higgs", &model, codec.path(), DeviceChoice::Cpu, OPTIONS, Precedence::default());
    let (engine, enrol) = (load.unwrap(), || cloned("me", Recording::Sound(sound(1.5))));
    let (weights, away) = (codec.path().join("model.safetensors"), codec.path().join("away"));
    std::fs::rename(&weights, &away).unwrap();
    let failed = ProviderError::Failed { what: "higgs".to_owned() };
    assert_eq!(engine.enrol(enrol()).unwrap_err(), failed);
    assert!(!heard(&engine, request("Hello.", "clara")).await.is_empty());
    // A failure is nothing that is kept.
    std::fs::rename(&away, &weights).unwrap();
    engine.enrol(enrol()).unwrap();
    assert!(!heard(&engine, request("Hello.", "me")).await.is_empty());
}

#[test]
fn what_it_needs_is_known_before_it_is_loaded() {
    let (model, codec) = (fixture("higgs_lm/wide"), fixture("higgs_codec/transformers"));
    let need = |slots| HiggsChoice::all(&model, &codec, DeviceChoice::Cpu, slots).unwrap()[0].bytes;
    let more = need(4) - need(3);
    // Two layers of one head of 8 numbers, keys and values, in f32.
    assert_eq!(more, 4096 * 2 * 8 * 2 * 4);
}

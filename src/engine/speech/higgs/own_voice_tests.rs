//! Voices that come with requests, on the tiny model: learned once, kept, and never another's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::join_all;

use super::*;
use crate::audio::Speech;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::provider::{OwnVoice, ProviderError, SpeakRequest, SpeechSynthesizer, VoiceRecording, VoiceReference};
use crate::testing::fixture;

fn engine() -> HiggsEngine {
    let options = HiggsOptions { slots: 3, positions: 1024, ..HiggsOptions::default() };
    let (model, codec) = (fixture("higgs_lm/wide"), fixture("higgs_codec/transformers"));
    HiggsEngine::load("higgs", &model, &codec, DeviceChoice::Cpu, options, Precedence::default()).unwrap()
}

/// A tone, and what was kept of it.
#[derive(Debug)]
struct Tone {
    sound: Result<Speech, ProviderError>,
    heard: AtomicUsize,
    kept: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Tone {
    fn new(seconds: f32, step: f32) -> Arc<Self> {
        let samples = (0..(seconds * 24_000.0) as usize).map(|at| 0.3 * (at as f32 * step).sin());
        let sound = Ok(Speech::new(samples.collect()));
        Arc::new(Self { sound, heard: AtomicUsize::new(0), kept: Mutex::default() })
    }
}

impl VoiceRecording for Tone {
    fn sound(&self) -> Result<Speech, ProviderError> {
        self.heard.fetch_add(1, Ordering::SeqCst);
        self.sound.clone()
    }

    fn kept(&self, engine: &str) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().get(engine).cloned()
    }

    fn keep(&self, engine: &str, tokens: &[u8]) {
        self.kept.lock().unwrap().insert(engine.to_owned(), tokens.to_vec());
    }
}

fn cloned(name: &str, key: &str, recording: &Arc<Tone>) -> Arc<OwnVoice> {
    let recording: Arc<dyn VoiceRecording> = Arc::<Tone>::clone(recording);
    let reference = VoiceReference { key: key.into(), transcript: "These are the words.".to_owned(), recording };
    Arc::new(OwnVoice { reference: Some(reference), ..described(name, "") })
}

fn described(name: &str, speaker: &str) -> OwnVoice {
    OwnVoice { name: name.into(), language: "en".to_owned(), speaker: speaker.to_owned(), scene: None, reference: None }
}

async fn heard(engine: &HiggsEngine, own: &Arc<OwnVoice>) -> Result<Vec<f32>, ProviderError> {
    let request = SpeakRequest {
        text: "Good morning.".to_owned(),
        voice: Some(own.name.to_string()),
        own_voice: Some(Arc::clone(own)),
        seed: Some(7),
        ..SpeakRequest::default()
    };
    let items: Vec<_> = engine.speak(request).collect().await;
    let mut samples = Vec::new();
    for item in items {
        samples.extend_from_slice(item?.audio.as_slice());
    }
    Ok(samples)
}

#[tokio::test]
async fn a_recording_is_encoded_once_however_many_ask_and_again_after_a_start() {
    let tones = [Tone::new(1.5, 0.05), Tone::new(1.5, 0.07), Tone::new(1.5, 0.11)];
    let voices: Vec<_> =
        tones.iter().zip(["a", "b", "c"]).map(|(tone, name)| cloned(name, &format!("hash-{name}"), tone)).collect();
    let first = {
        let engine = engine();
        // Three voices at once, each asked for twice.
        let asked = voices.iter().chain(&voices).map(|voice| heard(&engine, voice));
        let spoken: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        assert!(tones.iter().all(|tone| tone.heard.load(Ordering::SeqCst) == 1));
        assert!(spoken[0] == spoken[3] && spoken[1] == spoken[4] && spoken[2] == spoken[5]);
        assert!(spoken[0] != spoken[1] && spoken[1] != spoken[2] && !spoken[0].is_empty());
        spoken
    };
    let engine = engine();
    let again = heard(&engine, &voices[0]).await.unwrap();
    assert!(again == first[0], "it sounds as before");
    assert_eq!(tones[0].heard.load(Ordering::SeqCst), 1, "its tokens were kept");
    // What was kept is damaged: it is made again.
    for damage in [&b"nonsense"[..], b"hcodes1\x08\xff\xff", b"hcodes1\x00", b""] {
        let engine = self::engine();
        tones[1].kept.lock().unwrap().values_mut().for_each(|tokens| *tokens = damage.to_vec());
        assert!(heard(&engine, &voices[1]).await.unwrap() == first[1]);
    }
    assert_eq!(tones[1].heard.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_bad_recording_is_told_and_the_engine_lives() {
    let engine = engine();
    let studio = engine.studio().unwrap();
    let gone = Arc::new(Tone {
        sound: Err(ProviderError::Failed { what: "the voice's recording".to_owned() }),
        heard: AtomicUsize::new(0),
        kept: Mutex::default(),
    });
    for (tone, words) in
        [(Tone::new(0.4, 0.05), "has 0.40 s"), (Tone::new(2.0, 0.0), "silent"), (gone, "recording failed")]
    {
        let voice = cloned("bad", words, &tone);
        for error in [heard(&engine, &voice).await.unwrap_err(), studio_error(&studio, &voice).await] {
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(tone.kept.lock().unwrap().is_empty());
    }
    let mut wordless = (*cloned("bad", "wordless", &Tone::new(1.5, 0.05))).clone();
    wordless.reference.as_mut().unwrap().transcript.clear();
    let error = heard(&engine, &Arc::new(wordless)).await.unwrap_err();
    assert!(matches!(error, ProviderError::InvalidRequest { field: "transcript", .. }), "{error}");
    assert!(!heard(&engine, &Arc::new(described("good", "a calm man"))).await.unwrap().is_empty());
}

async fn studio_error(studio: &Arc<dyn crate::provider::VoiceStudio>, voice: &Arc<OwnVoice>) -> ProviderError {
    Arc::clone(studio).learn(Arc::clone(voice)).await.unwrap_err()
}

#[tokio::test]
async fn what_was_learned_before_waits_for_nothing_and_words_make_voices() {
    let engine = engine();
    let tone = Tone::new(1.5, 0.05);
    let voice = cloned("nora", "hash", &tone);
    engine.studio().unwrap().learn(Arc::clone(&voice)).await.unwrap();
    assert_eq!(tone.heard.load(Ordering::SeqCst), 1);
    let as_nora = heard(&engine, &voice).await.unwrap();
    assert_eq!(tone.heard.load(Ordering::SeqCst), 1);
    let mut others = Vec::new();
    for speaker in ["", "a calm man", "feminine;high pitch"] {
        others.push(heard(&engine, &Arc::new(described("nora", speaker))).await.unwrap());
    }
    assert!(others.iter().all(|other| !other.is_empty() && *other != as_nora));
    assert!(others[0] != others[1] && others[1] != others[2]);
    // They are nobody's but the request's.
    assert!(engine.voices().iter().all(|voice| voice.name != "nora"));
}

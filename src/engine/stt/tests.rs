use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::Tensor;
use futures::channel::mpsc as pipe;
use futures::executor::block_on;

use super::*;
use crate::audio::{MIC_HZ, Samples};
use crate::provider::FinalTranscript;
use crate::testing::{fixture, model};

fn clip() -> Vec<f32> {
    Mic::from_s16le(&std::fs::read(fixture("goforward.s16")).unwrap()).into_vec()
}

fn engine(name: &str) -> WhisperEngine {
    WhisperEngine::load(name, &model(name), &Device::Cpu).unwrap()
}

fn chunks(samples: &[f32]) -> BoxStream<'static, Mic> {
    let chunks: Vec<Mic> = samples.chunks(1_600).map(|chunk| Mic::new(chunk.to_vec())).collect();
    stream::iter(chunks).boxed()
}

fn transcribe(engine: &WhisperEngine, samples: &[f32], options: SttOptions) -> FinalTranscript {
    let items: Vec<Item> = block_on(engine.transcribe(chunks(samples), options).collect());
    match items.into_iter().next_back() {
        Some(Ok(Transcript::Final(transcript))) => transcript,
        other => panic!("no final transcript but {other:?}"),
    }
}

fn english() -> SttOptions {
    SttOptions { languages: vec!["en".to_owned()], ..SttOptions::default() }
}

fn plain(text: &str) -> String {
    text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect()
}

#[test]
fn hears_a_sentence_in_both_models() {
    for name in ["whisper-base", "whisper-tiny.en"] {
        let transcript = transcribe(&engine(name), &clip(), SttOptions { word_times: true, ..SttOptions::default() });
        assert_eq!(plain(&transcript.text).replace("10", "ten"), "go forward ten meters", "{name}");
        assert_eq!(transcript.language, "en");
        assert_eq!(&*transcript.served_by, name);
        assert_eq!(transcript.audio, Samples::<MIC_HZ>(clip().len() as u64).duration());
        let words: Vec<_> = transcript.segments.iter().flat_map(|segment| &segment.words).collect();
        assert_eq!(words.len(), 4, "{words:?}");
        println!("{name}: {words:?} {:?}", transcript.latency);
        // By ear and waveform: go 0.50, forward 0.70, ten 1.15, meters 1.50 to 1.95.
        for (word, start) in words.iter().zip([0.5, 0.7, 1.15, 1.5]) {
            assert!((word.start.as_secs_f64() - start).abs() < 0.3, "{word:?} does not begin at {start}");
            assert!(word.end > word.start, "{word:?}");
        }
    }
}

/// Not a check: prints what both models hear in the WAV and raw files of the folder STT_CLIPS.
#[test]
#[ignore = "prints transcripts"]
fn stt_clips() {
    let mut files: Vec<PathBuf> = std::env::var("STT_CLIPS").unwrap().split(':').map(PathBuf::from).collect();
    files.sort();
    for name in ["whisper-base", "whisper-tiny.en"] {
        let engine = engine(name);
        for file in &files {
            let bytes = std::fs::read(file).unwrap();
            let skip = if file.extension().is_some_and(|ext| ext == "wav") { 44 } else { 0 };
            let samples = Mic::from_s16le(&bytes[skip..]).into_vec();
            let transcript = transcribe(&engine, &samples, english());
            let about = transcript.segments.first().map(|one| (one.log_probability, one.no_speech));
            println!(
                "CLIP {name} {} {:.1}s {:?}: {} {about:?}",
                file.file_name().unwrap().display(),
                samples.len() as f32 / 16e3,
                transcript.latency,
                transcript.text
            );
        }
    }
}

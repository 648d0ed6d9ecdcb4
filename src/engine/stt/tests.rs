use std::path::PathBuf;
use std::time::Instant;

use candle_nn::VarMap;
use futures::channel::mpsc as pipe;
use futures::executor::block_on;

use super::*;
use crate::audio::{MIC_HZ, Samples};
use crate::engine::precedence::Precedence;
use crate::provider::FinalTranscript;
use crate::testing::{fixture, model};

fn clip() -> Vec<f32> {
    Mic::from_s16le(&std::fs::read(fixture("goforward.s16")).unwrap()).as_slice().to_vec()
}

fn engine(name: &str) -> WhisperEngine {
    WhisperEngine::load(name, &model(name), &Device::Cpu, None, Precedence::default()).unwrap()
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
        // By the waveform's energy, in seconds.
        for (word, start) in words.iter().zip([0.5, 0.75, 1.25, 1.55]) {
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
            let samples = Mic::from_s16le(&bytes[skip..]).as_slice().to_vec();
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

#[test]
fn detects_the_language_and_keeps_to_those_that_are_allowed() {
    let base = engine("whisper-base");
    assert!(base.languages().len() > 95 && base.languages().contains(&"he".to_owned()));
    assert_eq!(transcribe(&base, &clip(), SttOptions::default()).language, "en");
    let options = SttOptions { languages: vec!["de".to_owned(), "pl".to_owned()], ..SttOptions::default() };
    assert_ne!(transcribe(&base, &clip(), options).language, "en");

    let refused = |engine: &WhisperEngine, language: &str| {
        let options = SttOptions { languages: vec![language.to_owned()], ..SttOptions::default() };
        block_on(engine.transcribe(chunks(&[]), options).collect::<Vec<_>>())
    };
    let tiny = engine("whisper-tiny.en");
    assert_eq!(tiny.languages(), ["en"]);
    for items in [refused(&tiny, "de"), refused(&base, "xx")] {
        assert!(matches!(items.as_slice(), [Err(ProviderError::LanguageUnsupported { .. })]), "{items:?}");
    }
}

#[test]
fn no_sound_makes_no_words() {
    let engine = engine("whisper-tiny.en");
    for samples in [vec![], vec![0.0; 800], vec![0.0; 10 * 60 * 16_000]] {
        let started = Instant::now();
        let transcript = transcribe(&engine, &samples, SttOptions::default());
        assert_eq!(transcript.text, "", "{} samples", samples.len());
        assert!(transcript.segments.is_empty());
        assert_eq!(transcript.audio, Samples::<MIC_HZ>(samples.len() as u64).duration());
        assert!(started.elapsed().as_secs() < 5);
    }
}

/// Uniform noise of the given amplitude; the same every time.
fn noise(samples: usize, amplitude: f32) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..samples).map(|_| next() * amplitude).collect()
}

#[test]
fn noise_makes_no_words() {
    for name in ["whisper-tiny.en", "whisper-base"] {
        let engine = engine(name);
        for (seconds, amplitude) in [(3, 0.01), (3, 0.1), (40, 0.05), (10, 0.5)] {
            let started = Instant::now();
            let transcript = transcribe(&engine, &noise(seconds * 16_000, amplitude), SttOptions::default());
            println!("NOISE {name} {seconds} {amplitude}: {:?} {:?}", transcript.segments, started.elapsed());
            assert_eq!(transcript.text, "", "{name}, {seconds} s at {amplitude}");
        }
    }
}

/// Sends the clip in real time. Gives the partials, each with the part of the clip that was sent, and the final.
fn stream_in_real_time(engine: &WhisperEngine, samples: &[f32]) -> (Vec<(f32, String, usize)>, FinalTranscript) {
    let (sender, audio) = pipe::unbounded();
    let (samples, total) = (samples.to_vec(), samples.len());
    let started = Instant::now();
    let microphone = std::thread::spawn(move || {
        for (number, chunk) in samples.chunks(1_600).enumerate() {
            let due = Duration::from_millis(100 * (number as u64 + 1));
            std::thread::sleep(due.saturating_sub(started.elapsed()));
            sender.unbounded_send(Mic::new(chunk.to_vec())).unwrap();
        }
    });
    let options = SttOptions { partials: true, ..english() };
    let mut flow = engine.transcribe(audio.boxed(), options);
    let (mut partials, mut last) = (Vec::new(), None);
    while let Some(item) = block_on(flow.next()) {
        match item.unwrap() {
            Transcript::Partial { text, stable_chars, .. } => {
                let sent = started.elapsed().as_secs_f32() * 16_000.0 / total as f32;
                partials.push((sent, text, stable_chars));
            }
            Transcript::Final(transcript) => last = Some(transcript),
            Transcript::Draft(_) => {}
        }
    }
    microphone.join().unwrap();
    (partials, last.unwrap())
}

#[test]
fn guesses_while_the_audio_is_still_coming() {
    let engine = engine("whisper-tiny.en");
    let (partials, transcript) = stream_in_real_time(&engine, &clip());
    println!("PARTIALS {partials:?} then {:?} after {:?}", transcript.text, transcript.latency);
    assert!(!partials.is_empty());
    let mut promised = String::new();
    for (_, text, stable_chars) in &partials {
        assert!(text.starts_with(&promised), "{text:?} broke the promise {promised:?}");
        let stable: String = text.chars().take(*stable_chars).collect();
        assert!(stable.chars().count() == *stable_chars && stable.starts_with(&promised));
        promised = stable;
    }
    let text: Vec<_> = partials.iter().map(|(_, text, _)| plain(text)).collect();
    assert!(text.iter().any(|text| text.contains("forward")), "{text:?}");
    assert!(plain(&transcript.text).contains("meters"));
}

#[test]
fn what_breaks_off_is_expected_to_go_on() {
    let engine = engine("whisper-base");
    let live = || SttOptions { partials: true, ..english() };
    let whole = transcribe(&engine, &clip(), live()).ending.unwrap();
    // "Go forward", and the silence of a pause.
    let mut part = clip()[..20_000].to_vec();
    part.extend([0.0; 3_200]);
    let part = transcribe(&engine, &part, live()).ending.unwrap();
    for ending in [whole, part] {
        let all = [ending.stop, ending.question, ending.comma, ending.break_off, ending.nothing];
        assert!(all.iter().all(|p| (0.0..=1.0).contains(p)) && all.iter().sum::<f32>() <= 1.001, "{ending:?}");
    }
    assert!(whole.stop + whole.question > 0.3, "{whole:?}");
    assert_eq!(transcribe(&engine, &clip(), english()).ending, None, "nobody waits for it");
}

#[test]
fn several_are_heard_at_once_and_one_who_leaves_frees_the_thread() {
    let engine = engine("whisper-tiny.en");
    let (sender, audio) = pipe::unbounded();
    let open = engine.transcribe(audio.boxed(), SttOptions { partials: true, ..english() });
    sender.unbounded_send(Mic::new(clip())).unwrap();
    let flows: Vec<_> = (0..3).map(|_| engine.transcribe(chunks(&clip()), english())).collect();
    for flow in flows {
        let items: Vec<Item> = block_on(flow.collect());
        assert_eq!(items.len(), 1, "exactly one terminal item");
        assert!(matches!(&items[0], Ok(Transcript::Final(transcript)) if plain(&transcript.text).contains("forward")));
    }
    drop(open);
    // The thread notices at its next turn, and lets go of the microphone.
    let items: Vec<Item> = block_on(engine.transcribe(chunks(&clip()), english()).collect());
    assert_eq!(items.len(), 1);
    assert!(sender.is_closed());
}

#[test]
fn long_audio_is_heard_window_by_window() {
    let engine = engine("whisper-tiny.en");
    // A sentence every 11 s: four of them, over two windows.
    let mut samples = Vec::new();
    for _ in 0..4 {
        samples.extend(clip());
        samples.resize(samples.len().next_multiple_of(11 * 16_000), 0.0);
    }
    let transcript = transcribe(&engine, &samples, english());
    let said = plain(&transcript.text).matches("forward").count();
    assert!(said >= 3, "{}", transcript.text);
    assert!(transcript.segments.windows(2).all(|pair| pair[0].start <= pair[1].start), "{:?}", transcript.segments);
    let last = transcript.segments.last().unwrap();
    assert!(last.start.as_secs() >= 30 && last.end <= transcript.audio, "{last:?}");
}

/// A model of the right form and the least size.
fn synthetic(folder: &Path) {
    let special = ["endoftext", "startoftranscript", "translate", "transcribe", "startofprev", "nospeech"];
    let added = special.iter().chain(&["notimestamps"]).enumerate().map(|(index, name)| {
        let id = index + 4;
        serde_json::json!({"id": id, "content": format!("<|{name}|>"), "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    });
    let byte_level = serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let tokenizer = serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(), "normalizer": null, "pre_tokenizer": byte_level,
        "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": ["a b"]}});
    let config = serde_json::json!({"vocab_size": 11 + 1501, "d_model": 8, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8,
        "num_mel_bins": 80, "max_source_positions": 1500, "max_target_positions": 32, "suppress_tokens": [1],
        "begin_suppress_tokens": [3], "alignment_heads": [[0, 1]]});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let weights = VarMap::new();
    let vb = VarBuilder::from_varmap(&weights, DType::F32, &Device::Cpu);
    Whisper::load(read_config(folder).unwrap(), &vb, Precision::EightBits).unwrap();
    weights.save(folder.join("model.safetensors")).unwrap();
}

#[test]
fn a_broken_file_is_named_and_never_a_panic() {
    let folder = tempfile::tempdir().unwrap();
    synthetic(folder.path());
    let load =
        || WhisperEngine::load("synthetic", folder.path(), &Device::Cpu, None, Precedence::default()).map(|_| ());
    load().unwrap();
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let header =
            if name == "model.safetensors" { 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) } else { u64::MAX };
        let header = usize::try_from(header).unwrap_or(whole.len()).min(whole.len());
        let mut dice = 7_usize;
        let mut roll = |sides: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % sides
        };
        let mut refused = 0;
        for round in 0..1_000 {
            let mut broken = whole.clone();
            match roll(3) {
                0 => broken.truncate(roll(whole.len())),
                1 => broken[roll(header)] ^= 1 << roll(8),
                _ => (0..4).for_each(|_| broken[roll(header)] = roll(256) as u8),
            }
            std::fs::write(&path, broken).unwrap();
            match load() {
                Ok(()) => {}
                Err(EngineError::BadFile { path: named, reason }) => {
                    // A config that reads well and lies is noticed where the other files do not fit it.
                    assert!(named == path || name == "config.json", "round {round}: {} for {name}", named.display());
                    assert!(!reason.is_empty());
                    refused += 1;
                }
                // A config can fit its weights and be wrong nevertheless, as a number of heads.
                Err(EngineError::Canary { .. } | EngineError::Candle(_)) => refused += 1,
                Err(other) => panic!("round {round} of {name}: {other}"),
            }
        }
        assert!(refused > 500, "only {refused} of 1,000 broken {name} were refused");
        std::fs::write(&path, whole).unwrap();
    }
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(load().unwrap_err().to_string().contains("tokenizer.json"));
}

#[test]
fn a_long_file_tells_what_is_settled_and_guesses_nothing() {
    let engine = engine("whisper-tiny.en");
    let mut samples = Vec::new();
    for _ in 0..11 {
        samples.extend(clip());
        samples.extend(vec![0.0; 8_000]);
    }
    let items: Vec<Item> =
        block_on(engine.transcribe(chunks(&samples), SttOptions { partials: true, ..english() }).collect());
    let (last, partials) = items.split_last().unwrap();
    let Ok(Transcript::Final(transcript)) = last else { panic!("{last:?}") };
    assert!(!partials.is_empty());
    for partial in partials {
        let Ok(Transcript::Partial { text, stable_chars, served_by }) = partial else { panic!("{partial:?}") };
        assert_eq!(&**served_by, "whisper-tiny.en");
        assert_eq!(*stable_chars, text.chars().count(), "all of it is settled");
        assert!(transcript.text.starts_with(text.as_str()), "{text:?} is not how {:?} begins", transcript.text);
    }
    let times: Vec<_> = transcript.segments.iter().map(|segment| (segment.start, segment.end)).collect();
    assert!(times.iter().all(|(start, end)| start <= end) && times.is_sorted(), "{times:?}");
}

#[test]
fn a_temperature_draws_the_words() {
    let engine = engine("whisper-tiny.en");
    let warm = |temperature| transcribe(&engine, &clip(), SttOptions { temperature, ..english() }).text;
    let text = warm(0.2);
    assert!(plain(&text).contains("forward"), "{text}");
    assert_eq!(text, warm(0.2), "the same audio draws the same");
}

use super::*;
use crate::engine::device::DeviceChoice;
use crate::engine::precedence::Precedence;
use crate::engine::speech::higgs::HiggsOptions;
use crate::provider::SpeechSynthesizer;
use crate::testing::fixture;

/// A second and a half of a tone, as a WAV file.
fn record(path: &Path, pitch: f32) {
    let header = hound::WavSpec {
        channels: 1,
        sample_rate: 24_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(path, header).unwrap();
    for at in 0..36_000_u16 {
        file.write_sample((9000.0 * (f32::from(at) * pitch).sin()) as i16).unwrap();
    }
    file.finalize().unwrap();
}

/// The tiny engine, with a codec that this folder holds.
fn engine(codec: &Path) -> HiggsEngine {
    let options = HiggsOptions { slots: 1, positions: 1024, ..HiggsOptions::default() };
    let model = fixture("higgs_lm/wide");
    HiggsEngine::load("higgs", &model, codec, DeviceChoice::Cpu, options, Precedence::default()).unwrap()
}

fn knows(engine: &HiggsEngine, name: &str) -> bool {
    engine.voices().iter().any(|voice| voice.name == name)
}

#[test]
fn a_recording_is_encoded_once_whatever_it_is_called_and_again_where_it_has_changed() {
    let at = tempfile::tempdir().unwrap();
    let (voices, codec) = (at.path().join("voices"), at.path().join("codec"));
    for folder in [&voices, &codec] {
        fs::create_dir(folder).unwrap();
    }
    for file in fs::read_dir(fixture("higgs_codec/transformers")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), codec.join(file.file_name())).unwrap();
    }
    record(&voices.join("nora.wav"), 0.05);
    fs::write(voices.join("nora.txt"), "These are the words.\n").unwrap();
    record(&voices.join("wordless.wav"), 0.04);
    let first = engine(&codec);
    enrol(&first, &voices);
    assert!(knows(&first, "nora") && !knows(&first, "wordless"));

    // Loaded, an engine whose encoder is gone knows voices only from what was kept.
    let second = engine(&codec);
    let config = codec.join("config.json");
    let text = fs::read(&config).unwrap();
    fs::write(&config, "{").unwrap();
    fs::rename(voices.join("nora.wav"), voices.join("old nora.wav")).unwrap();
    fs::rename(voices.join("nora.txt"), voices.join("old nora.txt")).unwrap();
    record(&voices.join("nora.wav"), 0.06);
    fs::write(voices.join("nora.txt"), "These are others.").unwrap();
    enrol(&second, &voices);
    assert!(knows(&second, "old nora"), "its codes were kept");
    assert!(!knows(&second, "nora"), "another recording has other codes");
    fs::write(&config, text).unwrap();
    enrol(&second, &voices);
    assert!(knows(&second, "nora"));
    // One file for each recording, and none in part.
    assert_eq!(fs::read_dir(voices.join(".codes")).unwrap().count(), 2);
}

use std::collections::HashMap;
use std::path::PathBuf;

use candle_core::DType;

use super::*;
use crate::testing;

fn golden() -> HashMap<String, Tensor> {
    let bytes = include_bytes!("../../../tests/fixtures/kokoro_golden.safetensors");
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

/// |left - right| / |right|, by Euclid's norm.
fn relative_error(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let distance = norm(&mut left.iter().zip(right).map(|(left, right)| left - right));
    (distance / norm(&mut right.iter().copied())) as f32
}

fn correlation(left: &[f32], right: &[f32]) -> f64 {
    assert_eq!(left.len(), right.len());
    let mean = |values: &[f32]| values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
    let (mean_left, mean_right) = (mean(left), mean(right));
    let (mut product, mut square_left, mut square_right) = (0.0, 0.0, 0.0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (f64::from(*left) - mean_left, f64::from(*right) - mean_right);
        product += left * right;
        square_left += left * left;
        square_right += right * right;
    }
    product / (square_left * square_right).sqrt()
}

/// Log magnitudes of windows of 512 samples, 128 apart, 60 dB deep.
fn log_spectrum(samples: &[f32]) -> Vec<f32> {
    let spectrum = Spectrum::new(512, 128).analyse(samples);
    let magnitudes: Vec<f32> = spectrum.chunks_exact(514).flat_map(|frame| frame[..257].to_vec()).collect();
    let loudest = magnitudes.iter().copied().fold(0.0, f32::max);
    magnitudes.iter().map(|magnitude| magnitude.max(loudest * 1e-3).ln()).collect()
}

#[test]
fn agrees_with_the_reference_at_every_stage() {
    let golden = golden();
    let model = Kokoro::load(&testing::model("kokoro-82m"), &Device::Cpu).unwrap();
    let ids = golden["input_ids"].to_dtype(DType::U32).unwrap();
    let style = model.style(&values(&golden["style"])).unwrap();

    let bert = model.bert.forward(&ids).unwrap();
    let bert_error = largest_difference(&values(&bert), &values(&golden["bert"]));
    assert!(bert_error < 1e-4, "bert: {bert_error}");

    let encoded = model.bert_encoder.forward(&bert).unwrap();
    let encoded = model.predictor.encode(&encoded, &style.prosody, &style.prosody_modulation).unwrap();
    let durations = durations(&model.predictor.duration_logits(&encoded).unwrap(), 1.0).unwrap();
    let expected: Vec<usize> =
        golden["pred_dur"].to_vec1::<i64>().unwrap().iter().map(|frames| *frames as usize).collect();
    assert_eq!(durations, expected);

    let alignment = model.alignment(&durations).unwrap();
    let aligned = encoded.index_select(&alignment, 0).unwrap();
    let (pitch, energy) = model.predictor.curves(&aligned, &style.prosody_modulation).unwrap();
    let pitch_error = relative_error(&values(&pitch), &values(&golden["F0"]));
    let energy_error = relative_error(&values(&energy), &values(&golden["N"]));
    assert!(pitch_error < 1e-3 && energy_error < 1e-3, "pitch {pitch_error}, energy {energy_error}");

    let buzz = model.source.forward(&values(&pitch), Noise::Silent);
    let golden_buzz = values(&golden["har"]);
    let buzz_error = relative_error(&buzz, &golden_buzz);
    assert!(buzz_error < 2e-3, "source {buzz_error}");

    let text = model.text_encoder.forward(&ids).unwrap().index_select(&alignment, 0).unwrap();
    let features = model.trunk.forward(&text, &pitch, &energy, &style.decoder_modulation).unwrap();
    let source = model.spectrum.analyse(&buzz);
    let frames = source.len() / 22;
    let source = Tensor::from_vec(source, (frames, 22), &Device::Cpu).unwrap();
    let going = &mut || true;
    let spectrum = model.generator.forward(&features, &source, &style.decoder_modulation, going).unwrap().unwrap();
    let spectrum = values(&spectrum);
    let every_2nd: Vec<f32> = spectrum.chunks_exact(22).step_by(2).flatten().copied().collect();
    let error = relative_error(&every_2nd, &values(&golden["conv_post_every_2nd_frame"]));
    let samples = model.spectrum.synthesise(&spectrum);
    let likeness = correlation(&log_spectrum(&samples), &log_spectrum(&values(&golden["audio"])));
    println!(
        "bert {bert_error}, pitch {pitch_error}, energy {energy_error}, source {buzz_error}, conv_post {error}, \
         log spectrum {likeness}"
    );
    assert!(error < 1e-2, "conv_post {error}");
    assert!(likeness > 0.99, "log spectrum {likeness}");
}

#[test]
fn speaks_the_same_for_a_seed_and_stops_when_told() {
    let golden = golden();
    let model = Kokoro::load(&testing::model("kokoro-82m"), &Device::Cpu).unwrap();
    let ids = golden["input_ids"].to_vec1::<i64>().unwrap();
    let ids: Vec<u32> = ids[1..16].iter().map(|id| *id as u32).collect();
    let style = model.style(&values(&golden["style"])).unwrap();
    let speak = |seed| model.speak(&ids, &style, 1.0, Noise::Seeded(seed), &mut || true).unwrap().unwrap();
    let (first, again, other) = (speak(7), speak(7), speak(8));
    assert_eq!(first.samples, again.samples);
    assert_ne!(first.samples, other.samples);
    assert_eq!(first.samples.len(), first.durations.iter().sum::<usize>() * model.config().samples_per_frame());
    assert_eq!(first.durations.len(), ids.len() + 2);

    let fast = model.speak(&ids, &style, 2.0, Noise::Seeded(7), &mut || true).unwrap().unwrap();
    assert!(fast.samples.len() < first.samples.len() * 2 / 3);
    let mut asked = 0;
    let mut once = || {
        asked += 1;
        asked < 2
    };
    assert!(model.speak(&ids, &style, 1.0, Noise::Silent, &mut once).unwrap().is_none());
    assert_eq!(asked, 2);
}

#[test]
#[ignore = "a measurement, not a check: prints where the time goes"]
fn measures_the_real_time_factor() {
    let golden = golden();
    let started = std::time::Instant::now();
    let model = Kokoro::load(&testing::model("kokoro-82m"), &Device::Cpu).unwrap();
    println!("load {:?}", started.elapsed());
    let ids = golden["input_ids"].to_vec1::<i64>().unwrap();
    let ids: Vec<u32> = ids[1..ids.len() - 1].iter().map(|id| *id as u32).collect();
    let style = model.style(&values(&golden["style"])).unwrap();
    for repeat in [1_usize, 3] {
        let ids = ids.repeat(repeat);
        let mut factors = Vec::new();
        let mut length = 0.0;
        for _ in 0..7 {
            let started = std::time::Instant::now();
            let mut stamps = Vec::new();
            let utterance = model
                .speak(&ids, &style, 1.0, Noise::Seeded(1), &mut || {
                    stamps.push(started.elapsed().as_millis());
                    true
                })
                .unwrap()
                .unwrap();
            length = utterance.samples.len() as f64 / 24_000.0;
            factors.push(started.elapsed().as_secs_f64() / length);
            println!("{:?} {stamps:?}", started.elapsed());
        }
        factors.sort_by(f64::total_cmp);
        println!("{} ids, {length:.2} s: real-time factor {:.3} (best {:.3})", ids.len(), factors[3], factors[0]);
    }
}

#[test]
#[ignore = "needs the whole model in the official layout: make_kokoro_torch.py DIR --full …, then KOKORO_OFFICIAL=DIR"]
fn both_layouts_speak_equally() {
    let official = PathBuf::from(std::env::var_os("KOKORO_OFFICIAL").expect("KOKORO_OFFICIAL"));
    let ids: Vec<u32> = golden()["input_ids"].to_vec1::<i64>().unwrap()[1..20].iter().map(|id| *id as u32).collect();
    let speak = |dir: &Path, voice: &str| {
        let model = Kokoro::load(dir, &Device::Cpu).unwrap();
        let rows = model.read_voice(&dir.join("voices").join(voice)).unwrap();
        let style = model.style(&rows[ids.len() - 1]).unwrap();
        model.speak(&ids, &style, 1.0, Noise::Seeded(1), &mut || true).unwrap().unwrap()
    };
    let ours = speak(&testing::model("kokoro-82m"), "bf_emma.bin");
    let theirs = speak(&official, "bf_emma.pt");
    assert_eq!(ours.durations, theirs.durations);
    let error = relative_error(&ours.samples, &theirs.samples);
    println!("relative difference {error}");
    assert!(error < 1e-2, "{error}");
}

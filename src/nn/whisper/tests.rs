use std::collections::BTreeMap;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Deserialize;

use super::*;
use crate::testing::{fixture, model};

#[derive(Deserialize)]
struct Samples {
    places: Vec<usize>,
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Parity {
    encoder: Samples,
    prompt: Vec<u32>,
    logits: Samples,
    likeliest: Vec<usize>,
    #[serde(default)]
    languages: BTreeMap<String, f32>,
}

fn parity<T: serde::de::DeserializeOwned>(key: &str) -> T {
    let all: serde_json::Value =
        serde_json::from_slice(&std::fs::read(fixture("whisper_parity.json")).unwrap()).unwrap();
    serde_json::from_value(all[key].clone()).unwrap()
}

fn clip() -> Vec<f32> {
    let bytes = std::fs::read(fixture("goforward.s16")).unwrap();
    crate::audio::Mic::from_s16le(&bytes).as_slice().to_vec()
}

fn load(name: &str) -> Whisper {
    load_in(name, Precision::Floats)
}

fn load_in(name: &str, precision: Precision) -> Whisper {
    let folder = model(name);
    let config = Config::parse(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    #[expect(unsafe_code, reason = "a memory map")]
    // SAFETY: nobody writes the weights while a test runs.
    let vb = unsafe {
        VarBuilder::from_mmaped_safetensors(&[folder.join("model.safetensors")], DType::F32, &Device::Cpu).unwrap()
    };
    Whisper::load(config, &vb, precision).unwrap()
}

fn assert_close(what: &str, ours: &[f32], reference: &Samples, tolerance: f32) {
    for (&place, &value) in reference.places.iter().zip(&reference.values) {
        let difference = (ours[place] - value).abs();
        assert!(difference <= tolerance, "{what} at {place}: {} instead of {value}", ours[place]);
    }
}

#[test]
fn mel_equals_transformers() {
    for bins in [80, 128] {
        let mel = MelFrontEnd::new(bins).log_mel(&clip(), WINDOW_FRAMES).unwrap();
        assert_close("mel", &mel, &parity(&format!("mel_{bins}")), 1e-3);
    }
}

#[test]
fn a_shorter_spectrogram_is_the_beginning_of_the_longer_one() {
    let front_end = MelFrontEnd::new(80);
    let (whole, cut) = (front_end.log_mel(&clip(), 3000).unwrap(), front_end.log_mel(&clip(), 400).unwrap());
    assert_eq!(whole[..400 * 80], cut);
}

fn equals_transformers(name: &str) {
    let (whisper, expected) = (load(name), parity::<Parity>(name));
    let mel = MelFrontEnd::new(80).log_mel(&clip(), WINDOW_FRAMES).unwrap();
    let encoded = whisper.encode(&mel, 1, WINDOW_FRAMES, &mut || true).unwrap().unwrap();
    let encoded: Vec<f32> = encoded.flatten_all().unwrap().to_vec1().unwrap();
    assert_close("encoder", &encoded, &expected.encoder, 1e-3);

    let heard = whisper.hear(&mel, 1, WINDOW_FRAMES, &mut || true).unwrap().unwrap();
    let mut state = whisper.open(1, 16).unwrap();
    let wanted = [0, expected.prompt.len() - 1];
    let logits = whisper.read(&heard, &mut state, &expected.prompt, &wanted).unwrap();
    assert_close("logits", &logits[1], &expected.logits, 1e-3);
    let mut order: Vec<usize> = (0..logits[1].len()).collect();
    order.sort_by(|&a, &b| logits[1][b].total_cmp(&logits[1][a]));
    assert_eq!(order[..5], expected.likeliest);

    let languages = &logits[0][50_259.min(logits[0].len() - 99)..][..99];
    let total = log_sum_exp(languages);
    for (code, probability) in &expected.languages {
        let place = [("en", 0), ("zh", 1), ("de", 2), ("es", 3), ("fr", 6), ("la", 35), ("cy", 38)];
        let (_, place) = place.iter().find(|(known, _)| known == code).unwrap();
        assert!(((languages[*place] - total).exp() - probability).abs() < 1e-3, "{code}");
    }
}

#[test]
fn base_equals_transformers() {
    equals_transformers("whisper-base");
}

#[test]
fn tiny_en_equals_transformers() {
    equals_transformers("whisper-tiny.en");
}

#[test]
fn a_batch_of_windows_and_rows_equals_one_by_one() {
    let whisper = load("whisper-tiny.en");
    let front_end = MelFrontEnd::new(80);
    let (clip, frames) = (clip(), 600);
    let mels = [&clip[..], &clip[9_000..]].map(|samples| front_end.log_mel(samples, frames).unwrap());
    let both = whisper.hear(&mels.concat(), 2, frames, &mut || true).unwrap().unwrap();
    // Two rows of each window, which go on differently.
    let prompt = [50_257, 50_362];
    let mut state = whisper.open(2, 8).unwrap();
    whisper.read(&both, &mut state, &prompt.repeat(2), &[1]).unwrap();
    state.rearrange(&[0, 0, 1, 1]).unwrap();
    let next = [1514, 467, 352, 1514];
    let together = whisper.read(&both, &mut state, &next, &[0]).unwrap();
    for (row, together) in together.iter().enumerate() {
        let heard = whisper.hear(&mels[row / 2], 1, frames, &mut || true).unwrap().unwrap();
        let mut state = whisper.open(1, 8).unwrap();
        let alone = whisper.read(&heard, &mut state, &[prompt[0], prompt[1], next[row]], &[2]).unwrap();
        let largest = alone[0].iter().zip(together).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(largest < 1e-3, "row {row} differs by {largest}");
    }
}

#[test]
fn rows_that_change_places_take_their_memory_along() {
    let whisper = load("whisper-tiny.en");
    let mel = MelFrontEnd::new(80).log_mel(&clip(), 400).unwrap();
    let heard = whisper.hear(&mel, 1, 400, &mut || true).unwrap().unwrap();
    let write = |path: &[[u32; 2]], swap: bool| {
        let mut state = whisper.open(1, 8).unwrap();
        whisper.read(&heard, &mut state, &[50_257, 50_362], &[1]).unwrap();
        state.rearrange(&[0, 0]).unwrap();
        let mut last = Vec::new();
        for (step, tokens) in path.iter().enumerate() {
            if swap && step == 1 {
                state.rearrange(&[1, 0]).unwrap();
            }
            last = whisper.read(&heard, &mut state, tokens, &[0]).unwrap();
        }
        last
    };
    let straight = write(&[[1514, 467], [11, 12]], false);
    let swapped = write(&[[467, 1514], [11, 12]], true);
    let largest = straight[0].iter().zip(&swapped[0]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-4, "differs by {largest}");
    assert!(whisper.open(1, 8).unwrap().rearrange(&[1]).is_err());
}

#[test]
fn hearing_stops_where_it_is_told_to() {
    let whisper = load("whisper-tiny.en");
    let mel = vec![0.0; 400 * 80];
    let mut asked = 0;
    let heard = whisper.hear(&mel, 1, 400, &mut || {
        asked += 1;
        asked < 3
    });
    assert!(heard.unwrap().is_none());
    assert_eq!(asked, 3);
}

#[test]
fn what_does_not_fit_is_an_error_not_a_panic() {
    let whisper = load("whisper-tiny.en");
    assert!(whisper.hear(&[0.0; 7], 1, 400, &mut || true).is_err());
    let heard = whisper.hear(&vec![0.0; 400 * 80], 1, 400, &mut || true).unwrap().unwrap();
    let mut state = whisper.open(1, 3).unwrap();
    assert!(whisper.read(&heard, &mut state, &[51_864], &[0]).is_err());
    assert!(whisper.read(&heard, &mut state, &[1, 2, 3, 4], &[0]).is_err());
    assert!(whisper.read(&heard, &mut state, &[], &[0]).is_err());
    assert!(whisper.read(&heard, &mut state, &[1, 2, 3], &[2]).is_ok());
    assert!(whisper.read(&heard, &mut state, &[1], &[0]).is_err());
}

#[test]
fn the_estimate_of_the_weights_is_near_what_is_loaded() {
    let config = load("whisper-base").config().clone();
    let bytes = Whisper::weight_bytes(&config, &Device::Cpu);
    // 145 MB in the file, all f16; here a byte and a sixteenth each, and the tokens twice.
    assert!((120_000_000..145_000_000).contains(&bytes), "{bytes}");
}

/// Not a check but a clock: `cargo test --lib whisper_timings -- --ignored --nocapture`. Beside the time it prints the
/// processor time, which says more on a busy machine.
#[test]
#[ignore = "prints timings"]
fn whisper_timings() {
    use candle_core::Tensor;
    let a = Tensor::randn(0.0_f32, 1.0, (1500, 512), &Device::Cpu).unwrap();
    let b = Tensor::randn(0.0_f32, 1.0, (2048, 512), &Device::Cpu).unwrap();
    let qkv = Tensor::randn(0.0_f32, 1.0, (1, 1500, 1536), &Device::Cpu).unwrap();
    let bias = Tensor::randn(0.0_f32, 1.0, 2048, &Device::Cpu).unwrap();
    let inner = Tensor::randn(0.0_f32, 1.0, (1500, 2048), &Device::Cpu).unwrap();
    let norm = Tensor::randn(0.0_f32, 1.0, 512, &Device::Cpu).unwrap();
    let packed = crate::nn::kernel::PackedLinear::rounded(&b, &bias).unwrap();
    clock("matmul 1500x512x2048", 20, || drop(a.matmul(&b.t().unwrap()).unwrap()));
    clock("attention 8 heads 1500", 10, || drop(attention::full(&qkv, 8).unwrap()));
    clock("bias gelu 1500x2048", 20, || inner.inplace_op2(&bias, &kernel::BiasGelu).unwrap());
    clock("layer norm 1500x512", 20, || drop(candle_nn::ops::layer_norm(&a, &norm, &norm, 1e-5).unwrap()));
    clock("broadcast add 1500x512", 20, || drop(a.broadcast_add(&norm).unwrap()));
    clock("add 1500x512", 20, || drop((&a + &a).unwrap()));
    for rows in [1, 5, 20, 1500] {
        let x = a.narrow(0, 0, rows).unwrap();
        clock(&format!("{rows} rows x 512x2048 in 8 bits"), 100, || drop(packed.forward(&x, |x| x).unwrap()));
    }
    for name in ["whisper-tiny.en", "whisper-base"] {
        let whisper = load_in(name, Precision::EightBits);
        let front_end = MelFrontEnd::new(80);
        for frames in [500, 3000] {
            println!("{name}, {frames} frames");
            clock("mel", 20, || drop(front_end.log_mel(&clip(), frames).unwrap()));
            let mel = front_end.log_mel(&clip(), frames).unwrap();
            clock("encoder", 4, || drop(whisper.encode(&mel, 1, frames, &mut || true).unwrap()));
            let encoded = whisper.encode(&mel, 1, frames, &mut || true).unwrap().unwrap();
            clock("listen", 4, || drop(whisper.decoder.listen(&encoded, &mut || true).unwrap()));
            let heard = whisper.decoder.listen(&encoded, &mut || true).unwrap().unwrap();
            for rows in [1_u32, 5] {
                let mut state = whisper.open(rows as usize, 64).unwrap();
                clock(&format!("token in {rows} rows"), 20, || {
                    drop(whisper.read(&heard, &mut state, &vec![500; rows as usize], &[0]).unwrap());
                });
            }
        }
    }
}

/// Milliseconds of time and of all threads' processor time per round.
fn clock(what: &str, rounds: u32, mut work: impl FnMut()) {
    let ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> = stat.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
        fields[13] + fields[14]
    };
    work();
    let (start, before) = (std::time::Instant::now(), ticks());
    (0..rounds).for_each(|_| work());
    let wall = start.elapsed().as_secs_f64() * 1e3 / f64::from(rounds);
    let processor = (ticks() - before) as f64 * 10.0 / f64::from(rounds);
    println!("  {what}: {wall:.2} ms, processor {processor:.2} ms");
}

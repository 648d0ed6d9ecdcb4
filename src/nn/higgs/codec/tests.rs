use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::window::{StageWindow, Window};
use super::*;
use crate::testing;

const LAYOUTS: [&str; 2] = ["transformers", "boson"];
const RATES: [usize; 5] = [8, 5, 4, 2, 3];

fn folder(layout: &str) -> PathBuf {
    testing::fixture("higgs_codec").join(layout)
}

fn golden() -> HashMap<String, Tensor> {
    let bytes = include_bytes!("../../../../tests/fixtures/higgs_codec/golden.safetensors");
    candle_core::safetensors::load_buffer(bytes, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn frames(tensor: &Tensor) -> Vec<Frame> {
    values(tensor).as_chunks::<CODEBOOKS>().0.iter().map(|frame| frame.map(|code| code as u32)).collect()
}

fn random_frames(count: usize) -> Vec<Frame> {
    let mut random = StdRng::seed_from_u64(5);
    (0..count).map(|_| std::array::from_fn(|_| random.random_range(0..CODES as u32))).collect()
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    assert_eq!(left.len(), right.len());
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

fn tiny() -> Decoder {
    Decoder::load(&folder("transformers"), &Device::Cpu).unwrap()
}

#[test]
fn both_layouts_decode_as_transformers_does() {
    let golden = golden();
    let expected = values(&golden["decode.samples"]);
    for layout in LAYOUTS {
        let decoder = Decoder::load(&folder(layout), &Device::Cpu).unwrap();
        let samples = decoder.decode(&frames(&golden["decode.codes"])).unwrap();
        let difference = largest_difference(&samples, &expected);
        println!("{layout}: {difference}");
        assert!(difference < 1e-5, "{layout}: {difference}");
    }
}

#[test]
fn both_layouts_encode_to_the_codes_of_transformers() {
    let golden = golden();
    let expected = frames(&golden["encode.codes"]);
    let margins = values(&golden["encode.margins"]);
    for layout in LAYOUTS {
        let encoder = Encoder::load(&folder(layout), &Device::Cpu).unwrap();
        let codes = encoder.encode(&values(&golden["encode.samples"])).unwrap();
        // A code may differ only where two entries are as near as f32 can tell. The fixture has no such place.
        let ties = margins.iter().filter(|margin| **margin < 1e-5).count();
        let other = codes.iter().flatten().zip(expected.iter().flatten()).filter(|(code, other)| code != other);
        println!("{layout}: {} of {} codes differ, {ties} near-ties", other.count(), margins.len());
        assert_eq!((codes, ties), (expected.clone(), 0), "{layout}");
    }
}

#[test]
fn every_part_of_the_encoder_agrees_with_transformers() {
    let golden = golden();
    let encoder = Encoder::load(&folder("transformers"), &Device::Cpu).unwrap();
    let samples = values(&golden["encode.samples"]);
    let close = |name: &str, found: &Tensor, tolerance: f32| {
        assert_eq!(found.dims(), golden[name].dims(), "{name}");
        let difference = largest_difference(&values(found), &values(&golden[name]));
        println!("{name}: {difference}");
        assert!(difference < tolerance, "{name}: {difference}");
    };
    let resampled = resample::to_16k(&samples);
    close("encode.resampled", &Tensor::new(resampled, &Device::Cpu).unwrap(), 1e-6);
    let positions = encoder.understand(&samples).unwrap();
    close("encode.positions", &positions, 1e-4);
    let semantic = encoder.semantic.forward(&golden["encode.positions"]).unwrap();
    close("encode.semantic", &semantic, 1e-4);
    let length = samples.len();
    let acoustic = encoder.acoustic.forward(&Tensor::from_vec(samples, (length, 1), &Device::Cpu).unwrap()).unwrap();
    close("encode.acoustic", &acoustic, 1e-4);
    close("encode.heard", &encoder.hear(&acoustic, &semantic).unwrap(), 1e-4);
}

#[test]
fn an_impulse_becomes_the_resamplers_filter() {
    let mut samples = vec![0.0; 60];
    samples[30] = 1.0;
    let out = resample::to_16k(&samples);
    assert_eq!(out.len(), 40);
    // The output at 20 lies on the impulse, and the response is symmetric about it.
    assert!((out[20] - 0.66).abs() < 1e-6);
    (1..8).for_each(|at| assert!((out[20 + at] - out[20 - at]).abs() < 1e-7, "{at}"));
    assert!(out[..12].iter().chain(&out[29..]).all(|sample| sample.abs() < 1e-6));
}

#[test]
fn a_constant_stays_when_resampled_and_lengths_round_up() {
    let out = resample::to_16k(&vec![0.5; 300]);
    assert!(out[20..180].iter().all(|sample| (sample - 0.5).abs() < 1e-3));
    assert_eq!([0, 1, 2, 3, 4].map(|length| resample::to_16k(&vec![0.0; length]).len()), [0, 1, 2, 2, 3]);
}

#[test]
fn a_recording_is_filled_up_with_silence() {
    let codec = Codec::load(&folder("boson"), &Device::Cpu).unwrap();
    let samples = values(&golden()["encode.samples"]);
    let mut padded = samples[..1000].to_vec();
    padded.resize(2 * SAMPLES_PER_FRAME, 0.0);
    let codes = codec.encode(&samples[..1000]).unwrap();
    assert_eq!(codes.len(), 2);
    assert_eq!(codes, codec.encode(&padded).unwrap());
    assert_eq!(codec.encode(&samples[..1]).unwrap().len(), 1);
    assert_eq!(codec.decode(&codes).unwrap().len(), 2 * SAMPLES_PER_FRAME);
}

#[test]
fn the_reach_is_what_the_table_says() {
    let window = Window::new(100..101, 200, &RATES);
    // (stretch before the units, stretch of the layer below), relative to the frame.
    let expected = [(8, -51..59, -7..8), (40, -57..97, -12..20), (160, -67..227, -18..58)];
    let expected = expected.into_iter().chain([(320, -54..374, -28..188), (960, -42..1002, -15..335)]);
    for ((per_frame, upsampled, input), (rate, stage)) in expected.zip(RATES.iter().zip(&window.stages)) {
        let at = |offset: i64, per_frame: i64| (100 * per_frame + offset) as usize;
        let below = per_frame / i64::try_from(*rate).unwrap();
        let input = at(input.start, below)..at(input.end, below);
        let upsampled = at(upsampled.start, per_frame)..at(upsampled.end, per_frame);
        assert_eq!(*stage, StageWindow { input, upsampled });
    }
    assert_eq!(window.codes, 90..111);
    assert_eq!(tiny().context(), 10);
    // At both ends there is less.
    let window = Window::new(0..2, 2, &RATES);
    assert_eq!((window.codes, window.last), (0..2, 0..1920));
    assert!(window.stages.iter().all(|stage| stage.input.start == 0 && stage.upsampled.start == 0));
}

#[test]
fn a_code_is_heard_no_further_than_the_reach() {
    let decoder = tiny();
    let mut frames = random_frames(60);
    let before = decoder.decode(&frames).unwrap();
    frames[30][3] = (frames[30][3] + 1) % CODES as u32;
    let after = decoder.decode(&frames).unwrap();
    let heard: Vec<usize> = (0..before.len()).filter(|at| before[*at].to_bits() != after[*at].to_bits()).collect();
    let (first, last) = (heard[0] / SAMPLES_PER_FRAME, heard[heard.len() - 1] / SAMPLES_PER_FRAME);
    println!("a change in frame 30 is heard in frames {first} to {last}");
    assert!((20..=21).contains(&first) && (39..=40).contains(&last), "{first} to {last}");
}

#[test]
fn windows_are_what_the_whole_has_there() {
    let decoder = tiny();
    let frames = random_frames(70);
    let whole = decoder.decode(&frames).unwrap();
    let part = |emit: std::ops::Range<usize>, context: usize| {
        let from = emit.start.saturating_sub(context);
        let to = (emit.end + context).min(frames.len());
        let samples = decoder.decode_window(&frames[from..to], emit.start - from..emit.end - from).unwrap();
        let of_whole = &whole[emit.start * SAMPLES_PER_FRAME..emit.end * SAMPLES_PER_FRAME];
        largest_difference(&samples, of_whole)
    };
    for emit in [0..1, 0..70, 3..5, 9..12, 30..31, 25..50, 58..61, 69..70] {
        let difference = part(emit.clone(), 10);
        assert!(difference < 1e-6, "{emit:?}: {difference}");
    }
    let less: Vec<f32> = [9, 8, 6, 5, 4, 2, 0].map(|context| part(25..50, context)).to_vec();
    println!("with 9, 8, 6, 5, 4, 2 and no frames of context: {less:?}");
    assert!(less[6] > 1e-3, "the context matters: {less:?}");
    assert!(decoder.decode_window(&frames, 5..5).unwrap().is_empty());
    assert!(decoder.decode_window(&frames[..4], 2..5).is_err());
}

#[test]
fn a_stream_sounds_like_the_whole_however_it_is_pushed() {
    let decoder = tiny();
    let frames = random_frames(83);
    let whole = decoder.decode(&frames).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    for chunk in [1, 4, 12, 100] {
        let mut stream = DecoderStream::new(Chunking::exact(chunk, &decoder));
        // The second round shows that nothing of the first is left.
        for _ in 0..2 {
            let (mut samples, mut rest) = (Vec::new(), &frames[..]);
            while !rest.is_empty() {
                let (now, later) = rest.split_at(random.random_range(1..=20).min(rest.len()));
                samples.extend(stream.push(&decoder, now).unwrap());
                rest = later;
            }
            samples.extend(stream.finish(&decoder).unwrap());
            let difference = largest_difference(&samples, &whole);
            assert!(difference < 1e-6, "chunks of {chunk}: {difference}");
        }
    }
}

#[test]
fn the_first_chunk_comes_early_and_only_it_and_the_end_differ() {
    let decoder = tiny();
    let frames = random_frames(60);
    let whole = decoder.decode(&frames).unwrap();
    let mut stream = DecoderStream::new(Chunking::default());
    let mut samples = stream.push(&decoder, &frames[..12]).unwrap();
    assert!(samples.is_empty());
    samples.extend(stream.push(&decoder, &frames[12..13]).unwrap());
    assert_eq!(samples.len(), 5 * SAMPLES_PER_FRAME);
    samples.extend(stream.push(&decoder, &frames[13..]).unwrap());
    // Chunks of 5, 10 and 20 frames; the next would be of 25 and wants ten more after it.
    assert_eq!(samples.len(), 35 * SAMPLES_PER_FRAME);
    samples.extend(stream.finish(&decoder).unwrap());
    let split = [5, 50].map(|frame| frame * SAMPLES_PER_FRAME);
    let first = largest_difference(&samples[..split[0]], &whole[..split[0]]);
    let middle = largest_difference(&samples[split[0]..split[1]], &whole[split[0]..split[1]]);
    println!("first chunk {first}, between {middle}");
    assert!(first < 1e-3 && middle < 1e-6, "first chunk {first}, between {middle}");
    assert!(stream.finish(&decoder).unwrap().is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    let codec = Codec::load(&folder("transformers"), &Device::Cpu).unwrap();
    let mut frames = random_frames(3);
    frames[1][6] = 1024;
    let error = codec.decode(&frames).unwrap_err().to_string();
    assert_eq!(error, "the code 1024 in codebook 6 of frame 1 is none of the codec's 1024");
    assert!(DecoderStream::new(Chunking::default()).push(&codec.decoder, &frames).is_err());
    assert!(codec.decode(&[]).unwrap().is_empty());
    assert!(matches!(codec.encode(&[]), Err(CodecError::Empty)));
    assert!(matches!(codec.encode(&[0.0, f32::NAN]), Err(CodecError::NotFinite { sample: 1 })));
}

/// The transformers fixture in a folder of its own, its tensors changed.
fn changed(change: impl FnOnce(&mut HashMap<String, Tensor>)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = folder("transformers");
    let mut tensors = candle_core::safetensors::load(from.join("model.safetensors"), &Device::Cpu).unwrap();
    change(&mut tensors);
    candle_core::safetensors::save(&tensors, dir.path().join("model.safetensors")).unwrap();
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    dir
}

fn fault(dir: &Path) -> String {
    Codec::load(dir, &Device::Cpu).err().expect("an error").to_string()
}

#[test]
fn every_tensor_is_missed_by_its_name() {
    let names: Vec<String> = changed(|_| ())
        .path()
        .join("model.safetensors")
        .to_str()
        .map(|path| candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_keys().collect())
        .unwrap();
    assert!(names.len() > 300, "{}", names.len());
    for name in names.iter().filter(|name| name.as_str() != "acoustic_decoder.conv1.weight") {
        let error = fault(changed(|tensors| drop(tensors.remove(name))).path());
        let codebook = name.ends_with("codebook.embed");
        let pair = name.contains("parametrizations");
        let named = if pair { "semantic_model.encoder.pos_conv_embed.conv.weight" } else { name };
        assert!(error.contains(named) || codebook && error.contains("codebooks"), "{name}: {error}");
    }
}

#[test]
fn a_misshapen_tensor_is_named() {
    for name in
        ["acoustic_decoder.block.2.res_unit3.conv1.weight", "fc2.bias", "semantic_model.encoder.layer_norm.bias"]
    {
        let wider = |tensors: &mut HashMap<String, Tensor>| {
            let tensor = &tensors[name];
            let wider = Tensor::cat(&[tensor, tensor], 0).unwrap();
            tensors.insert(name.to_owned(), wider);
        };
        let error = fault(changed(wider).path());
        assert!(error.contains(&format!("the tensor {name} has the shape")), "{error}");
    }
}

#[test]
fn another_model_is_refused_by_what_it_is() {
    let empty = tempfile::tempdir().unwrap();
    assert!(fault(empty.path()).contains("config.json"));
    let dir = changed(|tensors| tensors.retain(|name, _| name.starts_with("semantic_model.")));
    let error = fault(dir.path());
    assert!(error.contains("acoustic_decoder.conv1.weight nor decoder_2.model.0.weight"), "{error}");
    let dir = changed(|tensors| tensors.retain(|name, _| !name.contains("quantizers.7.")));
    assert!(fault(dir.path()).contains("7 codebooks, but Higgs Audio v2 speaks through 8"));
    for (config, reason) in [
        (json!({"model_type": "higgs_audio"}), "it describes higgs_audio, not the codec"),
        (json!([]), "nothing that is known"),
        (json!({"model_type": "higgs_audio_v2_tokenizer", "sample_rate": 16000}), "sample_rate is 16000, but 24000"),
        (json!({"ratios": [8, 5, 4, 2], "n_q": 8}), "5 of product 960"),
        (json!({"ratios": RATES, "n_q": 12}), "n_q is 12, but 8"),
        (json!({"ratios": RATES, "n_q": 8, "semantic_techer": "wavlm"}), "semantic_techer"),
        (json!({"ratios": RATES, "n_q": 8, "D": 0}), "acoustic hidden_size cannot be used"),
    ] {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let error = fault(dir.path());
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn the_published_config_is_the_published_model() {
    let file = json!({
        "n_filters": 32, "D": 256, "codebook_dim": 64, "target_bandwidths": [0.5, 1, 1.5, 2, 4],
        "ratios": RATES, "sample_rate": 24000, "bins": 1024, "n_q": 8, "semantic_techer": "hubert_base_general",
    });
    let published = config::parse(file).unwrap();
    assert_eq!((published.hidden_size(), published.acoustic.decoder_hidden_size), (1024, 1024));
    assert_eq!(published, config::parse(json!({"model_type": "higgs_audio_v2_tokenizer"})).unwrap());
}

#[test]
fn boson_calls_the_tensors_so() {
    for (name, expected) in [
        ("acoustic_encoder.conv1.weight", "encoder.block.0.weight"),
        ("acoustic_encoder.snake1.alpha", "encoder.block.6.alpha"),
        ("acoustic_encoder.conv2.bias", "encoder.block.7.bias"),
        ("acoustic_encoder.block.0.res_unit1.snake1.alpha", "encoder.block.1.block.0.block.0.alpha"),
        ("acoustic_encoder.block.4.res_unit3.conv2.weight", "encoder.block.5.block.2.block.3.weight"),
        ("acoustic_encoder.block.2.snake1.alpha", "encoder.block.3.block.3.alpha"),
        ("acoustic_encoder.block.2.conv1.weight", "encoder.block.3.block.4.weight"),
        ("acoustic_decoder.conv1.weight", "decoder_2.model.0.weight"),
        ("acoustic_decoder.snake1.alpha", "decoder_2.model.6.alpha"),
        ("acoustic_decoder.conv2.weight", "decoder_2.model.7.weight"),
        ("acoustic_decoder.block.0.snake1.alpha", "decoder_2.model.1.block.0.alpha"),
        ("acoustic_decoder.block.0.conv_t1.weight", "decoder_2.model.1.block.1.weight"),
        ("acoustic_decoder.block.4.res_unit1.conv1.weight", "decoder_2.model.5.block.2.block.1.weight"),
        ("acoustic_decoder.block.4.res_unit3.snake2.alpha", "decoder_2.model.5.block.4.block.2.alpha"),
        ("quantizer.quantizers.7.project_in.weight", "quantizer.vq.layers.7.project_in.weight"),
        ("quantizer.quantizers.0.codebook.embed", "quantizer.vq.layers.0._codebook.embed"),
        ("fc.weight", "fc_prior.weight"),
        ("fc2.bias", "fc_post2.bias"),
        ("encoder_semantic.conv.weight", "encoder_semantic.conv.conv.weight"),
        (
            "encoder_semantic.conv_blocks.1.res_units.0.conv1.weight",
            "encoder_semantic.conv_blocks.1.res_units.0.conv1.conv.weight",
        ),
        (
            "encoder_semantic.conv_blocks.1.res_units.0.conv2.weight",
            "encoder_semantic.conv_blocks.1.res_units.0.conv2.weight",
        ),
        ("encoder_semantic.conv_blocks.0.conv.bias", "encoder_semantic.conv_blocks.0.conv.conv.bias"),
        ("semantic_model.encoder.layer_norm.weight", "semantic_model.encoder.layer_norm.weight"),
    ] {
        assert_eq!(weights::boson(name)[0], expected);
    }
}

/// Weights of whatever shape is asked for, of about the size that keeps a signal's.
struct RandomWeights;

impl SimpleBackend for RandomWeights {
    fn get(&self, shape: Shape, name: &str, _: Init, _: DType, device: &Device) -> candle_core::Result<Tensor> {
        let inputs: usize = shape.dims().iter().skip(1).product();
        if name.ends_with("alpha") || name.contains("norm.weight") {
            return Tensor::ones(shape, DType::F32, device);
        }
        let deviation = if shape.rank() < 2 { 0.01 } else { 0.5 / (inputs as f32).sqrt() };
        Tensor::randn(0.0, deviation, shape, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name} has no shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

fn milliseconds(mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..5)
        .map(|_| {
            let started = Instant::now();
            work();
            started.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[2]
}

#[test]
#[ignore = "a measurement: the published shapes with random weights, in an optimised build; DEVICE=cuda takes a card"]
fn speed_of_the_published_shapes() {
    let device = if std::env::var_os("DEVICE").is_some_and(|name| name == "cuda") {
        Device::new_cuda(0).unwrap()
    } else {
        Device::Cpu
    };
    let config = config::parse(json!({"model_type": "higgs_audio_v2_tokenizer"})).unwrap();
    let vb = VarBuilder::from_backend(Box::new(RandomWeights), DType::F32, device.clone());
    let decoder = Decoder::build(&config, &vb).unwrap();
    for seconds in [1, 4, 10] {
        let frames = random_frames(25 * seconds);
        let time = milliseconds(|| drop(decoder.decode(&frames).unwrap()));
        println!("decode of {seconds} s: {:.1} ms per second of audio", time / seconds as f64);
    }
    for (before, emit, after) in [(0, 5, 5), (10, 5, 10), (10, 12, 10), (10, 25, 10)] {
        let frames = random_frames(before + emit + after);
        let time = milliseconds(|| drop(decoder.decode_window(&frames, before..before + emit).unwrap()));
        let per_second = time * 25.0 / emit as f64;
        println!("a window of {emit} frames, {before} before, {after} after: {time:.1} ms, {per_second:.1} per second");
    }
    let encoder = Encoder::build(&config, &vb).unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let samples: Vec<f32> = (0..10 * SAMPLE_RATE).map(|_| random.random_range(-0.1..0.1)).collect();
    let started = Instant::now();
    let codes = encoder.encode(&samples).unwrap();
    println!("encode of 10 s: {:.0} ms, {} frames", started.elapsed().as_secs_f64() * 1e3, codes.len());
}

use std::panic::{AssertUnwindSafe, catch_unwind};

use candle_core::safetensors::save;
use candle_core::{DType, Tensor};
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::nn::checkpoint::{reason_of, tests::mutate};

const TORCH_STATE: &[u8] = include_bytes!("../../../../tests/fixtures/kokoro_torch.pth");
const TORCH_VOICE: &[u8] = include_bytes!("../../../../tests/fixtures/kokoro_torch.pt");

fn dir_with(name: &str, bytes: &[u8]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(name), bytes).unwrap();
    dir
}

fn opened(dir: &Path) -> VarBuilder<'static> {
    open(dir, &Device::Cpu).unwrap().0
}

/// The text of an error that must be one.
fn fault<T>(outcome: Result<T, LoadError>) -> String {
    outcome.err().expect("an error").to_string()
}

/// A tiny safetensors file, and where its header ends.
fn tiny_safetensors() -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let tensors = [("first.weight", tensor(&[2, 3])), ("first.bias", tensor(&[2])), ("alpha", tensor(&[1, 4, 1]))];
    save(&tensors.into_iter().collect(), &path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (bytes, header)
}

#[test]
fn reads_torch_state_dicts_and_folds_weight_norm() {
    let dir = dir_with("kokoro-v1_0.pth", TORCH_STATE);
    let vb = opened(dir.path());
    let first = vb.get((2, 3), "bert.first.weight").unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(first, [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]);
    let view = vb.get((3, 2), "decoder.view.weight").unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(view, [[4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]);
    assert_eq!(vb.get(2, "decoder.half.weight").unwrap().to_vec1::<f32>().unwrap(), [0.5, -2.0]);
    assert_eq!(vb.get(1, "decoder.parameter.bias").unwrap().to_vec1::<f32>().unwrap(), [3.0]);

    // The script stored v = 2.5 w and g = |w|, so folding gives w: v / 2.5.
    let folded = vb.get((4, 3, 5), "decoder.conv.weight").unwrap();
    let expected = (vb.get((4, 3, 5), "decoder.conv.weight_v").unwrap() / 2.5).unwrap();
    let distance = (folded - expected).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    assert!(distance.to_scalar::<f32>().unwrap() < 1e-6);
    assert!(vb.contains_tensor("decoder.conv.weight"));

    let missing = vb.get(1, "decoder.nothing").unwrap_err();
    assert_eq!(reason_of(&missing), "the tensor decoder.nothing is missing");
    let wrong = vb.get((3, 2), "bert.first.weight").unwrap_err();
    assert!(reason_of(&wrong).contains("[2, 3]"), "{wrong}");
}

#[test]
fn reads_both_kinds_of_voice() {
    let dir = dir_with("voice.pt", TORCH_VOICE);
    let rows = read_voice(&dir.path().join("voice.pt"), 3, 256).unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[0][0], rows[0][1], rows[2][255]), (0.0, 1.0 / 768.0, 767.0 / 768.0));

    let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
    let path = dir.path().join("voice.bin");
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_voice(&path, 3, 256).unwrap(), rows);
    for length in [0, 1, bytes.len() - 1, bytes.len() - 4, bytes.len() - 1024, 1024, 1023] {
        std::fs::write(&path, &bytes[..length]).unwrap();
        assert!(fault(read_voice(&path, 3, 256)).contains("voice.bin"), "{length} bytes");
    }
    std::fs::write(&path, bytes.repeat(2)).unwrap();
    assert!(fault(read_voice(&path, 3, 256)).contains("1536 values where a voice has 768"));
    std::fs::write(&path, f32::NAN.to_le_bytes().repeat(3 * 256)).unwrap();
    assert!(fault(read_voice(&path, 3, 256)).contains("not finite"));
}

#[test]
fn the_error_names_the_file_and_the_reason() {
    let empty = tempfile::tempdir().unwrap();
    assert!(fault(open(empty.path(), &Device::Cpu)).contains("model.safetensors: "));
    for bytes in [&b""[..], b"PK", b"not a model at all, but some text", &tiny_safetensors().0[..40]] {
        let dir = dir_with("model.safetensors", bytes);
        assert!(fault(open(dir.path(), &Device::Cpu)).contains("model.safetensors: "));
        let dir = dir_with("kokoro-v1_0.pth", bytes);
        assert!(fault(open(dir.path(), &Device::Cpu)).contains("kokoro-v1_0.pth: "));
    }
}

/// Opens and reads everything that the mutated file may still hold: any outcome but a panic is right.
fn survives(name: &str, bytes: &[u8], upto: usize, read: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    let mut random = StdRng::seed_from_u64(42);
    for round in 0..1000 {
        let mutated = mutate(bytes, upto, &mut random);
        std::fs::write(&path, &mutated).unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| read(&path)));
        assert!(outcome.is_ok(), "mutation {round} of {name} panicked: {mutated:?}");
    }
}

#[test]
fn a_thousand_mutations_of_each_format_never_panic() {
    let (bytes, header) = tiny_safetensors();
    survives("model.safetensors", &bytes, header, |path| {
        if let Ok((vb, _)) = open(path.parent().unwrap(), &Device::Cpu) {
            let _ = (vb.get((2, 3), "first.weight"), vb.get(2, "first.bias"), vb.get((1, 4, 1), "alpha"));
        }
    });
    survives("kokoro-v1_0.pth", TORCH_STATE, TORCH_STATE.len(), |path| {
        if let Ok((vb, _)) = open(path.parent().unwrap(), &Device::Cpu) {
            let _ = (vb.get((2, 3), "bert.first.weight"), vb.get((4, 3, 5), "decoder.conv.weight"));
            let _ = (vb.get(2, "decoder.half.weight"), vb.get((3, 2), "decoder.view.weight"));
        }
    });
    survives("voice.pt", TORCH_VOICE, TORCH_VOICE.len(), |path| drop(read_voice(path, 3, 256)));
    let values: Vec<u8> = (0..512).flat_map(|value| (value as f32).to_le_bytes()).collect();
    survives("voice.bin", &values, values.len(), |path| drop(read_voice(path, 2, 256)));
}

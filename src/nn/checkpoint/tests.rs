use std::collections::HashMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

const TORCH_STATE: &[u8] = include_bytes!("../../../tests/fixtures/kokoro_torch.pth");

/// Flips, drops, doubles or overwrites a few bytes of the first `upto`.
pub(in crate::nn) fn mutate(bytes: &[u8], upto: usize, random: &mut StdRng) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..upto.min(bytes.len()));
        match random.random_range(0..5) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = random.random(),
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, random.random()),
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}

#[test]
fn a_thousand_mutations_of_a_pickle_never_panic() {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(TORCH_STATE)).unwrap();
    let name = archive.file_names().map(|name| name.unwrap().into_owned()).find(|name| name.ends_with("data.pkl"));
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name(&name.unwrap()).unwrap(), &mut bytes).unwrap();
    let whole = pickle::read(&bytes).unwrap();
    assert_eq!(whole.tensors.len(), 6, "{:?}", whole.tensors.keys());
    assert!(whole.bare.is_none());
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..5000 {
        let _ = pickle::read(&mutate(&bytes, bytes.len(), &mut random));
    }
    // A dict that holds itself, a number wider than 64 bits, a text longer than the file.
    for bytes in [&b"}q\x00X\x01\x00\x00\x00ah\x00s."[..], b"\x8a\xff0.", b"X\xff\xff\xff\xff.", b"t.", b"R.", b"("] {
        let read = pickle::read(bytes);
        assert!(read.is_err() || read.unwrap().tensors.is_empty());
    }
}

/// Tensors in memory.
impl Archive for HashMap<String, Tensor> {
    fn contains(&self, name: &str) -> bool {
        self.contains_key(name)
    }

    fn tensor(&self, name: &str, _: &Device) -> Result<Tensor> {
        Ok(self[name].clone())
    }
}

fn weights(tensors: &[(&str, Tensor)], spelling: Spelling) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone())).collect();
    Weights::new(Box::new(tensors), spelling).into_builder(&Device::Cpu)
}

#[test]
fn weight_norm_folds_along_the_dimension_that_its_magnitude_has() {
    let v = Tensor::new(&[[[3.0_f32, 1.0], [4.0, 0.0]], [[0.0, 2.0], [0.0, 2.0]]], &Device::Cpu).unwrap();
    let first = Tensor::new(&[10.0_f32, 4.0], &Device::Cpu).unwrap();
    let names = ["layer.parametrizations.weight.original0", "layer.parametrizations.weight.original1"];
    let folded = |g: &Tensor| {
        let vb = weights(&[(names[0], g.clone()), (names[1], v.clone())], |name| vec![name.to_owned()]);
        vb.get((2, 2, 2), "layer.weight")
    };
    // Each tap (the last dimension) to the length that its magnitude says.
    let per_tap = folded(&first.reshape((1, 1, 2)).unwrap()).unwrap().to_vec3::<f32>().unwrap();
    assert_eq!(per_tap, [[[6.0, 4.0 / 3.0], [8.0, 0.0]], [[0.0, 8.0 / 3.0], [0.0, 8.0 / 3.0]]]);
    let per_row = folded(&first.reshape((2, 1, 1)).unwrap()).unwrap().to_vec3::<f32>().unwrap();
    let length = 26.0_f32.sqrt();
    assert!((per_row[0][1][0] - 40.0 / length).abs() < 1e-5 && (per_row[1][0][1] - 8.0 / 8.0_f32.sqrt()).abs() < 1e-5);
    let error = reason_of(&folded(&Tensor::zeros((1, 3, 1), DType::F32, &Device::Cpu).unwrap()).unwrap_err());
    assert!(error.contains("layer.parametrizations.weight.original0 has the shape [1, 3, 1]"), "{error}");
}

#[test]
fn a_missing_tensor_is_named_as_the_file_would() {
    let spelling: Spelling = |name| vec![format!("old.{name}"), name.to_owned()];
    let one = Tensor::ones(1, DType::F32, &Device::Cpu).unwrap();
    let vb = weights(&[("old.a", one.clone()), ("b", one)], spelling);
    assert!(vb.get(1, "a").is_ok() && vb.get(1, "b").is_ok() && vb.contains_tensor("b") && !vb.contains_tensor("c"));
    assert_eq!(reason_of(&vb.get(1, "c").unwrap_err()), "the tensor old.c is missing");
    assert!(reason_of(&vb.get(2, "a").unwrap_err()).contains("old.a has the shape [1] where [2]"));
}

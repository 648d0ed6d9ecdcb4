use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::activations::{Activations, BLOCK, GROUP};
use super::super::pack::{Kind, Packed};
use super::super::simd::{Instructions, LANES, Lanes, behind_door};
use super::{Product, multiply};

const QUANTIZED: [GgmlDType; 10] = [
    GgmlDType::Q4_0,
    GgmlDType::Q4_1,
    GgmlDType::Q5_0,
    GgmlDType::Q5_1,
    GgmlDType::Q8_0,
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
];
/// Not a multiple of 16, so that the last tile is filled up.
const OUTPUTS: usize = 40;
const INPUTS: usize = 512;
/// One whole block and a part of one.
const ROWS: usize = 21;

fn random(seed: u64, length: usize) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..length).map(|_| random.random_range(-1.0..1.0_f32).powi(3)).collect()
}

fn weights(seed: u64) -> Tensor {
    Tensor::from_vec(random(seed, OUTPUTS * INPUTS), (OUTPUTS, INPUTS), &Device::Cpu).unwrap()
}

fn written(instructions: Instructions, rows: &[&[f32]], quantized: bool) -> Activations {
    #[inline(always)]
    #[expect(unsafe_code, reason = "behind the door of its instructions")]
    unsafe fn write<L: Lanes>(activations: &Activations, row: usize, values: &[f32]) {
        // SAFETY: one thread, behind the door.
        unsafe { activations.write::<L>(row, 0, values) }
    }
    let activations = Activations::new(rows.len(), rows[0].len(), quantized, !quantized);
    for (row, values) in rows.iter().enumerate() {
        let (activations, values) = (&activations, *values);
        #[expect(unsafe_code, reason = "behind the door of its instructions")]
        // SAFETY: the instructions were found; one thread.
        unsafe {
            behind_door!(instructions, write(activations: &Activations, row: usize, values: &[f32]));
        }
    }
    activations
}

/// All outputs of all rows, `[rows][outputs]`.
fn products(instructions: Instructions, weights: &Packed, rows: &[&[f32]]) -> Vec<Vec<f32>> {
    let activations = written(instructions, rows, matches!(weights.kind, Kind::Quantized(_)));
    let mut out = vec![Vec::new(); rows.len()];
    for tile in 0..weights.tiles() {
        for block in 0..rows.len().div_ceil(BLOCK) {
            let count = BLOCK.min(rows.len() - block * BLOCK);
            let mut product: Product = [f32::NAN; BLOCK * LANES];
            #[expect(unsafe_code, reason = "one thread writes and reads")]
            // SAFETY: the instructions were found; the activations are written.
            unsafe {
                multiply(instructions, weights, tile, &activations, (block, count), &mut product);
            }
            for row in 0..count {
                let columns = LANES.min(OUTPUTS - tile * LANES);
                out[block * BLOCK + row].extend(&product[row * LANES..][..columns]);
            }
        }
    }
    out
}

/// What 8-bit codes make of a row, in f64.
fn rounded(row: &[f32]) -> Vec<f64> {
    let group = |group: &[f32]| {
        let highest = group.iter().fold(0.0_f32, |highest, value| highest.max(value.abs()));
        let inverse = 127.0 / highest;
        let codes: Vec<_> = group.iter().map(|value| (value * inverse).round_ties_even()).collect();
        codes.into_iter().map(move |code| f64::from(code) * f64::from(highest / 127.0)).collect::<Vec<_>>()
    };
    row.chunks(GROUP).flat_map(group).collect()
}

fn assert_close(name: &str, weights: &Packed, plain: &[Vec<f32>], is_quantized: bool) {
    let values = random(7, ROWS * INPUTS);
    let rows: Vec<&[f32]> = values.chunks(INPUTS).collect();
    let best = products(Instructions::detect(), weights, &rows);
    for (row, products) in rows.iter().zip(&best) {
        let row = if is_quantized { rounded(row) } else { row.iter().copied().map(f64::from).collect() };
        for (weights, product) in plain.iter().zip(products) {
            let terms = || row.iter().zip(weights).map(|(value, weight)| value * f64::from(*weight));
            let (expected, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
            let difference = (expected - f64::from(*product)).abs();
            assert!(difference < 2e-6 * size, "{name}: {product}, expected {expected}");
        }
    }
    let bits = |products: &[Vec<f32>]| -> Vec<Vec<u32>> {
        products.iter().map(|row| row.iter().map(|value| value.to_bits()).collect()).collect()
    };
    for instructions in Instructions::all() {
        assert_eq!(bits(&products(instructions, weights, &rows)), bits(&best), "{name} with {instructions:?}");
        // Every number of rows that has a kernel of its own, and those between.
        for count in [1, 2, 3, 5, 9, 16, 17] {
            let fewer = products(instructions, weights, &rows[..count]);
            assert_eq!(bits(&fewer), bits(&best[..count]), "{name} with {instructions:?}, {count} rows");
        }
    }
}

#[test]
fn products_of_quantized_weights_are_those_of_what_they_stand_for() {
    for dtype in QUANTIZED {
        let stored = QTensor::quantize(&weights(3), dtype).unwrap();
        let plain = stored.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
        let packed = Packed::quantized(&stored).unwrap();
        for (output, plain) in plain.iter().enumerate() {
            let mut row = vec![0.0; INPUTS];
            packed.row(output, &mut row);
            let far = row.iter().zip(plain).map(|(one, other)| (one - other).abs()).fold(0.0, f32::max);
            assert!(far < 1e-6, "{dtype:?}: a weight is {far} off");
        }
        assert_close(&format!("{dtype:?}"), &packed, &plain, true);
    }
}

#[test]
fn products_of_floats_are_products() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let stored = weights(4).to_dtype(dtype).unwrap();
        let plain = stored.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
        assert_close(&format!("{dtype:?}"), &Packed::dense(&stored).unwrap(), &plain, false);
    }
}

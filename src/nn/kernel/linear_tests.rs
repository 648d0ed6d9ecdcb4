use candle_core::{Device, Tensor};

use super::*;

/// Outputs that do not fill the last tile.
const OUTER: usize = 70;
const INNER: usize = 96;

fn layer() -> (PackedLinear, Tensor, Tensor) {
    let weight = Tensor::randn(0.0_f32, 0.1, (OUTER, INNER), &Device::Cpu).unwrap();
    let bias = Tensor::randn(0.0_f32, 1.0, OUTER, &Device::Cpu).unwrap();
    (PackedLinear::rounded(&weight, &bias).unwrap(), weight, bias)
}

#[test]
fn rows_times_rounded_weights_are_near_a_product_of_floats() {
    let (linear, weight, bias) = layer();
    for rows in [1, 2, 5, 16, 17, 150] {
        let input = Tensor::randn(0.0_f32, 1.0, (rows, INNER), &Device::Cpu).unwrap();
        let ours = linear.forward(&input, |value| 2.0 * value).unwrap();
        let plain = input.matmul(&weight.t().unwrap()).unwrap().broadcast_add(&bias).unwrap();
        let difference: f32 =
            (ours - (plain * 2.0).unwrap()).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        // Two roundings to one part in 254 of about 3 and 0.3, over 96 products.
        assert!(difference < 0.1, "{rows} rows: {difference}");
    }
}

#[test]
fn floats_and_stored_codes_are_multiplied_as_they_are() {
    let (_, weight, _) = layer();
    let stored = QTensor::quantize(&weight, GgmlDType::Q4_0).unwrap();
    let open = stored.dequantize(&Device::Cpu).unwrap();
    for (linear, weight, bound) in [
        (PackedLinear::dense(&weight).unwrap(), &weight, 1e-4),
        (PackedLinear::quantized(&stored).unwrap(), &open, 0.1),
    ] {
        for rows in [1, 4, 33] {
            let input = Tensor::randn(0.0_f32, 1.0, (rows, INNER), &Device::Cpu).unwrap();
            let plain = input.matmul(&weight.t().unwrap()).unwrap();
            let ours = linear.forward(&input, |value| value).unwrap();
            let difference: f32 = (ours - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
            assert!(difference < bound, "{rows} rows: {difference}");
        }
    }
}

#[test]
fn a_row_is_the_same_alone_and_in_a_crowd() {
    let (linear, ..) = layer();
    let input = Tensor::randn(0.0_f32, 1.0, (83, INNER), &Device::Cpu).unwrap();
    let together: Vec<Vec<f32>> = linear.forward(&input, |value| value).unwrap().to_vec2().unwrap();
    for (row, together) in together.iter().enumerate() {
        let alone = linear.forward(&input.narrow(0, row, 1).unwrap(), |value| value).unwrap();
        assert_eq!(alone.flatten_all().unwrap().to_vec1::<f32>().unwrap(), *together, "row {row}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (linear, weight, bias) = layer();
    let narrow = Tensor::zeros((3, INNER - 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(linear.forward(&narrow, |value| value).is_err());
    let scattered = Tensor::zeros((INNER, 3), candle_core::DType::F32, &Device::Cpu).unwrap().t().unwrap();
    assert!(linear.forward(&scattered, |value| value).is_err());
    assert!(PackedLinear::rounded(&weight.narrow(1, 0, 40).unwrap(), &bias).is_err());
    assert!(PackedLinear::rounded(&weight, &bias.narrow(0, 0, 3).unwrap()).is_err());
}

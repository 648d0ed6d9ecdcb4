use candle_core::{DType, Device, Tensor};

use super::*;

#[test]
fn the_exponential_is_exact_to_the_last_digits() {
    for step in 0..=87_000 {
        let x = -step as f32 / 1_000.0;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 3e-7, "exp({x}) is off by {error}");
    }
    assert!(exp(f32::NEG_INFINITY) < 1e-37);
    assert!((exp(0.0) - 1.0).abs() < 1e-7);
}

#[test]
fn log_sum_exp_ignores_what_is_forbidden() {
    let mut values: Vec<f32> = (0..1_003).map(|n| (n as f32 * 0.37).sin() * 20.0).collect();
    values[5] = f32::NEG_INFINITY;
    let exact = values.iter().map(|&value| f64::from(value).exp()).sum::<f64>().ln();
    assert!((f64::from(log_sum_exp(&values)) - exact).abs() < 1e-5);
    assert!(log_sum_exp(&[f32::NEG_INFINITY; 20]).is_infinite());
}

#[test]
fn bias_and_gelu_equal_candles() {
    let x = Tensor::randn(0.0_f32, 3.0, (37, 50), &Device::Cpu).unwrap();
    let bias = Tensor::randn(0.0_f32, 1.0, 50, &Device::Cpu).unwrap();
    let expected = x.broadcast_add(&bias).unwrap().gelu_erf().unwrap();
    x.inplace_op2(&bias, &BiasGelu).unwrap();
    let difference: f32 = (x - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    assert!(difference < 2e-6, "{difference}");
}

#[test]
fn every_finite_half_widens_exactly() {
    let halves: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).filter(|half| half.is_finite()).collect();
    let mut wide = vec![0.0; halves.len()];
    widen(&halves, &mut wide);
    for (half, wide) in halves.iter().zip(wide) {
        assert_eq!(half.to_f32().to_bits(), wide.to_bits(), "{half}");
    }
}

#[test]
fn rows_times_half_weights_equal_a_product_in_f32() {
    for (rows, inner, outer) in [(1, 64, 7), (5, 512, 1_000), (16, 384, 33), (3, 70, 300)] {
        let input = Tensor::randn(0.0_f32, 1.0, (rows, inner), &Device::Cpu).unwrap();
        let weight = Tensor::randn(0.0_f32, 0.1, (outer, inner), &Device::Cpu).unwrap().to_dtype(DType::F16).unwrap();
        let bias = Tensor::randn(0.0_f32, 1.0, outer, &Device::Cpu).unwrap();
        let ours = input.apply_op3_no_bwd(&weight, &bias, &HalfLinear).unwrap();
        let plain = input.matmul(&weight.to_dtype(DType::F32).unwrap().t().unwrap()).unwrap();
        let plain = plain.broadcast_add(&bias).unwrap();
        let difference: f32 = (ours - plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
        assert!(difference < 1e-4, "{rows} x {inner} x {outer}: {difference}");
    }
}

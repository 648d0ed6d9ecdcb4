use candle_core::{Device, Tensor};

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

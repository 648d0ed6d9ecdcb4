use candle_core::{DType, Device, Tensor};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::conv::{Before, Conv1d, Snake, UpsamplingConv, Walk};
use super::norm::{Affine, measure, measure_plain};
use super::{scalar, scaled_sum};

/// Values in [-1, 1), the same in every run.
pub(in crate::nn) fn noise(seed: u64, shape: &[usize]) -> Tensor {
    let mut random = StdRng::seed_from_u64(seed);
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| random.random_range(-1.0..1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

pub(in crate::nn) fn assert_close(left: &Tensor, right: &Tensor, tolerance: f32) {
    assert_eq!(left.shape(), right.shape());
    let distance = (left - right).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let distance = distance.to_scalar::<f32>().unwrap();
    assert!(distance <= tolerance, "{distance} apart");
}

#[test]
fn convolutions_agree_with_candle() {
    let cases = [
        // frames, input, output, taps, walk: short and long, dilated, strided, one channel, one tap
        (7, 5, 3, 3, Walk::same(3, 1)),
        (4000, 32, 24, 7, Walk::same(7, 1)),
        (4001, 32, 48, 11, Walk::same(11, 5)),
        (3999, 16, 16, 3, Walk::same(3, 3)),
        (11, 8, 8, 11, Walk::same(11, 5)),
        (6001, 22, 16, 12, Walk { padding: 3, stride: 6, dilation: 1 }),
        (218, 1, 1, 3, Walk { padding: 1, stride: 2, dilation: 1 }),
        (50, 22, 9, 1, Walk::same(1, 1)),
        (1, 4, 4, 3, Walk::same(3, 1)),
        // whole panels of the weight matrix, and one more column
        (3001, 16, 128, 3, Walk::same(3, 3)),
        (40, 16, 129, 3, Walk::same(3, 1)),
        // short filters of one, two and three groups
        (1, 64, 64, 3, Walk::same(3, 1)),
        (9, 64, 128, 7, Walk::same(7, 3)),
        (2001, 128, 64, 3, Walk::same(3, 3)),
        (2003, 64, 64, 7, Walk::same(7, 1)),
        (2002, 64, 64, 11, Walk::same(11, 5)),
    ];
    for (frames, input, output, taps, walk) in cases {
        let x = noise(1, &[frames, input]);
        let weight = noise(2, &[output, input, taps]);
        let bias = Some(noise(3, &[output]));
        let fast = Conv1d::new(weight.clone(), bias.clone(), walk).unwrap();
        let plain = Conv1d::plain(weight, bias, walk).unwrap();
        let affine = Affine { scale: noise(4, &[input]), shift: noise(5, &[input]) };
        let snake = Snake::new(noise(6, &[input]).affine(0.4, 0.8).unwrap()).unwrap();
        let befores = [
            Before::Nothing,
            Before::LeakyRelu(0.1),
            Before::NormLeakyRelu(&affine, 0.2),
            Before::NormSnake(&affine, &snake),
            Before::Snake(&snake),
            Before::Elu,
            Before::Gelu,
            Before::NormGelu(&affine),
        ];
        for before in befores {
            let expected = plain.forward(&x, before, None).unwrap();
            let plus = noise(7, expected.dims());
            assert_close(&fast.forward(&x, before, None).unwrap(), &expected, 1e-4);
            let expected = plain.forward(&x, before, Some(&plus)).unwrap();
            assert_close(&fast.forward(&x, before, Some(&plus)).unwrap(), &expected, 1e-4);
            assert_close(&before.apply(&x).unwrap(), &before.apply_plain(&x).unwrap(), 1e-5);
        }
    }
}

#[test]
fn a_convolution_refuses_what_does_not_fit() {
    let conv = Conv1d::new(noise(1, &[4, 3, 7]), None, Walk { padding: 0, stride: 1, dilation: 1 }).unwrap();
    assert!(conv.forward(&noise(2, &[10, 2]), Before::Nothing, None).is_err());
    assert!(conv.forward(&noise(2, &[6, 3]), Before::Nothing, None).is_err());
    assert!(conv.forward(&noise(2, &[8, 3]), Before::Nothing, Some(&noise(3, &[3, 4]))).is_err());
}

#[test]
fn upsampling_agrees_with_candle() {
    for (frames, input, output, rate) in
        [(1, 4, 3, 2), (31, 16, 8, 10), (100, 8, 12, 6), (64, 6, 5, 2), (65, 16, 70, 3), (9, 70, 40, 5)]
    {
        let x = noise(1, &[frames, input]);
        let weight = noise(2, &[input, output, 2 * rate]);
        let bias = noise(3, &[output]);
        let fast = UpsamplingConv::new(weight.clone(), bias.clone()).unwrap().forward(&x).unwrap();
        let plain = UpsamplingConv::plain(weight, bias).unwrap().forward(&x).unwrap();
        assert_close(&fast, &plain, 1e-5);
    }
}

#[test]
fn norms_agree_with_candle_even_off_centre() {
    for (frames, channels) in [(1, 3), (100, 7), (5000, 64)] {
        let x = noise(1, &[frames, channels]).affine(1.0, 50.0).unwrap();
        let (mean, deviation) = measure(&x).unwrap();
        let exact = measure_plain(&x.to_dtype(DType::F64).unwrap()).unwrap();
        assert_close(&mean, &exact.0.to_dtype(DType::F32).unwrap(), 5e-5);
        assert_close(&deviation, &exact.1.to_dtype(DType::F32).unwrap(), 1e-5);
    }
}

#[test]
fn sums_are_scaled() {
    let terms = [noise(1, &[70, 300]), noise(2, &[70, 300]), noise(3, &[70, 300])];
    let expected = (((&terms[0] + &terms[1]).unwrap() + &terms[2]).unwrap() / 3.0).unwrap();
    assert_close(&scaled_sum(&terms, 1.0 / 3.0).unwrap(), &expected, 1e-6);
    assert_close(&scaled_sum(&terms[..1], 0.5).unwrap(), &(&terms[0] / 2.0).unwrap(), 1e-6);
    assert!(scaled_sum(&[], 1.0).is_err());
}

#[test]
fn polynomials_are_the_functions_they_stand_for() {
    for step in -4000..=4000 {
        let x = step as f32 * 0.005;
        let wide = f64::from(x);
        let close = |value: f32, exact: f64, tolerance: f64| {
            assert!((f64::from(value) - exact).abs() <= tolerance, "{value} is not {exact} at {x}");
        };
        close(scalar::exp(x) / x.exp(), 1.0, 1e-6);
        close(scalar::sigmoid(x), 1.0 / (1.0 + (-wide).exp()), 3e-7);
        close(scalar::elu(x), if wide > 0.0 { wide } else { wide.exp_m1() }, 3e-7);
        close(scalar::tanh(x), wide.tanh(), 3e-7);
        close(scalar::sin_of_cycles(x), (wide * std::f64::consts::TAU).sin(), 6e-7);
        close(scalar::sin_squared_of_halves(x), (wide * std::f64::consts::PI).sin().powi(2), 6e-7);
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
        let erf = f64::from(Tensor::new(x, &Device::Cpu).unwrap().gelu_erf().unwrap().to_scalar::<f32>().unwrap());
        close(scalar::gelu_erf(x), erf, 3e-7 * wide.abs().max(1.0));
        close(scalar::gelu(x), 0.5 * wide * (1.0 + inner.tanh()), 1e-6 * wide.abs().max(1.0));
    }
    assert!(scalar::exp(1e9).is_finite() && scalar::exp(-1e9) >= 0.0);
}

use candle_core::{Device, Tensor};

use super::*;

fn random(shape: impl Into<candle_core::Shape>) -> Tensor {
    Tensor::randn(0.0_f32, 1.5, shape, &Device::Cpu).unwrap()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn full_attention_equals_plain_operations() {
    for (batch, length, heads, dim) in [(1, 1, 2, 8), (2, 37, 3, 16), (1, 300, 6, 64), (1, 131, 1, 64)] {
        let qkv = random((batch, length, 3 * heads * dim));
        let difference = largest_difference(&full(&qkv, heads).unwrap(), &full_plain(&qkv, heads).unwrap());
        assert!(difference < 2e-5, "{batch} x {length} x {heads} x {dim}: {difference}");
    }
}

#[test]
fn cross_attention_equals_plain_operations() {
    for (windows, rows, heads, dim, positions) in [(1, 1, 1, 8, 1), (2, 3, 4, 16, 53), (1, 5, 8, 64, 278)] {
        let query = random((windows, rows, heads * dim));
        let key = (random((windows, heads, dim, positions)) * 0.2).unwrap();
        let value = random((windows, heads, positions, dim));
        let (ours, plain) = (cross(&query, &key, &value).unwrap(), cross_plain(&query, &key, &value).unwrap());
        let difference = largest_difference(&ours, &plain);
        assert!(difference < 2e-5, "{windows} x {rows} x {heads} x {dim} x {positions}: {difference}");
    }
}

#[test]
fn causal_attention_equals_plain_operations() {
    for (batch, new, capacity, offset, heads, dim) in [(1, 1, 4, 0, 1, 8), (5, 1, 30, 17, 6, 64), (2, 4, 9, 5, 3, 16)] {
        let query = random((batch, new, heads * dim));
        let (key, value) = (random((batch, capacity, heads * dim)), random((batch, capacity, heads * dim)));
        let ours = causal(&query, &key, &value, heads, offset).unwrap();
        let plain = causal_plain(&query, &key, &value, heads, offset).unwrap();
        let difference = largest_difference(&ours, &plain);
        assert!(difference < 2e-5, "{batch} x {new} of {capacity} at {offset}: {difference}");
    }
}

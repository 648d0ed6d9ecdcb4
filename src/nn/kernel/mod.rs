//! Matrix products on a CPU: weights laid out for its registers, rows of activations as 8-bit codes or floats.
//!
//! `nn/decoder` walks a whole language model over these with threads of its own; [`PackedLinear`] is one layer by
//! itself, for networks that are candle tensors otherwise. Weights are [`pack`]ed once, rows are written as
//! [`activations`], a tile of the one times a block of the other is a [`product`], written against [`simd`]'s lanes.

pub(super) mod activations;
mod linear;
pub(super) mod pack;
pub(super) mod product;
pub(super) mod shared;
pub(super) mod simd;

pub(super) use linear::PackedLinear;

//! Which samples of each layer a stretch of the decoder's output depends on.
//!
//! From the back: the last convolution reaches 3 samples to either side; three residual units reach
//! 3 * (1 + 3 + 9) = 39; an upsampling by s with kernel 2s and padding p = ⌈s/2⌉ gives its output o from the inputs
//! ⌈(o + p - (2s - 1)) / s⌉ to ⌊(o + p) / s⌋; the first convolution reaches 3 frames. For the 960 samples of one
//! frame, the stretch of input grows so (at each rate, the frame's own samples first, then what they need):
//!
//! | rate      | own     | after the units' reach | needed of the layer below |
//! |-----------|---------|------------------------|---------------------------|
//! | 24 kHz    | 0..960  | -42..1002              | -15..335 at 8 kHz         |
//! | 8 kHz     | 0..320  | -54..374               | -28..188 at 4 kHz         |
//! | 4 kHz     | 0..160  | -67..227               | -18..58 at 1 kHz          |
//! | 1 kHz     | 0..40   | -57..97                | -12..20 at 200 Hz         |
//! | 200 Hz    | 0..8    | -51..59                | -7..8 at 25 Hz            |
//! | 25 Hz     | 0..1    | -10..11 (first conv)   | the codes                 |
//!
//! So a frame's sound depends on the codes of ten frames before and ten after it, and decoding with these gives the
//! same samples as decoding everything. Because the stretch narrows quickly towards the output, layers compute only
//! what is needed above them: 12 frames with their context cost little more than 12 frames.

use std::ops::Range;

use super::SAMPLES_PER_FRAME;
use super::units::REACH;

/// How far the first and the last convolution, of seven taps, reach.
const ENDS_REACH: usize = 3;

/// What one upsampling stage reads, computes and leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StageWindow {
    /// At the stage's input rate.
    pub(super) input: Range<usize>,
    /// At its output rate, before the residual units.
    pub(super) upsampled: Range<usize>,
}

/// What the decoder computes for a stretch of its output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// Frames of codes.
    pub(super) codes: Range<usize>,
    /// First stage first.
    pub(super) stages: Vec<StageWindow>,
    /// Input of the last convolution.
    pub(super) last: Range<usize>,
    /// Samples of output.
    pub(super) samples: Range<usize>,
}

impl Window {
    /// For the frames `emit` of `frames` that there are, upsampled by `rates`.
    pub(super) fn new(emit: Range<usize>, frames: usize, rates: &[usize]) -> Self {
        let samples = emit.start * SAMPLES_PER_FRAME..emit.end * SAMPLES_PER_FRAME;
        let mut length = frames * SAMPLES_PER_FRAME;
        let last = widened(&samples, ENDS_REACH, length);
        let mut wanted = last.clone();
        let mut stages = Vec::with_capacity(rates.len());
        for rate in rates.iter().rev() {
            let upsampled = widened(&wanted, REACH, length);
            length /= rate;
            let padding = rate.div_ceil(2);
            // ⌈(o + p - (2s - 1)) / s⌉ is ⌊(o + p - s) / s⌋.
            let first = (upsampled.start + padding).saturating_sub(*rate) / rate;
            let end = upsampled.end.saturating_sub(1) + padding;
            wanted = first..(end / rate + 1).min(length);
            stages.push(StageWindow { input: wanted.clone(), upsampled });
        }
        stages.reverse();
        Self { codes: widened(&wanted, ENDS_REACH, frames), stages, last, samples }
    }
}

/// The range with `by` more at either end, as far as there is anything.
fn widened(range: &Range<usize>, by: usize, length: usize) -> Range<usize> {
    range.start.saturating_sub(by)..(range.end + by).min(length)
}

/// Frames before and after a frame that its sound depends on.
pub(super) fn context(rates: &[usize]) -> usize {
    // Far from both ends.
    let middle = 1 << 10;
    let Window { codes, .. } = Window::new(middle..middle + 1, 2 * middle, rates);
    (middle - codes.start).max(codes.end - middle - 1)
}

//! The residual units that DAC's encoder and decoder share.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use crate::nn::frames::conv::{Before, Conv1d, Snake, Walk};

const TAPS: usize = 7;
const DILATIONS: [usize; 3] = [1, 3, 9];

/// So many frames on either side a sample of the three units' output depends on: 3 * (1 + 3 + 9).
pub(super) const REACH: usize = TAPS / 2 * (DILATIONS[0] + DILATIONS[1] + DILATIONS[2]);

/// Three residual units, each looking three times as far as the one before.
pub(super) struct ResidualUnits(Vec<Unit>);

struct Unit {
    snake1: Snake,
    conv1: Conv1d,
    snake2: Snake,
    conv2: Conv1d,
}

impl ResidualUnits {
    /// Reads `res_unit1` to `res_unit3` at `vb`.
    pub(super) fn load(channels: usize, vb: &VarBuilder<'_>) -> Result<Self> {
        let unit = |(index, dilation): (usize, usize)| {
            let vb = vb.pp(format!("res_unit{}", index + 1));
            Ok(Unit {
                snake1: Snake::load(channels, &vb.pp("snake1"))?,
                conv1: Conv1d::load((channels, channels, TAPS), Walk::same(TAPS, dilation), &vb.pp("conv1"))?,
                snake2: Snake::load(channels, &vb.pp("snake2"))?,
                conv2: Conv1d::load((channels, channels, 1), Walk::same(1, 1), &vb.pp("conv2"))?,
            })
        };
        DILATIONS.into_iter().enumerate().map(unit).collect::<Result<_>>().map(Self)
    }

    /// [frames, channels] to the same.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, unit| {
            let inner = unit.conv1.forward(&x, Before::Snake(&unit.snake1), None)?;
            unit.conv2.forward(&inner, Before::Snake(&unit.snake2), Some(&x))
        })
    }
}

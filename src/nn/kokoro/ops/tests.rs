use candle_core::{DType, Device};

use super::lstm::BiLstm;
use crate::nn::frames::tests::{assert_close, noise};

#[test]
fn the_lstm_agrees_with_candle() {
    let tensors = ["", "_reverse"].into_iter().enumerate().flat_map(|(index, suffix)| {
        let seed = 10 * index as u64;
        [
            (format!("weight_ih_l0{suffix}"), noise(seed + 1, &[4 * 12, 5])),
            (format!("weight_hh_l0{suffix}"), noise(seed + 2, &[4 * 12, 12])),
            (format!("bias_ih_l0{suffix}"), noise(seed + 3, &[4 * 12])),
            (format!("bias_hh_l0{suffix}"), noise(seed + 4, &[4 * 12])),
        ]
    });
    let vb = candle_nn::VarBuilder::from_tensors(tensors.collect(), DType::F32, &Device::Cpu);
    let lstm = BiLstm::load(5, 12, &vb).unwrap();
    let gates = noise(30, &[33, 8 * 12]);
    assert_close(&lstm.walk_on_cpu(&gates).unwrap(), &lstm.walk_plain(&gates).unwrap(), 1e-6);

    // And with candle-nn's own layer, which knows torch's names and order of gates.
    let x = noise(31, &[33, 5]);
    let ours = lstm.forward(&x).unwrap();
    for (direction, column) in [(candle_nn::rnn::Direction::Forward, 0), (candle_nn::rnn::Direction::Backward, 12)] {
        let config = candle_nn::LSTMConfig { direction, ..Default::default() };
        let theirs = candle_nn::lstm(5, 12, config, vb.clone()).unwrap();
        let mut rows: Vec<usize> = (0..33).collect();
        if column > 0 {
            rows.reverse();
        }
        let mut state = candle_nn::RNN::zero_state(&theirs, 1).unwrap();
        for row in rows {
            state = candle_nn::RNN::step(&theirs, &x.narrow(0, row, 1).unwrap(), &state).unwrap();
            assert_close(&ours.narrow(0, row, 1).unwrap().narrow(1, column, 12).unwrap(), state.h(), 1e-6);
        }
    }
}

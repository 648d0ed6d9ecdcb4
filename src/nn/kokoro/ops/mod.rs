//! What only Kokoro's layers are made of, over the sequences of `nn::frames`: styled norms and a bidirectional LSTM.

pub(super) mod lstm;
pub(super) mod norm;
#[cfg(test)]
mod tests;

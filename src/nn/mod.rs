//! Neural networks as candle definitions, one architecture per folder or file, and nothing else.
//!
//! Config names mirror the upstream config.json, `vb.pp("…")` mirrors the checkpoint's names, and every file reads
//! config → blocks → layer → model. No thread, no channel, no tokenizer: `engine` runs these.

pub mod bert;
pub mod checkpoint;
pub mod decoder;
mod frames;
pub mod higgs;
mod kernel;
pub mod kokoro;
pub mod sampling;
pub mod silero;
pub mod whisper;

//! What Higgs Audio v2 is asked, and how: the text made fit to speak, the prompt around it, the ids of the prompt.
//!
//! [`text`] cleans what somebody wrote; [`prompt`] lays out the turns of every kind of voice; [`story`] cuts long texts
//! and keeps what was spoken last as context; [`limits`] says how long a text may take and when to try again; [`tokens`]
//! makes of all that a prompt of `nn::higgs`. All of it is pure but the reading of tokenizer.json.
//!
//! The engine: [`HiggsEngine`] behind the `SpeechSynthesizer` door, `layout` what it takes of a device, `voices` whose it
//! speaks with, `desk` its model's thread, `schedule` what that does next, `vocoder` the codec's thread. The published
//! weights have not been run here.

#[cfg(test)]
mod compose_tests;
mod desk;
mod engine;
#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod engine_tests;
mod layout;
pub mod limits;
mod model;
#[cfg(test)]
mod network_tests;
#[cfg(test)]
mod own_voice_tests;
pub mod prompt;
mod schedule;
pub mod story;
pub mod text;
pub mod tokens;
#[cfg(test)]
mod tests;
mod vocoder;
mod voices;

pub use engine::HiggsEngine;
pub use layout::{HiggsChoice, HiggsOptions};
pub use voices::{HiggsVoice, HiggsVoiceKind, Recording};

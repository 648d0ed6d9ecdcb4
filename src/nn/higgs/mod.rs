//! Higgs Audio v2, a text-to-speech model: a language model that writes eight streams of audio codes at 25 frames per
//! second, and the codec that turns such codes into 24 kHz sound and a reference recording into codes.
//!
//! Source: boson-ai/higgs-audio (Apache-2.0), and transformers' `higgs_audio_v2`.

pub mod codec;

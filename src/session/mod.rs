//! The conversation: a microphone frame's way to the speaker.
//!
//! Four rooms, each one file, one task, one bounded inbox and one outbox:
//! `ear` (voice activity, then speech to text), `turn` (the pure machine that decides), `mind` (language model, then
//! chunker), `mouth` (speech synthesis, sequence, pace). This module cannot name a model, a socket or a database:
//! models stand behind `provider`'s traits, the database behind [`record::Records`], the socket behind two channels.

pub mod record;

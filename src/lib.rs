//! aichat: a self-hosted real-time voice-chat server.
//!
//! The tour, bottom up. Each module imports only from those above it in this list.

/// The doors: WebSocket and REST.
pub mod api;
/// Sound as numbers: PCM with its rate in the type, resampling, containers, end-pointing.
pub mod audio;
/// Models on disk: manifests, download, conversion, verification.
pub mod catalog;
/// The commands.
pub mod cli;
/// Local inference: one thread per model, behind the seam.
pub mod engine;
/// Neural networks as candle definitions.
pub mod nn;
/// The seam: the traits for hearing, thinking and speaking, and the decorators that share them out.
pub mod provider;
/// The conversation: ear, turn, mind, mouth.
pub mod session;
/// The database.
pub mod store;
/// Text on its way to a voice: chunking a stream, making it speakable.
pub mod text;

#[cfg(test)]
mod testing;

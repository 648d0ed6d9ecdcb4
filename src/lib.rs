//! aichat: a self-hosted real-time voice-chat server.
//!
//! The tour, bottom up. Each module imports only from those above it in this list.

/// Sound as numbers: PCM with its rate in the type, resampling, containers, end-pointing, echoes.
pub mod audio;
/// Text on its way to a voice: chunking a stream, making it speakable.
pub mod text;
/// The seam: the traits for hearing, thinking and speaking, and the decorators that share them out.
pub mod provider;
/// Neural networks as candle definitions.
pub mod nn;
/// Local inference: one thread per model, behind the seam.
pub mod engine;
/// Models on disk: manifests, download, conversion, verification.
pub mod catalog;
/// Inference elsewhere: one OpenAI-compatible client behind the seam.
pub mod remote;
/// The conversation: ear, turn, mind, mouth.
pub mod session;
/// The database.
pub mod store;
/// The doors: WebSocket and REST.
pub mod api;
/// Every setting and where it came from.
pub mod config;
/// Logs and metrics.
pub mod telemetry;
/// The composition root: where settings, models, engines and the database meet.
pub mod app;
/// The commands.
pub mod cli;

#[cfg(test)]
mod testing;

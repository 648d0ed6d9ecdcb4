//! Inference elsewhere: one OpenAI-compatible HTTP client behind `provider`'s traits.
//!
//! OpenAI, OpenRouter, vLLM, llama.cpp or another aichat: a [`Service`] is a base URL, a key and some headers; each door
//! is a service and a model's name there. Every call is a task that its receiver owns: dropping the stream closes the
//! connection. A call is repeated only while nothing of its answer has come, and every answer is bounded in size and in
//! time. What a service says reaches neither a client nor the log as it stands, and its key reaches nobody.
//!
//! Which model a request's name means is decided above: the `model` of a request does not count here.

mod body;
pub mod chat;
mod embedding;
#[cfg(test)]
pub(crate) mod fake;
mod fault;
mod flow;
mod moderation;
pub mod service;
pub mod speech;
mod transcription;

pub use chat::RemoteChat;
pub use embedding::RemoteEmbedder;
pub use moderation::Moderation;
pub use service::{Bounds, Dialect, RemoteModel, Service, ServiceError, ServiceSettings};
pub use speech::RemoteSpeech;
pub use transcription::RemoteTranscriber;

#[cfg(test)]
#[path = "fault_tests.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "secret_tests.rs"]
mod secret_tests;

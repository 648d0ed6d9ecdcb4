//! One binary for everything that looks at the project from outside: its source, its command line, its socket.
//!
//! Tests named `real_…` run the starter models.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails says why and stops")]

mod command_line;
mod keys;
mod kill;
mod server;
mod tidy;
mod voice_turn;

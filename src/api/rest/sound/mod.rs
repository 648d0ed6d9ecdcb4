//! Sounds with an address of their own: texts that were spoken on request, and recordings of what was said.
//!
//! Files lie in folders of the server's, under names that only the server makes. `unfinished` writes them.

pub(super) mod recordings;
pub(super) mod speech;
mod unfinished;

//! Text on its way to a voice: where to cut a stream of it, and how to make it speakable.
//!
//! Layer 0: pure. Nothing here knows a model, a task or a socket. Cutting follows Unicode's rules, never ASCII's.

mod abbreviation;
pub mod backchannel;
pub mod chunk;
mod count;
mod headline;
pub mod mention;
pub mod outlook;
pub mod promise;
pub mod repetition;
pub mod speakable;
pub mod subtitle;

pub use chunk::{Chunker, Piece};
pub use count::word_count;
pub use headline::headline;
pub use mention::mentioned;
pub use speakable::speakable;

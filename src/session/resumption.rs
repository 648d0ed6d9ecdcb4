//! What a session that has ended knew, for one that goes on in its place.

use std::time::Duration;

use super::event::Turn;
use super::settings::SettingsPatch;

/// A session that goes on: it counts on, with what its clients had set, and says what it had not said to the end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resumption {
    pub session_id: String,
    /// The last ones that were told.
    pub turn: Turn,
    pub sequence_number: u64,
    pub settings: SettingsPatch,
    pub unfinished: Option<Unfinished>,
}

/// A reply that was cut off while it was written or spoken. There is no more of it than its clients were told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unfinished {
    pub item_id: String,
    pub character_id: String,
    /// The number and text of each sentence.
    pub sentences: Vec<(u64, String)>,
    /// Its whole text was told.
    pub is_written: bool,
    /// Its clients have heard it up to the end of this sentence, which is so far from its first sample.
    pub heard: Option<(u64, Duration)>,
}

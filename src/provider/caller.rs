//! On whose behalf something is asked.

use std::sync::Arc;

/// Rides with every request, so that whoever answers knows where it may go and whoever counts knows whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// What is asked stays on this machine: no remote provider is tried.
    pub private: bool,
    /// The conversation that it is part of.
    pub conversation_id: Option<Arc<str>>,
    /// Whose voices and rows it may name. None: those that need no key.
    pub owner: Option<Arc<str>>,
    /// The name of the API key, never the key.
    pub key: Option<Arc<str>>,
    /// The HTTP request's id.
    pub request_id: Option<Arc<str>>,
}

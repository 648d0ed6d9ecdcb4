//! What a key allows.

use serde::{Deserialize, Serialize};

/// What a key allows, each more than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// To read its owner's rows.
    Read,
    /// To talk, and to change its owner's rows.
    User,
    /// To change settings, models and keys, and to see everybody's usage.
    Admin,
}

impl Scope {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }
}

//! What a client can be told, before it is written: what a session tells, and what only a server can.

use serde_json::Value;

use super::Refusal;
use crate::api::access::Standing;
use crate::session::event::{Output, Told};
use crate::store::BudgetReport;

/// One message on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) enum Notice {
    Told(Told),
    Refused(Refusal),
    Pong {
        reference: Option<String>,
    },
    /// The answer to `resume`: what follows this number comes now.
    Resumed {
        from_seq: u64,
        reference: Option<String>,
    },
    /// The other answer to `resume`: begin anew from here.
    ResyncRequired {
        reference: Option<String>,
    },
    /// Another socket of the session has the microphone now.
    SessionReplaced,
    /// A message of an earlier life of the session, as it was written, with its number.
    Recalled(Value),
    /// What REST or another session has made of the conversation, as REST shows it.
    ConversationChanged {
        conversation: Value,
        is_deleted: bool,
    },
    MessageCreated(Value),
    MessageUpdated {
        message: Value,
        is_deleted: bool,
    },
    ServerDraining,
    BudgetWarning(BudgetReport),
    QueuePosition(Standing),
}

impl Notice {
    /// Whether it has a number in the journal.
    pub(in crate::api) fn is_numbered(&self) -> bool {
        match self {
            Self::Told(told) => !matches!(told.output, Output::Audio(_) | Output::Duck { .. } | Output::Unduck { .. }),
            Self::Pong { .. } | Self::Resumed { .. } | Self::QueuePosition(_) => false,
            _ => true,
        }
    }
}

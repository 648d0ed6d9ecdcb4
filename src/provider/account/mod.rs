//! Decorators that count what every request takes and costs, and that hold paid requests to the budgets.
//!
//! A paid request sets aside the most that it may cost before anybody is asked, and settles what it did cost when it
//! ends, however it ends: by its last item, by an error, or because nobody listens any more. A local request costs
//! nothing and is counted all the same. Who keeps the books stands behind [`UsageLedger`].

mod books;
mod chat;
mod embedding;
mod hearing;
mod price;
mod speech;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use super::{Caller, Capability, ProviderError};
pub use books::Books;
pub use price::{Price, PriceList, Usd};

/// Keeps the books.
pub trait UsageLedger: Send + Sync {
    /// Sets aside `most` in every budget, or in none.
    ///
    /// # Errors
    /// [`ProviderError::OverBudget`] where a budget has not so much left.
    fn reserve(&self, most: Usd, of: Arc<Entry>) -> BoxFuture<'static, Result<Reservation, ProviderError>>;

    /// Enters what a request took, in place of what was set aside for it. A second entry of one reservation changes
    /// nothing.
    fn settle(&self, reservation: Option<Reservation>, entry: Entry) -> BoxFuture<'static, ()>;
}

/// Names what was set aside for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation(pub String);

/// One request in the books.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub capability: Capability,
    /// Who served it, as `whisper-base` or `openai/gpt-4o-mini`.
    pub model: Arc<str>,
    pub remote: bool,
    pub caller: Caller,
    pub used: Used,
    pub cost: Usd,
    /// The cost was computed from what was seen, since the request did not reach its end.
    pub estimated: bool,
    pub outcome: Outcome,
}

/// What one request took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    pub prompt_tokens: usize,
    pub cached_tokens: usize,
    pub completion_tokens: usize,
    /// Spoken text.
    pub characters: usize,
    /// Heard or spoken.
    pub audio: Duration,
    /// From the call to the first item.
    pub first_item: Option<Duration>,
    /// From the call to the end. Of a local model: device time, as long as it worked on this request.
    pub total: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Completed,
    /// Nobody listened any more.
    Cancelled,
    Failed,
}

impl Outcome {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests;

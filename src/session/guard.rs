//! A provider's stream as its contract says: it ends after one terminal item, whatever the provider does.
//!
//! A panic while it is called or polled, and an end without a terminal item, become an error. So a fault of one
//! provider is one failed answer, not the end of a session.

use std::panic::{AssertUnwindSafe, catch_unwind};

use futures::{StreamExt, stream};

use crate::provider::{Flow, ProviderError};

/// Calls a provider and guards the stream it answers with. `what` names it in errors; `is_last` knows the terminal
/// item.
pub(super) fn guarded<T: Send + 'static>(
    what: &'static str,
    call: impl FnOnce() -> Flow<T>,
    is_last: fn(&T) -> bool,
) -> Flow<T> {
    let failed = move |reason: &str| {
        tracing::error!(what, reason, "a provider broke its contract");
        Err(ProviderError::Failed { what: what.to_owned() })
    };
    let Ok(flow) = catch_unwind(AssertUnwindSafe(call)) else {
        let error = failed("it panicked when called");
        return stream::once(async { error }).boxed();
    };
    let flow = AssertUnwindSafe(flow).catch_unwind();
    stream::unfold(Some(flow), move |flow| async move {
        let mut flow = flow?;
        let item = match flow.next().await {
            Some(Ok(item)) => item,
            Some(Err(_)) => failed("its stream panicked"),
            None => failed("its stream ended without an end"),
        };
        let ended = item.as_ref().map_or(true, is_last);
        Some((item, (!ended).then_some(flow)))
    })
    .boxed()
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;

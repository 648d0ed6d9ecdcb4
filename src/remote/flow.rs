//! A call as a task: it starts at once, ends with its receiver, and gives exactly one terminal item.

use std::sync::Arc;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;

use crate::provider::task::Task;
use crate::provider::{Flow, ProviderError};

/// Items that may wait for a slow receiver: 6 s of speech, a short reply. Then the connection waits too.
const AHEAD: usize = 64;

/// Where a call's items go while it runs.
pub(super) struct Outlet<T>(mpsc::Sender<Item<T>>);

enum Item<T> {
    More(T),
    End(Result<T, ProviderError>),
}

impl<T> Outlet<T> {
    pub(super) async fn give(&self, item: T) {
        // Without a receiver this task is about to be cancelled.
        let _ = self.0.send(Item::More(item)).await;
    }
}

/// Runs `work` as the task `name`. What it returns is the terminal item; `what` failed if it panics.
pub(super) fn flow<T, F>(name: &'static str, what: Arc<str>, work: impl FnOnce(Outlet<T>) -> F) -> Flow<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T, ProviderError>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(AHEAD);
    let work = work(Outlet(sender.clone()));
    let task = Task::spawn(name, async move {
        let end = work.await;
        let _ = sender.send(Item::End(end)).await;
    });
    stream::unfold(Some((receiver, task, what)), |state| async {
        let (mut receiver, task, what) = state?;
        match receiver.recv().await {
            Some(Item::More(item)) => Some((Ok(item), Some((receiver, task, what)))),
            Some(Item::End(end)) => Some((end, None)),
            None => {
                tracing::error!(%what, "a remote call ended without an end");
                Some((Err(ProviderError::Failed { what: what.to_string() }), None))
            }
        }
    })
    .boxed()
}

/// A flow that is only an error.
pub(super) fn refused<T: Send + 'static>(error: ProviderError) -> Flow<T> {
    stream::once(async { Err(error) }).boxed()
}

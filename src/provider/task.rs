//! A named task that ends when its handle is dropped, and whose end is logged either way.

use std::future::Future;

use tokio::task::JoinHandle;
use tracing::Instrument;

/// A running task. Dropping it ends the task at its next await.
pub(crate) struct Task {
    handle: JoinHandle<()>,
}

impl Task {
    pub(crate) fn spawn(name: &'static str, body: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { handle: tokio::spawn(named(name, body)) }
    }

    /// Waits until the task has ended by itself.
    pub(crate) async fn ended(&mut self) {
        // How it ended is in the log.
        let _ = (&mut self.handle).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

/// Gives a task its name.
pub(crate) fn named(
    name: &'static str,
    body: impl Future<Output = ()> + Send + 'static,
) -> impl Future<Output = ()> + Send + 'static {
    let ended = Ended(name);
    let body = async move {
        let _ended = ended;
        body.await;
    };
    body.instrument(tracing::info_span!("task", name))
}

/// Logs the end of a task, however it comes.
struct Ended(&'static str);

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(task = self.0, "task panicked");
        } else {
            tracing::debug!(task = self.0, "task ended");
        }
    }
}

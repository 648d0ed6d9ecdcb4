//! A model's thread: one named OS thread that loads a model, owns it, and obeys commands in order.

use std::thread;

use futures::future::join_all;
use tokio::sync::{mpsc, watch};

use super::EngineError;

/// A handle to a model's thread. The thread ends when the last handle is dropped.
pub struct Worker<C> {
    commands: mpsc::Sender<C>,
    ended: Ended,
}

/// Threads that may be waited for: when they have ended, their models' memory is free.
#[derive(Clone, Debug)]
pub struct Ended(Vec<watch::Receiver<()>>);

impl Ended {
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether all of them have.
    pub fn is_now(&self) -> bool {
        self.0.iter().all(|thread| thread.has_changed().is_err())
    }

    /// Waits until all of them have.
    pub async fn wait(self) {
        // Nothing is ever sent: the sender goes with its thread.
        join_all(self.0.into_iter().map(|mut thread| async move { while thread.changed().await.is_ok() {} })).await;
    }
}

/// What lives on threads of its own.
pub trait Resident {
    /// After the last handle was dropped and the last stream was served, its threads end.
    fn ended(&self) -> Ended;
}

impl<C> Clone for Worker<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), ended: self.ended.clone() }
    }
}

impl<C: Send + 'static> Worker<C> {
    /// Starts the thread `name`, loads the model on it, and waits until `load` has answered. Then `run` owns the model
    /// and takes commands until the channel closes. `capacity` bounds the commands that wait.
    ///
    /// # Errors
    /// What `load` answers, or that the thread could not be started.
    pub fn spawn<M: 'static>(
        name: &str,
        capacity: usize,
        load: impl FnOnce() -> Result<M, EngineError> + Send + 'static,
        run: impl FnOnce(M, mpsc::Receiver<C>) + Send + 'static,
    ) -> Result<Self, EngineError> {
        let (commands, inbox) = mpsc::channel(capacity);
        let (loaded, outcome) = std::sync::mpsc::sync_channel(1);
        let (alive, ended) = watch::channel(());
        let body = move || match load() {
            Ok(model) => {
                if loaded.send(Ok(())).is_ok() {
                    run(model, inbox);
                }
            }
            Err(error) => {
                // Whoever started the thread may have given up waiting.
                let _ = loaded.send(Err(error));
            }
        };
        let thread_failed = |reason: String| EngineError::Thread { name: name.to_owned(), reason };
        let span = tracing::Span::current();
        let thread_name = name.to_owned();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                // After the model, also where its thread panics.
                let _alive = alive;
                span.in_scope(body);
                tracing::debug!(thread = thread_name, "model thread ended");
            })
            .map_err(|error| thread_failed(error.to_string()))?;
        outcome.recv().map_err(|_| thread_failed("it panicked while loading".to_owned()))??;
        Ok(Self { commands, ended: Ended(vec![ended]) })
    }

    /// Ends with the last handle, when the thread has served what was asked of it.
    pub fn ended(&self) -> Ended {
        self.ended.clone()
    }

    /// Hands over a command without waiting.
    ///
    /// # Errors
    /// Gives the command back where the inbox is full or the thread has ended.
    pub fn send(&self, command: C) -> Result<(), mpsc::error::TrySendError<C>> {
        self.commands.try_send(command)
    }

    /// Hands over a command, and waits where the inbox is full. Blocks the thread: for a model's thread that feeds
    /// another's.
    ///
    /// # Errors
    /// Gives the command back where the thread has ended.
    pub fn feed(&self, command: C) -> Result<(), C> {
        self.commands.blocking_send(command).map_err(|error| error.0)
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

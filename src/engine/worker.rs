//! A model's thread: one named OS thread that loads a model, owns it, and obeys commands in order.

use std::thread;

use tokio::sync::mpsc;

use super::EngineError;

/// A handle to a model's thread. The thread ends when the last handle is dropped.
pub struct Worker<C> {
    commands: mpsc::Sender<C>,
}

impl<C> Clone for Worker<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone() }
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
        let ended = tracing::Span::current();
        let thread_name = name.to_owned();
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                ended.in_scope(body);
                tracing::debug!(thread = thread_name, "model thread ended");
            })
            .map_err(|error| thread_failed(error.to_string()))?;
        outcome.recv().map_err(|_| thread_failed("it panicked while loading".to_owned()))??;
        Ok(Self { commands })
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

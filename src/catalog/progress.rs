//! What a pull tells whoever is waiting for it.

use std::sync::Arc;

/// One report. A front end shows `stage` and `file`, and a bar from the two numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub model: String,
    pub stage: Stage,
    /// The file or package concerned; empty when the stage concerns the whole model.
    pub file: String,
    pub done_bytes: u64,
    /// `None` while it is not known.
    pub total_bytes: Option<u64>,
}

/// What is being done. Its `Display` is a verb phrase for the user: "fetching", "converting".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Another process is pulling the same model.
    Waiting,
    /// Reading what is already there.
    Checking,
    /// Asking the hub for its list of files.
    Asking,
    Fetching,
    Unpacking,
    Converting,
    /// The last report of a pull that fetched the model.
    Done,
    /// The last report of a pull that found the model whole.
    AlreadyThere,
    /// A source failed and the next is tried; `file` says why.
    Falling,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting for another pull of",
            Self::Checking => "checking",
            Self::Asking => "asking the hub about",
            Self::Fetching => "fetching",
            Self::Unpacking => "unpacking",
            Self::Converting => "converting",
            Self::Done => "done",
            Self::AlreadyThere => "already there",
            Self::Falling => "trying the next source:",
        })
    }
}

/// Where reports go. It is called from several threads and should return quickly.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// A sink that knows the model.
#[derive(Clone)]
pub(crate) struct Reporter {
    model: String,
    sink: ProgressSink,
}

impl Reporter {
    pub(crate) fn new(model: &str, sink: ProgressSink) -> Self {
        Self { model: model.to_owned(), sink }
    }

    pub(crate) fn stage(&self, stage: Stage, file: &str) {
        self.bytes(stage, file, 0, None);
    }

    pub(crate) fn bytes(&self, stage: Stage, file: &str, done_bytes: u64, total_bytes: Option<u64>) {
        let (model, file) = (self.model.clone(), file.to_owned());
        (self.sink)(Progress { model, stage, file, done_bytes, total_bytes });
    }
}

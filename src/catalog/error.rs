//! What can go wrong with a model on disk or on its way there, each with what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Every message names the file or the model concerned and ends in something the reader can do.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no model or profile named {name:?}; `aichat models` lists them: {known}")]
    Unknown { name: String, known: String },
    #[error("the model {name} is not here (looked in {}): fetch it with `aichat pull {name}`", looked_in.display())]
    Missing { name: String, looked_in: PathBuf },
    #[error("{}: {reason}; mend it with `aichat pull {name}`", path.display())]
    Broken { name: String, path: PathBuf, reason: String },
    #[error(
        "the model hub does not answer at {endpoint} ({reason}): check the network, or set HF_ENDPOINT to a mirror that you can reach"
    )]
    HubUnreachable { endpoint: String, reason: String },
    #[error("the model hub, repository {repository}: {reason}")]
    Hub { repository: String, reason: String },
    #[error("{file} of {name} arrived damaged: {reason}; try `aichat pull {name}` again, and tell us if it persists")]
    Damaged { name: String, file: String, reason: String },
    #[error("{tool} is needed to fetch {name} and cannot be used: {remedy}")]
    MissingTool { name: String, tool: String, remedy: String },
    #[error("{tool} could not fetch {package}: {reason}")]
    Package { tool: String, package: String, reason: String },
    #[error("the disk that holds {} is full: free some space or point MODELS_DIR elsewhere, then pull again", path.display())]
    DiskFull { path: PathBuf },
    // No message here has a `source`: each names its cause itself, and whoever prints an error prints its sources too.
    #[error("{}: {cause}", path.display())]
    Io { path: PathBuf, cause: io::Error },
    #[error("{}: {reason}", path.display())]
    Convert { path: PathBuf, reason: String },
    #[error("{name} could not be fetched: {reasons}")]
    NoSourceWorked { name: String, reasons: String },
    #[error("the built-in description {file} is wrong: {reason}")]
    Description { file: String, reason: String },
}

impl CatalogError {
    /// Names the path an operation failed on; a full disk becomes its own error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), cause },
        }
    }

    /// Whether another source of the same model may still work.
    pub(crate) fn is_worth_another_source(&self) -> bool {
        !matches!(self, Self::DiskFull { .. } | Self::Io { .. })
    }
}

//! A sound's file: its name, and its writing under another one until it is whole.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::fs::File;
use uuid::Uuid;

use crate::audio::Format;

/// What a file is called while it is written.
const UNFINISHED: &str = "part";

pub(super) fn name(id: Uuid, format: Format) -> String {
    format!("{id}.{}", format.name())
}

/// What a name of [`name`]'s is made of. Built anew from that, no name leads out of a folder.
pub(super) fn parse_name(name: &str) -> Option<(Uuid, Format)> {
    let (id, format) = name.split_once('.')?;
    Some((Uuid::try_parse(id).ok()?, Format::named(format)?))
}

/// A file of the future, after a clock was set back, is new.
pub(super) fn age(made: SystemTime) -> Duration {
    made.elapsed().unwrap_or_default()
}

/// A file that is being written. It is gone with its request, unless it was kept.
pub(super) struct Unfinished {
    pub(super) file: File,
    path: PathBuf,
    name: String,
}

impl Unfinished {
    /// Makes the folder, too.
    pub(super) async fn new(folder: &Path, id: Uuid, format: Format) -> std::io::Result<Self> {
        tokio::fs::create_dir_all(folder).await?;
        let name = name(id, format);
        let path = folder.join(format!("{name}.{UNFINISHED}"));
        Ok(Self { file: File::create_new(&path).await?, path, name })
    }

    /// Gives the file its name, and says it.
    pub(super) async fn keep(self) -> std::io::Result<String> {
        tokio::fs::rename(&self.path, self.path.with_extension("")).await?;
        Ok(self.name.clone())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After it was kept there is nothing of this name.
        let _ = std::fs::remove_file(&self.path);
    }
}

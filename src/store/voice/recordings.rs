//! The files of voices: recordings that were sent, those that voices are made of, and what engines make of these.
//!
//! Every name is made here, so that nothing a client says is ever part of a path. A file is written under a name of its
//! own, synced and then given the one by which it is known; only after that does a row say so. What no row knows is
//! swept away.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::StoredRecording;
use crate::session::record::RecordError;
use crate::store::digest;
use crate::store::{Store, row};

/// How long a recording is kept that no voice is made of.
const KEPT: Duration = Duration::from_hours(24);
/// A file may be so much older than the row that knows it.
const GRACE: Duration = Duration::from_hours(1);
/// No engine keeps more of a recording: codes of 30 s are 12 KB.
const MOST_TOKEN_BYTES: u64 = 1 << 20;

/// The folder of a server's data, as far as voices are concerned. Every method blocks.
#[derive(Clone, Debug)]
pub struct Recordings {
    data_dir: PathBuf,
}

impl Recordings {
    pub fn new(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// Keeps a WAV file that was sent. `seconds` is its length.
    ///
    /// # Errors
    /// What the disk says.
    pub fn upload(&self, wav: &[u8], seconds: f64) -> std::io::Result<StoredRecording> {
        let file = format!("{}.wav", Uuid::new_v4());
        write(&self.uploads(), &file, wav)?;
        Ok(StoredRecording { file, content_hash: digest(wav), seconds })
    }

    /// Makes a voice's own copy of an upload: that one ends after its day.
    ///
    /// # Errors
    /// What the disk says; [`ErrorKind::NotFound`] where it is gone.
    pub fn adopt(&self, upload: &StoredRecording) -> std::io::Result<StoredRecording> {
        let bytes = fs::read(self.uploads().join(checked(&upload.file)?))?;
        let file = format!("{}.wav", Uuid::new_v4());
        write(&self.voices(), &file, &bytes)?;
        Ok(StoredRecording { file, ..upload.clone() })
    }

    /// Where a voice's recording is.
    ///
    /// # Errors
    /// The name is none that was made here.
    pub fn path(&self, recording: &StoredRecording) -> std::io::Result<PathBuf> {
        Ok(self.voices().join(checked(&recording.file)?))
    }

    /// Removes a voice's recording. What cannot be removed now is swept some day.
    pub fn remove(&self, recording: &StoredRecording) {
        if let Err(error) = self.path(recording).and_then(fs::remove_file) {
            tracing::warn!(%error, file = recording.file, "a recording was not removed");
        }
    }

    /// What was kept for an engine. None: nothing, or nothing that can be read.
    pub(super) fn kept(&self, content_hash: &str, engine: &str) -> Option<Vec<u8>> {
        let path = self.voices().join(tokens_name(content_hash, engine)?);
        let bytes = fs::metadata(&path).ok()?.len();
        if bytes > MOST_TOKEN_BYTES { None } else { fs::read(path).ok() }
    }

    pub(super) fn keep(&self, content_hash: &str, engine: &str, tokens: &[u8]) {
        let Some(name) = tokens_name(content_hash, engine) else { return };
        if let Err(error) = write(&self.voices(), &name, tokens) {
            tracing::warn!(%error, "a voice's audio tokens were not kept; they will be made again");
        }
    }

    /// Forgets recordings of the day before that no voice was made of, and removes the files that nobody knows. Says how
    /// many.
    ///
    /// # Errors
    /// The database's.
    pub async fn sweep(&self, store: &Store) -> Result<usize, RecordError> {
        let oldest = row::written(OffsetDateTime::now_utc() - KEPT);
        let known = store.sweep_voices(oldest).await?;
        let folders = [self.uploads(), self.voices()];
        let sweep = move || {
            let files: HashSet<&str> = known.iter().map(|it| it.file.as_str()).collect();
            let hashes: HashSet<&str> = known.iter().map(|it| it.content_hash.as_str()).collect();
            folders.iter().map(|folder| remove_unknown(folder, &files, &hashes)).sum()
        };
        Ok(tokio::task::spawn_blocking(sweep).await.unwrap_or_else(|error| {
            tracing::error!(%error, "sweeping the voices' files failed");
            0
        }))
    }

    /// Voices that a server was learning when it ended are learned when they are first spoken with.
    ///
    /// # Errors
    /// The database's.
    pub async fn release(&self, store: &Store) -> Result<(), RecordError> {
        store.release_voices().await
    }

    fn uploads(&self) -> PathBuf {
        self.data_dir.join("uploads")
    }

    fn voices(&self) -> PathBuf {
        self.data_dir.join("voices")
    }
}

/// A name that was made here: a row of a restored database could hold any.
fn checked(name: &str) -> std::io::Result<&str> {
    let is_ours = name.strip_suffix(".wav").is_some_and(|id| Uuid::try_parse(id).is_ok());
    if is_ours { Ok(name) } else { Err(std::io::Error::new(ErrorKind::InvalidInput, "no recording has this name")) }
}

/// `HASH.ENGINE.tokens`
fn tokens_name(content_hash: &str, engine: &str) -> Option<String> {
    let is_hash = !content_hash.is_empty() && content_hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let engine: String = engine.chars().take(80).map(plain).collect();
    is_hash.then(|| format!("{content_hash}.{engine}.tokens"))
}

/// After it the file is whole or not there, whatever happens meanwhile.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let unfinished = folder.join(format!("{}.part", Uuid::new_v4()));
    let written = (|| {
        let mut file = File::create_new(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(name))?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Where it was renamed there is nothing of this name.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn remove_unknown(folder: &Path, files: &HashSet<&str>, hashes: &HashSet<&str>) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let is_known = |name: &str| {
        let hash = name.strip_suffix(".tokens").and_then(|name| name.split('.').next());
        files.contains(name) || hash.is_some_and(|hash| hashes.contains(hash))
    };
    let is_old = |entry: &fs::DirEntry| {
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        made.is_ok_and(|made| made.elapsed().unwrap_or_default() > GRACE)
    };
    let unknown = entries.filter_map(Result::ok).filter(|entry| {
        !is_known(&entry.file_name().to_string_lossy()) && entry.file_type().is_ok_and(|kind| kind.is_file())
    });
    unknown.filter(is_old).filter(|entry| fs::remove_file(entry.path()).is_ok()).count()
}

//! Who works in DATA_DIR: servers side by side, or a restore alone.
//!
//! Each holds a lock on a file there, which ends with its process, however that ends.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use anyhow::{Context, bail};

const FILE: &str = "in-use.lock";

/// A server moves in, for as long as it keeps the file; it waits for a restore that is under way, and says so. Without a
/// lock it works as well; what it is kept from is told.
pub fn move_in(data_dir: &Path) -> Option<File> {
    let locked = open(data_dir).and_then(|file| {
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                tracing::info!("waiting for a restore of {} to end", data_dir.display());
                file.lock_shared()?;
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        Ok(file)
    });
    locked.inspect_err(|error| tracing::warn!(%error, "a restore could not be kept off {}", data_dir.display())).ok()
}

/// Nobody else works here, nor moves in, until the file is dropped.
///
/// # Errors
/// A server runs, or the folder cannot be written.
pub fn be_alone(data_dir: &Path) -> anyhow::Result<File> {
    let file = open(data_dir).with_context(|| format!("writing in {}", data_dir.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("a server is running on {}; stop it first, so that nothing it writes is lost", data_dir.display())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", data_dir.display())),
    }
}

fn open(data_dir: &Path) -> io::Result<File> {
    std::fs::create_dir_all(data_dir)?;
    File::create(data_dir.join(FILE))
}

#[cfg(test)]
#[path = "tenancy_tests.rs"]
mod tests;

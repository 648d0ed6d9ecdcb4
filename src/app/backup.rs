//! A backup: one zip file with every row and every file that rows refer to, for either database.
//!
//! `backup.json` says what it is, `tables/NAME.jsonl` holds a table's rows, a JSON object a line, and `files/FOLDER/NAME` what
//! DATA_DIR holds. The rows are one moment's. A file of DATA_DIR never changes, so they are copied after the rows: some may
//! be newer than every row, none that a row names is missing unless it went meanwhile.

mod archive;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::store::Store;
use crate::store::backup::{self, tables};
use archive::{Archive, Entry};

/// The folders of DATA_DIR that hold what rows refer to.
const FOLDERS: [&str; 4] = ["images", "recordings", "uploads", "voices"];
/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Description {
    /// Of the file.
    pub format: u32,
    /// The number of the newest migration.
    pub schema: i64,
    /// RFC 3339, in UTC.
    pub created_at: String,
    /// The program that wrote it.
    pub aichat: String,
    /// `sqlite` or `postgres`: what it was taken of.
    pub database: String,
    /// Rows by table.
    pub rows: std::collections::BTreeMap<String, u64>,
    pub files: u64,
}

/// Writes all that a database and its folder hold into `path`, which is there whole or not at all.
///
/// # Errors
/// The database cannot be read, or the file not be written.
pub async fn backup(store: &Store, data_dir: &Path, path: &Path) -> anyhow::Result<Description> {
    let path = std::path::absolute(path)?;
    let folder = path.parent().with_context(|| format!("{} is no file's name", path.display()))?;
    let writing = || format!("writing {}", path.display());
    // Only its owner may read it: it holds what people said.
    let file = NamedTempFile::new_in(folder).with_context(writing)?;
    let mut zip = archive::Writer::new(BufWriter::new(file));
    let mut snapshot = store.snapshot().await?;
    let mut description = Description {
        format: FORMAT,
        schema: backup::schema(),
        created_at: snapshot.taken_at.clone(),
        aichat: env!("CARGO_PKG_VERSION").to_owned(),
        database: store.kind().to_owned(),
        rows: std::collections::BTreeMap::new(),
        files: 0,
    };
    for table in tables() {
        let out = zip.begin(&Entry::Table(table)).with_context(writing)?;
        description.rows.insert(table.to_owned(), snapshot.write_table(table, out).await?);
    }
    drop(snapshot);
    for name in FOLDERS {
        for (name, file) in files_below(&data_dir.join(name), name)? {
            // What was deleted since is no part of it.
            let Ok(mut file) = File::open(&file) else { continue };
            let out = zip.begin(&Entry::File(name)).with_context(writing)?;
            std::io::copy(&mut file, out).with_context(writing)?;
            description.files += 1;
        }
    }
    serde_json::to_writer_pretty(zip.begin(&Entry::Description).with_context(writing)?, &description)?;
    let file = zip.finish().with_context(writing)?;
    file.as_file().sync_all().with_context(writing)?;
    file.persist(&path).with_context(writing)?;
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(writing)?;
    Ok(description)
}

/// Fills a database and its folder from a backup, or changes nothing. Where `replace` says so, what they hold goes first.
///
/// # Errors
/// The file is no whole backup, or one of a newer program; the database is not empty, or cannot be written.
pub async fn restore(store: &Store, data_dir: &Path, path: &Path, replace: bool) -> anyhow::Result<Description> {
    let shown = path.display();
    let file = File::open(path).with_context(|| format!("opening {shown}"))?;
    let mut archive = Archive::open(BufReader::new(file)).with_context(|| format!("{shown} is no whole backup"))?;
    let description = archive.description().with_context(|| format!("{shown} is no whole backup"))?;
    ensure!(
        description.format <= FORMAT && description.schema <= backup::schema(),
        "{shown} was written by a newer aichat ({}; its schema is number {}, this program knows {}); update aichat first",
        description.aichat,
        description.schema,
        backup::schema()
    );
    std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    // Beside where the files will be, so that each only has to be renamed.
    let aside = tempfile::Builder::new().prefix(".restore-").tempdir_in(data_dir)?;
    let names = archive.unpack(aside.path()).with_context(|| format!("unpacking {shown}"))?;
    ensure!(names.len() as u64 == description.files, "{shown} is no whole backup: files are missing");
    let mut restoration = store.restoration(replace).await?;
    for table in tables() {
        let count = restoration.read_table(table, archive.lines(table)?).await?;
        let expected = description.rows.get(table).copied().unwrap_or(0);
        ensure!(count == expected, "{shown} is no whole backup: {table} has {count} rows, not {expected}");
    }
    let mut placed = Placed::default();
    for name in &names {
        placed.place(&aside.path().join(name), data_dir.join(name))?;
    }
    restoration.commit().await?;
    placed.stay();
    if replace {
        remove_others(data_dir, &names)?;
    }
    Ok(description)
}

/// The regular files below a folder, with names that begin with `prefix`.
fn files_below(folder: &Path, prefix: &str) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let reading = || format!("reading {}", folder.display());
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries.with_context(reading)?,
    };
    for entry in entries {
        let entry = entry.with_context(reading)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let name = format!("{prefix}/{name}");
        let kind = entry.file_type().with_context(reading)?;
        if kind.is_dir() {
            found.extend(files_below(&entry.path(), &name)?);
        } else if kind.is_file() {
            found.push((name, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Files that were put where they belong. Dropped before [`Placed::stay`], those that are new are removed again.
#[derive(Default)]
struct Placed {
    new: Vec<PathBuf>,
}

impl Placed {
    fn place(&mut self, from: &Path, to: PathBuf) -> anyhow::Result<()> {
        let writing = || format!("writing {}", to.display());
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).with_context(writing)?;
        }
        let is_new = !to.exists();
        std::fs::rename(from, &to).with_context(writing)?;
        if is_new {
            self.new.push(to);
        }
        Ok(())
    }

    fn stay(mut self) {
        self.new.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for path in &self.new {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::warn!(path = %path.display(), %error, "a file that was restored in vain was not removed");
            }
        }
    }
}

/// Removes the files of rows that are gone.
fn remove_others(data_dir: &Path, kept: &[String]) -> anyhow::Result<()> {
    for folder in FOLDERS {
        for (name, path) in files_below(&data_dir.join(folder), folder)? {
            if !kept.contains(&name) {
                std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "backup_tests.rs"]
mod tests;

//! The zip file of a backup: which names are in it, and that nothing else is.
//!
//! A file of unknown origin is read here, so a name decides nothing before it was compared with what a backup may hold, and
//! a checksum ends every entry.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::{Description, FOLDERS};
use crate::store::backup::tables;

const DESCRIPTION: &str = "backup.json";
/// More than any row has: a message is at most a few megabytes.
const LONGEST_LINE: u64 = 64 * 1024 * 1024;
const LONGEST_DESCRIPTION: u64 = 1024 * 1024;

/// Something in a backup.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Entry {
    Description,
    Table(&'static str),
    /// Its name below DATA_DIR, as `voices/0193….wav`.
    File(String),
}

impl Entry {
    fn name(&self) -> String {
        match self {
            Self::Description => DESCRIPTION.to_owned(),
            Self::Table(name) => format!("tables/{name}.jsonl"),
            Self::File(name) => format!("files/{name}"),
        }
    }

    /// What a name means; None for whatever no backup holds.
    fn named(name: &str) -> Option<Self> {
        if name == DESCRIPTION {
            return Some(Self::Description);
        }
        if let Some(name) = name.strip_prefix("tables/") {
            return tables().find(|table| name.strip_suffix(".jsonl") == Some(table)).map(Self::Table);
        }
        let path = name.strip_prefix("files/")?;
        let mut parts = path.split('/');
        let is_ours = parts.next().is_some_and(|first| FOLDERS.contains(&first));
        let mut parts = parts.peekable();
        let is_file = parts.peek().is_some() && parts.all(is_plain);
        (is_ours && is_file).then(|| Self::File(path.to_owned()))
    }
}

/// Whether a name stays where it is put, on every system.
fn is_plain(part: &str) -> bool {
    !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', ':', '\0'])
}

/// A backup that is being written.
pub(super) struct Writer {
    zip: ZipWriter<io::BufWriter<NamedTempFile>>,
}

impl Writer {
    pub(super) fn new(file: io::BufWriter<NamedTempFile>) -> Self {
        Self { zip: ZipWriter::new(file).set_auto_large_file() }
    }

    /// Begins an entry; what is written until the next is in it.
    pub(super) fn begin(&mut self, entry: &Entry) -> io::Result<&mut dyn Write> {
        self.zip.start_file(entry.name(), SimpleFileOptions::default().unix_permissions(0o600))?;
        Ok(&mut self.zip)
    }

    pub(super) fn finish(self) -> anyhow::Result<NamedTempFile> {
        Ok(self.zip.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?)
    }
}

/// A backup that is read.
pub(super) struct Archive<R> {
    zip: ZipArchive<R>,
    /// Where each entry is.
    entries: BTreeMap<String, usize>,
}

impl<R: Read + Seek> Archive<R> {
    /// Looks at every name.
    ///
    /// # Errors
    /// It is no zip file, or holds what no backup holds.
    pub(super) fn open(file: R) -> anyhow::Result<Self> {
        let mut zip = ZipArchive::new(file)?;
        ensure!(!zip.has_duplicate_names(), "it holds a name twice");
        let mut entries = BTreeMap::new();
        for at in 0..zip.len() {
            let entry = zip.by_index(at)?;
            let name = entry.name()?.into_owned();
            match Entry::named(&name) {
                Some(known) if entry.is_file() && !entry.is_symlink() => entries.insert(known.name(), at),
                _ => bail!("it holds {name:?}, which no backup holds"),
            };
        }
        Ok(Self { zip, entries })
    }

    pub(super) fn description(&mut self) -> anyhow::Result<Description> {
        let at = *self.entries.get(DESCRIPTION).with_context(|| format!("it holds no {DESCRIPTION}"))?;
        let mut text = String::new();
        self.zip.by_index(at)?.take(LONGEST_DESCRIPTION).read_to_string(&mut text)?;
        serde_json::from_str(&text).with_context(|| format!("its {DESCRIPTION} is none"))
    }

    /// Writes every file below `folder` and says their names.
    pub(super) fn unpack(&mut self, folder: &Path) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for at in 0..self.zip.len() {
            let mut entry = self.zip.by_index(at)?;
            let Some(Entry::File(name)) = Entry::named(&entry.name()?) else { continue };
            let path = folder.join(&name);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut file = File::create_new(&path)?;
            let size = entry.size();
            let written = io::copy(&mut (&mut entry).take(size.saturating_add(1)), &mut file)?;
            ensure!(written == size, "{name} is not as long as it should be");
            file.sync_all()?;
            names.push(name);
        }
        Ok(names)
    }

    /// A table's lines; none where the backup does not hold the table.
    pub(super) fn lines(
        &mut self,
        table: &'static str,
    ) -> anyhow::Result<impl Iterator<Item = io::Result<String>> + use<'_, R>> {
        let at = self.entries.get(&Entry::Table(table).name()).copied();
        let mut entry = at.map(|at| self.zip.by_index(at)).transpose()?.map(BufReader::new);
        Ok(std::iter::from_fn(move || next_line(entry.as_mut()?).transpose()))
    }
}

fn next_line(source: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    let length = source.take(LONGEST_LINE).read_line(&mut line)?;
    if length as u64 == LONGEST_LINE {
        return Err(io::Error::other("a line is too long"));
    }
    Ok((length > 0).then_some(line))
}

//! `MODELS_DIR/NAME/manifest.json`: what was pulled, from where, and how large and whole each file was then.
//!
//! The record is written last, inside the folder that is then renamed into place, so a folder with a record was
//! complete once. Everything read from it is distrusted: a damaged record is an error with a remedy, never a panic.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{error::CatalogError, manifest::FileEntry};

pub(crate) const RECORD_FILE: &str = "manifest.json";
/// A record lists some sixty files at most; more bytes than this are not a record.
const LARGEST_RECORD: u64 = 4 << 20;

#[derive(Debug, Clone, Deserialize, Serialize)]
pub(crate) struct Record {
    pub name: String,
    /// `hub` or `packages`.
    pub source: String,
    /// The hub's commit, or the packages with their versions.
    pub revision: String,
    /// The path of the file with the weights.
    pub weights: String,
    pub files: Vec<FileEntry>,
}

impl Record {
    /// The record in `folder`; `Ok(None)` if there is none. The `Err` says what is wrong with it.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, String> {
        let file = match File::open(folder.join(RECORD_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = Vec::new();
        file.take(LARGEST_RECORD).read_to_end(&mut text).map_err(|error| error.to_string())?;
        let record: Self = serde_json::from_slice(&text).map_err(|error| format!("damaged ({error})"))?;
        if record.files.is_empty() {
            return Err("damaged (it lists no files)".into());
        }
        if let Some(file) = record.files.iter().find(|file| !is_inside(&file.path)) {
            return Err(format!("damaged (it lists {:?}, which is outside the folder)", file.path));
        }
        if !record.files.iter().any(|file| file.path == record.weights) {
            return Err(format!("damaged (it does not list its weights, {:?})", record.weights));
        }
        Ok(Some(record))
    }

    pub(crate) fn write(&self, folder: &Path) -> Result<(), CatalogError> {
        let path = folder.join(RECORD_FILE);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| CatalogError::Io { path: path.clone(), cause: error.into() })?;
        fs::write(&path, text).map_err(CatalogError::io(&path))
    }

    /// The record of one of its files.
    pub(crate) fn only(&self, file: &FileEntry) -> Self {
        Self { files: vec![file.clone()], ..self.clone() }
    }

    /// Cheap: each file is there with the recorded size. The `Err` names the first that is not, and how.
    pub(crate) fn check_sizes(&self, folder: &Path) -> Result<(), (PathBuf, String)> {
        self.files.iter().try_for_each(|file| {
            let path = folder.join(&file.path);
            match fs::metadata(&path) {
                Ok(found) if found.len() == file.bytes => Ok(()),
                Ok(found) if found.len() == 0 => Err((path, "is empty".into())),
                Ok(found) => Err((path, format!("has {} bytes where {} are expected", found.len(), file.bytes))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err((path, "is missing".into())),
                Err(error) => Err((path, error.to_string())),
            }
        })
    }

    /// Reads every byte. The `Err` names the first file that differs.
    pub(crate) fn check_contents(&self, folder: &Path) -> Result<(), (PathBuf, String)> {
        self.check_sizes(folder)?;
        self.files.iter().try_for_each(|file| {
            let path = folder.join(&file.path);
            match sha256_of(&path) {
                Ok(found) if found == file.sha256 => Ok(()),
                Ok(_) => Err((path, "its contents have changed since it was pulled (sha256 differs)".into())),
                Err(error) => Err((path, error.to_string())),
            }
        })
    }
}

/// In lower-case hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hexadecimal(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(b"0123456789abcdef"[digit as usize]))
        .collect()
}

/// Whether joining `path` to a folder stays inside it.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

//! The voices in a Higgs model's folder: `voices/NAME.wav`, or another sound file, with its words in `voices/NAME.txt`.
//!
//! What the codec makes of a recording is kept in `voices/.codes` by what is in the file, so that it is made once, not at
//! every start.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use sha2::{Digest, Sha256};

use crate::audio::Speech;
use crate::audio::container::{Limits, decode_file};
use crate::engine::speech::higgs::{HiggsEngine, HiggsVoice, HiggsVoiceKind, Recording};
use crate::provider::{ProviderError, VoiceRecording};

/// What a recording of a voice may last when it is read; the engine says what a voice's may.
const LONGEST_RECORDING: Duration = Duration::from_mins(2);
/// Of a sound file's SHA-256, as many bytes as name its codes.
const NAME_BYTES: usize = 16;

/// Enrols every voice in `folder`. One that cannot be used is told and left out.
pub(super) fn enrol(engine: &HiggsEngine, folder: &Path) {
    let Ok(files) = fs::read_dir(folder) else { return };
    let files = files.filter_map(|file| Some(file.ok()?.path()));
    for path in files.filter(|path| path.extension().is_some_and(|kind| kind != "txt")) {
        if let Err(error) = voice(&path).and_then(|voice| Ok(engine.enrol(voice)?)) {
            tracing::warn!(file = %path.display(), error = format!("{error:#}"), "this recording becomes no voice");
        }
    }
}

fn voice(path: &Path) -> anyhow::Result<HiggsVoice> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let words =
        fs::read_to_string(path.with_extension("txt")).map_err(|error| anyhow!("its words in {name}.txt: {error}"))?;
    let kind = HiggsVoiceKind::Cloned {
        recording: Recording::Kept(Arc::new(SoundFile::open(path)?)),
        transcript: words.trim().to_owned(),
        scene: None,
    };
    Ok(HiggsVoice { name, language: "und".to_owned(), kind })
}

#[derive(Debug)]
struct SoundFile {
    path: PathBuf,
    /// Names its content.
    content: String,
}

impl SoundFile {
    fn open(path: &Path) -> std::io::Result<Self> {
        let hash = Sha256::digest(fs::read(path)?);
        let number = hash.iter().take(NAME_BYTES).fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
        Ok(Self { path: path.to_owned(), content: format!("{number:032x}") })
    }

    fn folder(&self) -> PathBuf {
        self.path.with_file_name(".codes")
    }

    fn file(&self, engine: &str) -> PathBuf {
        self.folder().join(format!("{}.{engine}", self.content))
    }

    /// Whole or not at all.
    fn write(&self, engine: &str, tokens: &[u8]) -> std::io::Result<()> {
        fs::create_dir_all(self.folder())?;
        let mut file = tempfile::NamedTempFile::new_in(self.folder())?;
        file.write_all(tokens)?;
        file.persist(self.file(engine))?;
        Ok(())
    }
}

impl VoiceRecording for SoundFile {
    fn sound(&self) -> Result<Speech, ProviderError> {
        decode_file(&self.path, Limits::up_to(LONGEST_RECORDING))
            .map_err(|error| ProviderError::InvalidRequest { field: "reference", message: error.to_string() })
    }

    fn kept(&self, engine: &str) -> Option<Vec<u8>> {
        fs::read(self.file(engine)).ok()
    }

    fn keep(&self, engine: &str, tokens: &[u8]) {
        if let Err(error) = self.write(engine, tokens) {
            let file = self.path.display();
            tracing::warn!(%error, %file, "what was made of a recording is not kept: it is made again at every start");
        }
    }
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;

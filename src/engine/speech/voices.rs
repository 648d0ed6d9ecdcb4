//! Which voices there are, what language each speaks, and which one a request means.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::phonemes::Tongue;
use crate::engine::EngineError;
use crate::provider::{Gender, ProviderError, VoiceEngine, VoiceInfo};

/// The voice of a request that names neither voice nor language, where it is there.
const DEFAULT: &str = "af_heart";

/// Who speaks for the voices that OpenAI's clients name.
const STAND_INS: [(&str, &str); 13] = [
    ("alloy", "af_alloy"),
    ("ash", "am_michael"),
    ("ballad", "bm_lewis"),
    ("cedar", "am_adam"),
    ("coral", "af_bella"),
    ("echo", "am_echo"),
    ("fable", "bm_fable"),
    ("marin", "af_sarah"),
    ("nova", "af_nova"),
    ("onyx", "am_onyx"),
    ("sage", "bf_emma"),
    ("shimmer", "af_sky"),
    ("verse", "am_puck"),
];

/// The voices' files, by name.
pub(super) struct Voices(BTreeMap<String, PathBuf>);

impl Voices {
    /// Finds NAME.bin and NAME.pt in `dir`. A NAME.bin has `voice_bytes`: one that was cut short would speak, but not
    /// with its voice.
    pub(super) fn find(dir: &Path, voice_bytes: u64) -> Result<Self, EngineError> {
        let fault = |reason: String| EngineError::BadFile { path: dir.to_owned(), reason };
        let entries = std::fs::read_dir(dir).map_err(|error| fault(error.to_string()))?;
        let voice = |path: PathBuf| {
            let kind = path.extension()?.to_str()?;
            let name = path.file_stem()?.to_str()?.to_owned();
            (kind == "bin" || kind == "pt").then_some((name, path))
        };
        let voices: BTreeMap<_, _> = entries.filter_map(|entry| voice(entry.ok()?.path())).collect();
        if voices.is_empty() {
            return Err(fault("it holds no voices (NAME.bin or NAME.pt)".to_owned()));
        }
        for path in voices.values().filter(|path| path.extension().is_some_and(|kind| kind == "bin")) {
            let bytes = std::fs::metadata(path).map_or(0, |file| file.len());
            if bytes != voice_bytes {
                let reason = format!("it has {bytes} bytes where a voice has {voice_bytes}");
                return Err(EngineError::BadFile { path: path.clone(), reason });
            }
        }
        Ok(Self(voices))
    }

    pub(super) fn list(&self) -> Vec<VoiceInfo> {
        let aliases = |name: &str| {
            let stands_in = |theirs: &&str| self.stand_in(theirs) == Some(name);
            STAND_INS.iter().map(|(theirs, _)| *theirs).filter(stands_in).map(str::to_owned).collect()
        };
        let info = |name: &String| VoiceInfo {
            name: name.clone(),
            language: language_of(name).to_owned(),
            engine: VoiceEngine::Kokoro,
            gender: gender_of(name),
            aliases: aliases(name),
        };
        self.0.keys().map(info).collect()
    }

    pub(super) fn path(&self, name: &str) -> Option<&Path> {
        self.0.get(name).map(PathBuf::as_path)
    }

    /// The voice that says the canary, and requests that ask for none.
    pub(super) fn default_name(&self) -> &str {
        let speaks = |name: &&String| Tongue::of(language_of(name)).is_some();
        let first = self.0.keys().find(speaks).or_else(|| self.0.keys().next());
        if self.0.contains_key(DEFAULT) { DEFAULT } else { first.map_or(DEFAULT, String::as_str) }
    }

    /// The voice that a request means, and how its text is to be read. `model` is for errors.
    pub(super) fn choose(
        &self,
        voice: Option<&str>,
        language: Option<&str>,
        model: &str,
    ) -> Result<(String, Tongue), ProviderError> {
        let wanted = language.map(str::to_ascii_lowercase);
        let unsupported =
            |language: &str, what: String| ProviderError::LanguageUnsupported { language: language.to_owned(), what };
        let name = match (voice, wanted.as_deref()) {
            (Some(voice), _) if self.0.contains_key(voice) => voice,
            (Some(voice), _) => self.stand_in(voice).ok_or_else(|| self.unknown(voice))?,
            (None, None) => self.default_name(),
            (None, Some(language)) => {
                self.for_language(language).ok_or_else(|| unsupported(language, model.to_owned()))?
            }
        };
        let own = language_of(name);
        let language = match wanted.as_deref() {
            None => own,
            Some(language) if primary(language) != primary(own) => {
                return Err(unsupported(language, format!("the voice {name} of {model}")));
            }
            // A bare "en" is the voice's own English.
            Some(language) if language == primary(own) => own,
            Some(language) => language,
        };
        let tongue = Tongue::of(language).ok_or_else(|| unsupported(language, model.to_owned()))?;
        Ok((name.to_owned(), tongue))
    }

    /// The default voice if it speaks `language`, else the first that speaks it, region and all if possible.
    fn for_language(&self, language: &str) -> Option<&str> {
        let default = self.default_name();
        let matches = |exact: bool, name: &str| {
            let own = language_of(name);
            if exact { own == language } else { primary(own) == primary(language) }
        };
        let mut passes = [true, false].into_iter();
        passes.find_map(|exact| {
            let mut names = std::iter::once(default).chain(self.0.keys().map(String::as_str));
            names.find(|name| matches(exact, name))
        })
    }

    /// Who speaks for a voice of OpenAI's; the default where that one was not fetched.
    fn stand_in(&self, voice: &str) -> Option<&str> {
        let (_, name) = STAND_INS.iter().find(|(theirs, _)| *theirs == voice)?;
        Some(if self.0.contains_key(*name) { name } else { self.default_name() })
    }

    fn unknown(&self, voice: &str) -> ProviderError {
        let nearest = self.0.keys().min_by_key(|name| distance(name, voice)).cloned().unwrap_or_default();
        ProviderError::VoiceUnavailable { voice: voice.to_owned(), nearest }
    }
}

fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or(language)
}

/// A voice's first letter is its language; "und" where it is none of upstream's.
pub(super) fn language_of(voice: &str) -> &'static str {
    match voice.as_bytes().first() {
        Some(b'a') => "en-us",
        Some(b'b') => "en-gb",
        Some(b'e') => "es",
        Some(b'f') => "fr",
        Some(b'h') => "hi",
        Some(b'i') => "it",
        Some(b'j') => "ja",
        Some(b'p') => "pt-br",
        Some(b'z') => "zh",
        _ => "und",
    }
}

/// Its second letter is its gender.
fn gender_of(voice: &str) -> Option<Gender> {
    match voice.as_bytes().get(1) {
        Some(b'f') => Some(Gender::Female),
        Some(b'm') => Some(Gender::Male),
        _ => None,
    }
}

/// Levenshtein's distance in characters, letter case aside.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().map(|character| character.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, left) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (index, right) in right.iter().enumerate() {
            let substituted = diagonal + usize::from(left.to_ascii_lowercase() != *right);
            diagonal = row[index + 1];
            row[index + 1] = substituted.min(row[index] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

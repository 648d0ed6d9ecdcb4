//! The voices of an engine: some in words, which every engine has, and those that somebody has recorded.
//!
//! A recording's codes are computed once and kept by what it sounds like, so that enrolling the same recording again, or
//! under another name, costs nothing.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prompt::{Reference, Setting, Voice};
use crate::audio::Speech;
use crate::nn::higgs::{Codes, HiggsConfig};
use crate::provider::{Language, ProviderError, VoiceInfo};

/// Seconds of a recording: with less no voice is known, with more the prompt is long and the voice no better.
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 30.0;
/// The loudness (root mean square) below which a recording is silence.
const SILENCE: f64 = 1e-3;
/// Recordings whose codes are kept; 24 KB each at most.
const MOST_KEPT: usize = 1024;

/// Voices in words, in the manner that the model was trained on. The first is the default.
const STANDARD: [(&str, &str, &str); 4] = [
    (
        "clara",
        "en-us",
        "Female, American accent, modern speaking rate, moderate-pitch, friendly tone, and very clear audio.",
    ),
    (
        "james",
        "en-us",
        "Male, American accent, modern speaking rate, moderate-pitch, friendly tone, and very clear audio.",
    ),
    (
        "olive",
        "en-gb",
        "Female, British accent, modern speaking rate, moderate-pitch, calm tone, and very clear audio.",
    ),
    ("henry", "en-gb", "Male, British accent, modern speaking rate, low-pitch, calm tone, and very clear audio."),
];

/// Who speaks for the voices that OpenAI's clients name.
const STAND_INS: [(&str, &str); 13] = [
    ("alloy", "clara"),
    ("ash", "james"),
    ("ballad", "henry"),
    ("cedar", "james"),
    ("coral", "clara"),
    ("echo", "james"),
    ("fable", "henry"),
    ("marin", "olive"),
    ("nova", "clara"),
    ("onyx", "henry"),
    ("sage", "olive"),
    ("shimmer", "olive"),
    ("verse", "james"),
];

/// A voice that an engine is given.
#[derive(Clone, Debug)]
pub struct HiggsVoice {
    pub name: String,
    pub language: Language,
    pub kind: HiggsVoiceKind,
}

/// What is known of a voice.
#[derive(Clone, Debug)]
pub enum HiggsVoiceKind {
    /// Nothing but words, as `masculine;moderate pitch;mature` or a sentence.
    Described { speaker: String, scene: Option<String> },
    /// How it sounds, and the words that it says there.
    Cloned { recording: Recording, transcript: String, scene: Option<String> },
}

#[derive(Clone, Debug)]
pub enum Recording {
    /// What the codec's encoder made of the sound.
    Codes(Codes),
    /// 1 to 30 seconds.
    Sound(Speech),
}

/// The voices that every engine has.
pub(super) fn standard() -> impl Iterator<Item = HiggsVoice> {
    STANDARD.into_iter().map(|(name, language, speaker)| HiggsVoice {
        name: name.to_owned(),
        language: language.to_owned(),
        kind: HiggsVoiceKind::Described {
            speaker: speaker.to_owned(),
            scene: Some(super::prompt::QUIET_ROOM.to_owned()),
        },
    })
}

/// A voice as the engine uses it.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub(super) name: Arc<str>,
    pub(super) language: Language,
    pub(super) setting: Setting,
}

/// By name.
#[derive(Default)]
pub(super) struct Voices {
    all: Mutex<BTreeMap<String, Arc<Enrolled>>>,
    codes: Mutex<BTreeMap<[u64; 2], Codes>>,
}

impl Voices {
    /// Makes a voice available, in the place of one of that name. `encode` makes a recording's codes; it is not asked
    /// for one that is known.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`] says what is wrong with it; what `encode` says.
    pub(super) fn enrol(
        &self,
        config: &HiggsConfig,
        voice: HiggsVoice,
        encode: impl FnOnce(Speech) -> Result<Codes, ProviderError>,
    ) -> Result<(), ProviderError> {
        let HiggsVoice { name, language, kind } = voice;
        if name.trim().is_empty() {
            return Err(invalid("name", "a voice needs a name"));
        }
        let (voice, scene) = match kind {
            HiggsVoiceKind::Described { speaker, scene } if speaker.trim().is_empty() => (Voice::Free, scene),
            HiggsVoiceKind::Described { speaker, scene } => (Voice::Described(speaker), scene),
            HiggsVoiceKind::Cloned { recording, transcript, scene } => {
                if transcript.trim().is_empty() {
                    return Err(invalid("transcript", "write the words that are spoken in the recording"));
                }
                let codes = match recording {
                    Recording::Codes(codes) => codes,
                    Recording::Sound(sound) => self.encoded(sound, encode)?,
                };
                check_codes(config, &codes)?;
                (Voice::Cloned(Reference::new(config, &transcript, &codes)), scene)
            }
        };
        let enrolled = Enrolled { name: name.as_str().into(), language, setting: Setting { voice, scene } };
        lock(&self.all).insert(name, Arc::new(enrolled));
        Ok(())
    }

    /// False where there is no such voice.
    pub(super) fn forget(&self, name: &str) -> bool {
        lock(&self.all).remove(name).is_some()
    }

    fn encoded(
        &self,
        sound: Speech,
        encode: impl FnOnce(Speech) -> Result<Codes, ProviderError>,
    ) -> Result<Codes, ProviderError> {
        check_sound(&sound)?;
        let key = fingerprint(&sound);
        if let Some(codes) = lock(&self.codes).get(&key) {
            return Ok(codes.clone());
        }
        let codes = encode(sound)?;
        let mut kept = lock(&self.codes);
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(key, codes.clone());
        Ok(codes)
    }

    pub(super) fn list(&self) -> Vec<VoiceInfo> {
        let info = |it: &Arc<Enrolled>| VoiceInfo { name: it.name.to_string(), language: it.language.clone() };
        lock(&self.all).values().map(info).collect()
    }

    /// The voice that a request means: the model speaks any language with any of them, but one of that language is
    /// chosen where none is named.
    ///
    /// # Errors
    /// [`ProviderError::VoiceUnavailable`].
    pub(super) fn choose(&self, name: Option<&str>, language: Option<&str>) -> Result<Arc<Enrolled>, ProviderError> {
        let all = lock(&self.all);
        let default = || all.get(STANDARD[0].0).or_else(|| all.values().next());
        let chosen = match (name, language) {
            (Some(name), _) => {
                let stand_in = || STAND_INS.iter().find(|(theirs, _)| *theirs == name);
                all.get(name).or_else(|| stand_in().and_then(|(_, ours)| all.get(*ours)))
            }
            (None, None) => default(),
            (None, Some(language)) => {
                let speaks = |it: &&Arc<Enrolled>| primary(&it.language).eq_ignore_ascii_case(primary(language));
                let exact = |it: &&Arc<Enrolled>| it.language.eq_ignore_ascii_case(language);
                let found = all.values().find(exact).or_else(|| default().filter(speaks));
                found.or_else(|| all.values().find(speaks)).or_else(default)
            }
        };
        chosen.cloned().ok_or_else(|| ProviderError::VoiceUnavailable {
            voice: name.unwrap_or_default().to_owned(),
            nearest: nearest(all.keys(), name.unwrap_or_default()),
        })
    }
}

/// Which of `names` shares most letters from the beginning on, or is the default.
fn nearest<'a>(names: impl Iterator<Item = &'a String>, wanted: &str) -> String {
    let same = |name: &str| {
        let pairs = name.chars().zip(wanted.chars());
        pairs.take_while(|(one, two)| one.eq_ignore_ascii_case(two)).count()
    };
    let best = names.map(|name| (same(name), name)).max_by_key(|(same, _)| *same);
    best.filter(|(same, _)| *same > 0).map_or(STANDARD[0].0, |(_, name)| name).to_owned()
}

fn check_sound(sound: &Speech) -> Result<(), ProviderError> {
    let seconds = sound.len().seconds();
    if seconds < SHORTEST {
        return Err(invalid(
            "reference",
            format!("the recording has {seconds:.2} s; record {SHORTEST} to {LONGEST} s"),
        ));
    }
    if seconds > LONGEST {
        return Err(invalid("reference", format!("the recording has {seconds:.1} s; cut it to {LONGEST} s or less")));
    }
    let energy: f64 = sound.as_slice().iter().map(|sample| f64::from(sample * sample)).sum();
    if (energy / sound.as_slice().len() as f64).sqrt() < SILENCE {
        return Err(invalid("reference", "the recording is silent; check the microphone and record it again"));
    }
    Ok(())
}

fn check_codes(config: &HiggsConfig, codes: &Codes) -> Result<(), ProviderError> {
    let fits =
        codes.codebooks() == config.codebooks && codes.values().iter().all(|code| (*code as usize) < config.codes);
    if !fits || codes.is_empty() {
        return Err(invalid("reference", "the recording's codes are none of this model's codec"));
    }
    Ok(())
}

fn invalid(field: &'static str, message: impl Into<String>) -> ProviderError {
    ProviderError::InvalidRequest { field, message: message.into() }
}

/// Of what it sounds like: 128 bits, within one process.
fn fingerprint(sound: &Speech) -> [u64; 2] {
    [0_u8, 1].map(|salt| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        sound.as_slice().iter().for_each(|sample| sample.to_bits().hash(&mut hasher));
        hasher.finish()
    })
}

fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or(language)
}

/// What is inserted is whole: a panic elsewhere cannot leave these half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

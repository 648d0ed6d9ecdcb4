//! The voices of an engine: some in words, which every engine has, those that were enrolled beside them, and those that
//! come with a request.
//!
//! A recording's codes are computed once and kept by what it sounds like, so that enrolling the same recording again, or
//! under another name, costs nothing. Those of a recording that can keep them are kept beside it, too, for the next start.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::prompt::{Reference, Setting, Voice};
use crate::audio::Speech;
use crate::nn::higgs::{Codes, HiggsConfig};
use crate::provider::{Gender, Language, OwnVoice, ProviderError, VoiceEngine, VoiceInfo, VoiceRecording};

/// Seconds of a recording: with less no voice is known, with more the prompt is long and the voice no better.
const SHORTEST: f64 = 1.0;
const LONGEST: f64 = 30.0;
/// The loudness (root mean square) below which a recording is silence.
const SILENCE: f64 = 1e-3;
/// Recordings whose codes are kept; 24 KB each at most.
const MOST_KEPT: usize = 1024;

/// Voices in words, in the manner that the model was trained on. The first is the default.
const STANDARD: [(&str, &str, Gender, &str); 4] = [
    (
        "clara",
        "en-us",
        Gender::Female,
        "Female, American accent, modern speaking rate, moderate-pitch, friendly tone, and very clear audio.",
    ),
    (
        "james",
        "en-us",
        Gender::Male,
        "Male, American accent, modern speaking rate, moderate-pitch, friendly tone, and very clear audio.",
    ),
    (
        "olive",
        "en-gb",
        Gender::Female,
        "Female, British accent, modern speaking rate, moderate-pitch, calm tone, and very clear audio.",
    ),
    (
        "henry",
        "en-gb",
        Gender::Male,
        "Male, British accent, modern speaking rate, low-pitch, calm tone, and very clear audio.",
    ),
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
    /// The same, of which the codes are kept.
    Kept(Arc<dyn VoiceRecording>),
}

/// The voices that every engine has.
pub(super) fn standard() -> impl Iterator<Item = HiggsVoice> {
    STANDARD.into_iter().map(|(name, language, _, speaker)| HiggsVoice {
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
#[derive(Debug, Default)]
pub(super) struct Voices {
    all: Mutex<BTreeMap<String, Arc<Enrolled>>>,
    codes: Mutex<BTreeMap<[u64; 2], Codes>>,
    /// Of voices that came with requests, by what their owner says they sound like.
    own: Mutex<BTreeMap<Arc<str>, Codes>>,
    /// Held while one is made ready, so that a recording is encoded once however many ask at once.
    learning: Mutex<()>,
}

impl Voices {
    /// Makes a voice available, in the place of one of that name. `encode` makes a recording's codes; it is not asked
    /// for one that is known, or whose codes are kept under the name `tokens`.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`] says what is wrong with it; what `encode` says.
    pub(super) fn enrol(
        &self,
        config: &HiggsConfig,
        voice: HiggsVoice,
        tokens: &str,
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
                    Recording::Kept(recording) => reference_codes(config, &*recording, tokens, encode)?,
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

    /// A voice that came with a request, where nothing must be read or computed for it.
    ///
    /// # Errors
    /// [`ProviderError::InvalidRequest`] says what is wrong with it.
    pub(super) fn own(&self, config: &HiggsConfig, own: &OwnVoice) -> Result<Option<Arc<Enrolled>>, ProviderError> {
        let codes = match &own.reference {
            None => None,
            Some(reference) => match lock(&self.own).get(&reference.key) {
                Some(codes) => Some(codes.clone()),
                None => return Ok(None),
            },
        };
        enrolled(config, own, codes.as_ref()).map(Some)
    }

    /// The same, whatever it takes. `tokens` names those that are kept beside the recording; `encode` makes them.
    ///
    /// # Errors
    /// As [`Self::own`]; what `encode` says, or whoever has the recording.
    pub(super) fn learn(
        &self,
        config: &HiggsConfig,
        own: &OwnVoice,
        tokens: &str,
        encode: impl FnOnce(Speech) -> Result<Codes, ProviderError>,
    ) -> Result<Arc<Enrolled>, ProviderError> {
        let _one_at_a_time = lock(&self.learning);
        if let Some(known) = self.own(config, own)? {
            return Ok(known);
        }
        let codes =
            own.reference.as_ref().map(|it| reference_codes(config, &*it.recording, tokens, encode)).transpose()?;
        if let (Some(reference), Some(codes)) = (&own.reference, &codes) {
            let mut kept = lock(&self.own);
            if kept.len() >= MOST_KEPT {
                kept.clear();
            }
            kept.insert(Arc::clone(&reference.key), codes.clone());
        }
        enrolled(config, own, codes.as_ref())
    }

    pub(super) fn list(&self) -> Vec<VoiceInfo> {
        let all = lock(&self.all);
        let info = |it: &Arc<Enrolled>| VoiceInfo {
            name: it.name.to_string(),
            language: it.language.clone(),
            engine: VoiceEngine::Higgs,
            gender: STANDARD.iter().find(|(name, ..)| *name == &*it.name).map(|(_, _, gender, _)| *gender),
            aliases: aliases(&it.name).filter(|alias| !all.contains_key(*alias)).map(str::to_owned).collect(),
        };
        all.values().map(info).collect()
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

/// The voices of OpenAI's that `name` speaks for.
fn aliases(name: &str) -> impl Iterator<Item = &'static str> {
    STAND_INS.iter().filter(move |(_, ours)| *ours == name).map(|(theirs, _)| *theirs)
}

/// A request's voice as the engine uses it.
fn enrolled(config: &HiggsConfig, own: &OwnVoice, codes: Option<&Codes>) -> Result<Arc<Enrolled>, ProviderError> {
    let scene = own.scene.clone().filter(|scene| !scene.trim().is_empty());
    let setting = match (&own.reference, codes) {
        (Some(reference), Some(codes)) => {
            if reference.transcript.trim().is_empty() {
                return Err(invalid("transcript", "write the words that are spoken in the recording"));
            }
            Setting { voice: Voice::Cloned(Reference::new(config, &reference.transcript, codes)), scene }
        }
        _ if own.speaker.trim().is_empty() => Setting { voice: Voice::Free, scene },
        // As those that every engine has: it speaks worse of a room that it knows nothing about.
        _ => Setting {
            voice: Voice::Described(own.speaker.clone()),
            scene: scene.or_else(|| Some(super::prompt::QUIET_ROOM.to_owned())),
        },
    };
    Ok(Arc::new(Enrolled { name: Arc::clone(&own.name), language: own.language.clone(), setting }))
}

/// The codes of a recording: those that were kept, or what `encode` makes of it.
fn reference_codes(
    config: &HiggsConfig,
    recording: &dyn VoiceRecording,
    tokens: &str,
    encode: impl FnOnce(Speech) -> Result<Codes, ProviderError>,
) -> Result<Codes, ProviderError> {
    let kept = recording.kept(tokens).and_then(|bytes| from_bytes(&bytes));
    // What lies on a disk may be anything: codes that are none of this model's are made again.
    if let Some(codes) = kept.filter(|codes| check_codes(config, codes).is_ok()) {
        return Ok(codes);
    }
    let sound = recording.sound()?;
    check_sound(&sound)?;
    let codes = encode(sound)?;
    check_codes(config, &codes)?;
    recording.keep(tokens, &to_bytes(&codes));
    Ok(codes)
}

/// How codes lie on a disk: this, how many codebooks, then the codes of 16 bits, row by row.
const CODES_HEAD: &[u8; 7] = b"hcodes1";

fn to_bytes(codes: &Codes) -> Vec<u8> {
    let mut bytes = CODES_HEAD.to_vec();
    bytes.push(codes.codebooks() as u8);
    bytes.extend(codes.values().iter().flat_map(|code| (*code as u16).to_le_bytes()));
    bytes
}

fn from_bytes(bytes: &[u8]) -> Option<Codes> {
    let (codebooks, codes) = bytes.strip_prefix(CODES_HEAD)?.split_first()?;
    let (pairs, rest) = codes.as_chunks::<2>();
    let values = pairs.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).collect();
    rest.is_empty().then(|| Codes::from_rows(usize::from(*codebooks), values)).flatten()
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

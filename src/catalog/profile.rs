//! Profiles: which models together make a conversation on which device.

use serde::Deserialize;

const MB: u64 = 1_000_000;

/// One profile: `models/profiles/NAME.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    pub name: String,
    pub summary: String,
    pub needs_gpu: bool,
    /// Free device memory from which `auto` chooses this profile, in MB.
    pub minimum_free_mb: u64,
    /// What its models take together, in MB, roughly.
    pub memory_mb: u64,
    pub speech_to_text: String,
    pub chat: String,
    pub speech: String,
    pub voice_activity: String,
    /// The speech model that this profile is meant for, not loadable by this version.
    pub speech_when_its_engine_exists: Option<String>,
    pub larger_chat: Option<LargerChat>,
}

/// A better chat model for devices with still more memory.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LargerChat {
    pub minimum_free_mb: u64,
    pub model: String,
}

/// What `PROFILE=auto` came to, and why, in a sentence for the log and for `aichat doctor`.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Its `chat` is already the larger one where the memory allows it.
    pub profile: Profile,
    pub reason: String,
}

impl Profile {
    /// The names of its models: speech to text, chat, speech, voice activity.
    pub fn models(&self) -> [&str; 4] {
        [&self.speech_to_text, &self.chat, &self.speech, &self.voice_activity]
    }
}

/// The largest profile that fits, or `None` if there is not even one for the CPU. `profiles` go from small to large.
pub(crate) fn choose(profiles: &[Profile], free_bytes: u64, is_gpu: bool) -> Option<Choice> {
    let free_mb = free_bytes / MB;
    let fits = |profile: &&Profile| !profile.needs_gpu || (is_gpu && free_mb >= profile.minimum_free_mb);
    let mut profile = profiles.iter().rfind(fits)?.clone();
    if let Some(larger) = profile.larger_chat.take_if(|larger| is_gpu && free_mb >= larger.minimum_free_mb) {
        profile.chat = larger.model;
    }
    let reason = if !is_gpu {
        format!("{}: no GPU is in use, so small models that answer in real time on the CPU", profile.name)
    } else if profile.needs_gpu {
        format!(
            "{}: {} GB of GPU memory are free and its models take about {} GB",
            profile.name,
            gigabytes(free_mb),
            gigabytes(profile.memory_mb)
        )
    } else {
        format!("{}: only {} GB of GPU memory are free", profile.name, gigabytes(free_mb))
    };
    Some(Choice { profile, reason })
}

fn gigabytes(mb: u64) -> String {
    format!("{}.{}", mb / 1000, mb % 1000 / 100)
}

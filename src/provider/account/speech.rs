//! Spoken sentences in the books.

use std::sync::Arc;

use super::books::Link;
use super::watch::{Tally, watch};
use super::{Usd, Used};
use crate::audio::{SPEECH_HZ, Samples};
use crate::provider::{Flow, SpeakRequest, SpeechChunk, SpeechSynthesizer, VoiceInfo, VoiceStudio};

/// No voice takes longer for a character: digits and symbols are read as words.
const LONGEST_PER_CHARACTER: std::time::Duration = std::time::Duration::from_secs(1);

pub(super) struct CountedSpeech {
    pub(super) link: Arc<Link>,
    pub(super) door: Arc<dyn SpeechSynthesizer>,
}

impl SpeechSynthesizer for CountedSpeech {
    fn speak(&self, request: SpeakRequest) -> Flow<SpeechChunk> {
        let characters = request.text.chars().count();
        let longest = LONGEST_PER_CHARACTER * u32::try_from(characters).unwrap_or(u32::MAX);
        let most = Used { characters, audio: longest, ..Used::default() };
        let tally = SpokenTally { characters, samples: 0, is_over: false };
        let (door, caller) = (Arc::clone(&self.door), request.caller.clone());
        watch(&self.link, caller, most, tally, move || door.speak(request))
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        self.door.voices()
    }

    fn studio(&self) -> Option<Arc<dyn VoiceStudio>> {
        self.door.studio()
    }
}

struct SpokenTally {
    characters: usize,
    samples: u64,
    is_over: bool,
}

impl Tally<SpeechChunk> for SpokenTally {
    fn see(&mut self, chunk: &SpeechChunk) -> bool {
        self.samples += chunk.audio.len().0;
        self.is_over |= chunk.last;
        chunk.last
    }

    fn used(&self, most: &Used) -> (Used, Option<Usd>) {
        if !self.is_over {
            // Whoever speaks may be far ahead of what was heard.
            return (most.clone(), None);
        }
        let audio = Samples::<SPEECH_HZ>(self.samples).duration();
        (Used { characters: self.characters, audio, ..Used::default() }, None)
    }
}

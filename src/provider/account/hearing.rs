//! Transcriptions in the books.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::books::Link;
use super::watch::{Tally, watch};
use super::{Usd, Used};
use crate::audio::{MIC_HZ, Mic, Samples};
use crate::provider::{Flow, SpeechToText, SttOptions, Transcript};

/// What is set aside for an utterance whose end nobody knows yet: as much as a remote takes in one request.
const LONGEST: Duration = Duration::from_mins(15);

pub(super) struct CountedHearing {
    pub(super) link: Arc<Link>,
    pub(super) door: Arc<dyn SpeechToText>,
}

impl SpeechToText for CountedHearing {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        let samples = Arc::new(AtomicU64::new(0));
        let heard = Arc::clone(&samples);
        let audio = audio
            .inspect(move |block| {
                heard.fetch_add(block.len().0, Ordering::Relaxed);
            })
            .boxed();
        let most = Used { audio: LONGEST, ..Used::default() };
        let (door, caller) = (Arc::clone(&self.door), options.caller.clone());
        watch(&self.link, caller, most, HeardTally { samples }, move || door.transcribe(audio, options))
    }

    fn languages(&self) -> Vec<String> {
        self.door.languages()
    }
}

struct HeardTally {
    samples: Arc<AtomicU64>,
}

impl Tally<Transcript> for HeardTally {
    fn see(&mut self, transcript: &Transcript) -> bool {
        matches!(transcript, Transcript::Final(_))
    }

    fn used(&self, _most: &Used) -> (Used, Option<Usd>) {
        let audio = Samples::<MIC_HZ>(self.samples.load(Ordering::Relaxed)).duration();
        (Used { audio, ..Used::default() }, None)
    }
}

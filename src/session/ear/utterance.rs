//! One utterance: its audio on the way to the recogniser, the transcript that is awaited, and whether to believe it.
//!
//! In a pause the recogniser is told that this was all, so that the transcript is there when the utterance ends. If the
//! speaker goes on, the transcript is dropped, the request with it, and another one hears everything again.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::doubt::Doubt;
use super::echo::Makeup;
use super::{Ear, UTTERANCE_FRAMES, Utterance};
use crate::audio::{MIC_HZ, Mic, Samples};
use crate::provider::{FinalTranscript, ProviderError, SttOptions, Transcript};
use crate::session::event::Transcription;
use crate::session::guard::guarded;
use crate::text::outlook::outlook;
use crate::text::promise::Promise;

/// Of a longer utterance the recogniser has settled the beginning and forgotten it: it is not asked anew after each
/// pause. Whisper's window, and 1.9 MB.
const LONGEST_REPEATED: Samples<MIC_HZ> = Samples::from_millis(28_000);

impl Ear {
    /// Asks the recogniser to hear what is sent, until nobody wants that any more.
    pub(super) fn listen(&mut self, item_id: String) -> (mpsc::Sender<Mic>, oneshot::Sender<()>) {
        let (frames, mut audio) = mpsc::channel(UTTERANCE_FRAMES);
        let options = SttOptions {
            model: self.settings.stt_model.clone(),
            languages: self.settings.languages.clone(),
            partials: true,
            word_times: true,
            caller: self.caller.clone(),
            ..SttOptions::default()
        };
        let audio = stream::poll_fn(move |context| audio.poll_recv(context)).boxed();
        let is_last = |item: &Transcript| matches!(item, Transcript::Final(_));
        let flow = guarded("speech recognition", || self.stt.transcribe(audio, options), is_last);
        let (wanted, unwanted) = oneshot::channel();
        self.hearing.push(flow.map(move |item| (item_id.clone(), item)).take_until(unwanted).boxed());
        (frames, wanted)
    }
}

/// The latest audio: the beginning of the next utterance.
#[derive(Default)]
pub(super) struct Recent(Vec<f32>);

impl Recent {
    /// Adds to it; so much at least is kept.
    pub(super) fn push(&mut self, samples: &[f32], kept: Samples<MIC_HZ>) {
        self.0.extend_from_slice(samples);
        let kept = kept.as_usize();
        // Cut rarely, not at every frame.
        if self.0.len() > 2 * kept {
            self.0.drain(..self.0.len() - kept);
        }
    }

    /// The last of it, or all that there is.
    pub(super) fn last(&self, length: Samples<MIC_HZ>) -> &[f32] {
        &self.0[self.0.len().saturating_sub(length.as_usize())..]
    }
}

/// The utterance that is being spoken. Its audio ends when this is dropped.
pub(super) struct Open {
    pub(super) item_id: String,
    pub(super) length: Samples<MIC_HZ>,
    /// Where it is kept.
    pub(super) audio: Option<Mic>,
    pub(super) makeup: Makeup,
    /// None: the recogniser was told that this was all.
    frames: Option<mpsc::Sender<Mic>>,
    /// All of it; None of a long one.
    spoken: Option<Vec<f32>>,
    promise: Promise,
    /// What it says as far as is known.
    text: String,
}

impl Open {
    pub(super) fn new(item_id: String, frames: mpsc::Sender<Mic>, keeps_audio: bool) -> Self {
        Self {
            item_id,
            length: Samples(0),
            audio: keeps_audio.then(Mic::default),
            makeup: Makeup::default(),
            frames: Some(frames),
            spoken: Some(Vec::new()),
            promise: Promise::default(),
            text: String::new(),
        }
    }

    pub(super) fn feed(&mut self, samples: &[f32]) {
        self.length += Samples(samples.len() as u64);
        if self.frames.is_some() && self.length > LONGEST_REPEATED {
            self.spoken = None;
        }
        if let Some(spoken) = &mut self.spoken {
            spoken.extend_from_slice(samples);
        }
        if self.frames.is_none() && self.audio.is_none() {
            return;
        }
        let samples = Mic::new(samples.to_vec());
        if let Some(audio) = &mut self.audio {
            audio.extend(&samples);
        }
        if let Some(frames) = &self.frames {
            // The channel holds the longest utterance; a recogniser that has given up has told why.
            let _ = frames.try_send(samples);
        }
    }

    /// The speaker pauses: this may have been all. A judgement where the recogniser cannot be asked.
    pub(super) fn pause(&mut self, language: Option<&String>) -> Option<Doubt> {
        if self.spoken.is_some() {
            self.frames = None;
            return None;
        }
        Some(outlook(&self.text, language.map_or("", String::as_str)).into())
    }

    /// The recogniser was told that this was all.
    pub(super) const fn is_paused(&self) -> bool {
        self.frames.is_none()
    }

    /// What another request has to hear, where the last one was told that this was all.
    pub(super) fn again(&self) -> Option<Mic> {
        let spoken = self.spoken.as_ref().filter(|_| self.is_paused())?;
        Some(Mic::new(spoken.clone()))
    }

    /// Goes on with another request, which has heard all so far.
    pub(super) fn go_on(&mut self, frames: mpsc::Sender<Mic>) {
        self.frames = Some(frames);
    }

    /// What it says so far, to be shown. It keeps what was shown as sure before.
    pub(super) fn says(&mut self, text: &str, stable_chars: usize, at: Samples<MIC_HZ>) -> Transcription {
        text.clone_into(&mut self.text);
        let (text, stable_chars) = self.promise.keep(text, stable_chars);
        let item_id = self.item_id.clone();
        Transcription { item_id, is_final: false, text, stable_chars, at, language: None, words: Vec::new() }
    }
}

/// A transcript to come. It is cancelled when this is dropped.
pub(super) struct Awaited {
    pub(super) item_id: String,
    pub(super) end: Option<End>,
    /// It came in a pause, before the end was decided.
    pub(super) early: Option<Result<FinalTranscript, ProviderError>>,
    /// Once it has ended, where it is kept.
    pub(super) audio: Option<Mic>,
    _wanted: oneshot::Sender<()>,
}

#[derive(Clone, Copy)]
pub(super) struct End {
    pub(super) decided: Instant,
    /// From the end of speech to the decision.
    pub(super) endpoint: Duration,
    pub(super) spoken: Duration,
}

impl Awaited {
    pub(super) fn new(item_id: String, wanted: oneshot::Sender<()>) -> Self {
        Self { item_id, end: None, early: None, audio: None, _wanted: wanted }
    }

    /// Drops the request for another one.
    pub(super) fn go_on(&mut self, wanted: oneshot::Sender<()>) {
        *self = Self::new(std::mem::take(&mut self.item_id), wanted);
    }
}

/// What was said, known at `at`.
pub(super) fn utterance(awaited: Awaited, transcript: FinalTranscript, at: Samples<MIC_HZ>) -> Utterance {
    let end = awaited.end.unwrap_or(End { decided: Instant::now(), endpoint: Duration::ZERO, spoken: Duration::MAX });
    Utterance {
        transcription: Transcription {
            item_id: awaited.item_id,
            is_final: true,
            stable_chars: transcript.text.chars().count(),
            text: transcript.text,
            at,
            language: Some(transcript.language),
            words: transcript.segments.into_iter().flat_map(|segment| segment.words).collect(),
        },
        ended: end.decided,
        endpoint: end.endpoint,
        spoken: end.spoken,
        stt: end.decided.elapsed(),
        served_by: transcript.served_by,
        audio: awaited.audio,
    }
}

//! The ear: finds utterances in what the microphone gives and has them transcribed while they are spoken.
//!
//! Voice activity is judged on every frame of 512 samples, and that speech began is told at once. The utterance then
//! streams to the recogniser, from a little before its onset to its end point (`endpoint`); with push-to-talk from the
//! first sample to the commit. In each pause it is transcribed as if it were over (`utterance`), for how long a pause is
//! waited out depends on the words. Positions are counted in samples received. What is not for the ear goes on to
//! `turn`, in order.

mod detector;
mod doubt;
mod echo;
mod endpoint;
mod hallucination;
mod names;
mod utterance;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::detector::Detector;
use self::doubt::{Doubt, doubt};
use self::echo::{EchoGuard, Makeup, Source};
pub use self::endpoint::LONGEST_UTTERANCE;
use self::endpoint::{Endpoint, Step};
use self::hallucination::was_said;
pub(super) use self::names::Names;
use self::utterance::{Awaited, End, Open, Recent, utterance};
use super::event::{Complaint, ErrorCode, Input, Request, Transcription};
use super::machine::Event;
use super::settings::Settings;
use crate::audio::{MIC_HZ, Mic, Samples};
use crate::provider::{Caller, FinalTranscript, ProviderError, SpeechToText, Transcript, VAD_FRAME, VoiceActivity};

/// Frames of an utterance that may wait for the recogniser: all of it, so that hearing never waits. 5.8 MB at most.
const UTTERANCE_FRAMES: usize = LONGEST_UTTERANCE.0 as usize / VAD_FRAME + 64;
/// Kept beyond the prefix: an onset that is slow to be sure of.
const ONSET: Samples<MIC_HZ> = Samples::from_millis(1000);
/// A recogniser that is silent for so long after an utterance's end has failed.
const LONGEST_SILENCE: Duration = Duration::from_secs(30);
/// Utterances whose transcripts are awaited at once. One who speaks on while so many wait is not heard.
const UTTERANCES: usize = 8;

/// Answers a `commit` that ends no utterance.
const NOTHING_TO_COMMIT: &str = "there is no audio to commit: nothing was said since the last utterance ended";

/// What the ear tells.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "few of them, each moved once")]
pub(super) enum Heard {
    /// Somebody began to speak.
    Began {
        item_id: String,
        at: Samples<MIC_HZ>,
    },
    /// And ended.
    Stopped {
        at: Samples<MIC_HZ>,
    },
    /// A push-to-talk utterance was committed.
    Committed,
    Partial(Transcription),
    /// The speaker pauses; if this was all, it was this, or nearly so.
    Drafted(Transcription),
    /// The speaker pauses; if this was all, it was this.
    Paused(Transcription),
    Final(Box<Utterance>),
    /// The utterance turned out to be nothing, or was cancelled.
    Nothing {
        item_id: String,
        at: Samples<MIC_HZ>,
    },
    Failed {
        item_id: String,
        error: ProviderError,
    },
    /// Something that cannot be done, or no longer; the ear listens on.
    Refused {
        complaint: Complaint,
        /// Of the request, where it answers one.
        reference: Option<String>,
    },
    /// Not for the ear.
    Asked(Request),
}

/// Something said.
#[derive(Clone, Debug)]
pub(super) struct Utterance {
    pub(super) transcription: Transcription,
    /// When its end was decided.
    pub(super) ended: Instant,
    /// From the end of speech to that decision, in samples received.
    pub(super) endpoint: Duration,
    /// How long it was loud, by the detector; a push-to-talk one's is not known, and is zero.
    pub(super) spoken: Duration,
    /// From that decision to the transcript.
    pub(super) stt: Duration,
    pub(super) served_by: Arc<str>,
    /// Where recordings are kept.
    pub(super) audio: Option<Mic>,
}

/// The room's state.
pub(super) struct Ear {
    stt: Arc<dyn SpeechToText>,
    /// What patches are checked by. None: whoever they name is known.
    names: Option<Names>,
    activity: Detector,
    echoes: EchoGuard,
    settings: Settings,
    caller: Caller,
    new_id: fn() -> String,
    /// Utterances are told with their audio.
    keeps_audio: bool,
    /// No utterance gets longer.
    longest: Samples<MIC_HZ>,
    endpoint: Endpoint,
    /// All that was received, but for `rest`.
    received: Samples<MIC_HZ>,
    /// Less than a frame.
    rest: Vec<f32>,
    /// Up to `received`.
    recent: Recent,
    open: Option<Open>,
    /// Utterances whose transcripts are awaited, the open one among them.
    awaited: Vec<Awaited>,
    /// A push-to-talk utterance was refused: what is said until its commit is not heard, and that was told once.
    refused: bool,
    hearing: SelectAll<BoxStream<'static, (String, Result<Transcript, ProviderError>)>>,
    told: Vec<Heard>,
}

impl Ear {
    pub(super) fn new(
        stt: Arc<dyn SpeechToText>,
        activity: Arc<dyn VoiceActivity>,
        settings: Settings,
        caller: Caller,
        new_id: fn() -> String,
        keeps_audio: bool,
    ) -> Self {
        Self {
            stt,
            names: None,
            activity: Detector::new(activity),
            echoes: EchoGuard::default(),
            endpoint: Endpoint::new(&settings, Samples(0), LONGEST_UTTERANCE),
            settings,
            caller,
            new_id,
            keeps_audio,
            longest: LONGEST_UTTERANCE,
            received: Samples(0),
            rest: Vec::new(),
            recent: Recent::default(),
            open: None,
            awaited: Vec::new(),
            refused: false,
            hearing: SelectAll::new(),
            told: Vec::new(),
        }
    }

    /// With shorter utterances than [`LONGEST_UTTERANCE`].
    pub(super) fn bounded(mut self, longest: Duration) -> Self {
        self.longest = Samples::from_millis(longest.as_millis() as u64).min(LONGEST_UTTERANCE);
        self.endpoint = Endpoint::new(&self.settings, self.received, self.longest);
        self
    }

    /// Listens until the inbox closes or nobody is left to tell.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>, turn: mpsc::Sender<Event>) {
        loop {
            let deadline = self.awaited.iter().filter_map(|it| it.end).map(|end| end.decided + LONGEST_SILENCE).min();
            tokio::select! {
                biased;
                Some((item_id, item)) = self.hearing.next() => self.transcribed(&item_id, item),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.give_up(),
                true = self.echoes.listen() => {}
                request = inbox.recv() => match request {
                    Some(request) => self.take(request),
                    None => return,
                },
            }
            for heard in self.told.drain(..) {
                if turn.send(Event::Heard(heard)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn take(&mut self, request: Request) {
        self.note(&request.input);
        match &request.input {
            Input::Audio(audio) => self.hear(audio),
            Input::Commit => {
                if self.settings.vad.is_some() && self.open.is_some() {
                    self.told.push(Heard::Committed);
                }
                if !self.commit() {
                    self.refuse(ErrorCode::BadAudio, NOTHING_TO_COMMIT.to_owned(), request.reference);
                }
            }
            input if let Err(complaint) = self.check(input) => {
                self.told.push(Heard::Refused { complaint, reference: request.reference });
            }
            Input::CancelInput => self.cancel(),
            Input::Settings(patch) => {
                // A patch that cannot be is refused by `turn`, which applies it too.
                if let Ok(settings) = self.settings.patched(patch) {
                    self.set(settings);
                }
                self.told.push(Heard::Asked(request));
            }
            _ => self.told.push(Heard::Asked(request)),
        }
    }

    fn refuse(&mut self, code: ErrorCode, message: String, reference: Option<String>) {
        let complaint = Complaint { code, message, retryable: false, item_id: None };
        self.told.push(Heard::Refused { complaint, reference });
    }

    fn set(&mut self, settings: Settings) {
        if self.settings.vad.is_some() != settings.vad.is_some() {
            self.commit();
            self.endpoint = Endpoint::new(&settings, self.received, self.longest);
        }
        self.endpoint.set(&settings);
        self.settings = settings;
    }

    fn hear(&mut self, audio: &Mic) {
        self.rest.extend_from_slice(audio.as_slice());
        let samples = std::mem::take(&mut self.rest);
        let (frames, rest) = samples.as_chunks::<VAD_FRAME>();
        for frame in frames {
            self.hear_frame(frame);
        }
        self.rest = rest.to_vec();
    }

    fn hear_frame(&mut self, frame: &[f32; VAD_FRAME]) {
        let began = self.received;
        self.received += Samples(VAD_FRAME as u64);
        let prefix = self.settings.vad.map_or(0, |vad| vad.prefix_ms);
        self.recent.push(frame, Samples::from_millis(prefix) + ONSET);
        let Some(vad) = self.settings.vad else {
            if self.open.is_some() {
                self.feed(frame);
            } else if !self.refused {
                self.refused = self.open(began).is_none();
            }
            if self.open.as_ref().is_some_and(|open| open.length >= self.longest) {
                self.commit();
            }
            return;
        };
        self.feed(frame);
        let probability = self.activity.score(frame).unwrap_or_else(|error| {
            self.told.push(Heard::Refused { complaint: Complaint::of(&error, None), reference: None });
            0.0
        });
        let source = self.echoes.hear(frame);
        if let Some(open) = self.open.as_mut().filter(|_| probability >= vad.threshold) {
            open.makeup.add(source);
            if open.makeup.is_echo() {
                let began = self.endpoint.forget();
                self.drop_utterance(began);
            }
        }
        if let Some(step) = self.endpoint.push(if source == Source::Echo { 0.0 } else { probability }) {
            self.step(step);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Began { at } => {
                if let Some(item_id) = self.open(at) {
                    self.told.push(Heard::Began { item_id, at });
                }
            }
            Step::Paused => self.pause(),
            Step::Resumed => self.resume(),
            Step::Ended { at } => self.stop(at),
        }
    }

    fn pause(&mut self) {
        let Some(open) = &mut self.open else { return };
        let doubt = open.pause(self.settings.languages.first());
        // Of one whose recogniser has failed no words will come.
        let is_lost = find(&mut self.awaited, &open.item_id).is_none();
        if let Some(doubt) = doubt.or(is_lost.then_some(Doubt::UNHEARD)) {
            self.understood(doubt);
        }
    }

    fn understood(&mut self, doubt: Doubt) {
        if let Some(step) = self.endpoint.understood(doubt) {
            self.step(step);
        }
    }

    /// Opens an utterance that began at `at`. None, and an error told, where too many are awaited.
    fn open(&mut self, at: Samples<MIC_HZ>) -> Option<String> {
        let item_id = (self.new_id)();
        if self.awaited.len() >= UTTERANCES {
            let error =
                ProviderError::Overloaded { what: "speech recognition".to_owned(), retry_after: LONGEST_SILENCE };
            self.told.push(Heard::Failed { item_id, error });
            return None;
        }
        let (frames, wanted) = self.listen(item_id.clone());
        self.awaited.push(Awaited::new(item_id.clone(), wanted));
        self.open = Some(Open::new(item_id.clone(), frames, self.keeps_audio));
        let beginning = self.recent.last(self.received.saturating_sub(at)).to_vec();
        self.feed(&beginning);
        Some(item_id)
    }

    /// The speaker goes on: what was made of the pause is dropped.
    fn resume(&mut self) {
        let Some(item_id) = self.open.as_ref().map(|open| open.item_id.clone()) else { return };
        if find(&mut self.awaited, &item_id).is_none() {
            return;
        }
        let Some(again) = self.open.as_ref().and_then(Open::again) else { return };
        let (frames, wanted) = self.listen(item_id.clone());
        // In one block, by which the recogniser knows that it was spoken before.
        let _ = frames.try_send(again);
        if let (Some(awaited), Some(open)) = (find(&mut self.awaited, &item_id), &mut self.open) {
            awaited.go_on(wanted);
            open.go_on(frames);
        }
    }

    fn feed(&mut self, samples: &[f32]) {
        if let Some(open) = &mut self.open {
            open.feed(samples);
        }
    }

    /// The speech ended at `at`; that it did is decided now.
    fn stop(&mut self, at: Samples<MIC_HZ>) {
        self.told.push(Heard::Stopped { at });
        self.close(self.received.saturating_sub(at).duration());
    }

    fn close(&mut self, endpoint: Duration) {
        let Some(open) = self.open.take() else { return };
        let Some(awaited) = find(&mut self.awaited, &open.item_id) else { return };
        awaited.end = Some(End { decided: Instant::now(), endpoint, spoken: open.makeup.spoken() });
        awaited.audio = open.audio;
        if let Some(early) = awaited.early.take() {
            self.deliver(&open.item_id, early);
        }
    }

    /// Ends the utterance. False: there is none, nor one whose refusal was told.
    fn commit(&mut self) -> bool {
        let refused = std::mem::take(&mut self.refused);
        if self.settings.vad.is_some() {
            let is_spoken = self.endpoint.commit();
            if is_spoken {
                self.stop(self.received);
            }
            is_spoken
        } else if self.open.is_some() {
            let rest = std::mem::take(&mut self.rest);
            self.received += Samples(rest.len() as u64);
            self.feed(&rest);
            self.told.push(Heard::Committed);
            self.close(Duration::ZERO);
            true
        } else {
            refused
        }
    }

    fn cancel(&mut self) {
        if self.open.is_some() {
            let stopped = self.endpoint.commit().then_some(self.received);
            self.drop_utterance(stopped);
        }
    }

    /// What was told of it so far is taken back.
    fn drop_utterance(&mut self, stopped: Option<Samples<MIC_HZ>>) {
        let Some(open) = self.open.take() else { return };
        self.told.extend(stopped.map(|at| Heard::Stopped { at }));
        if let Some(awaited) = self.no_longer(&open.item_id) {
            self.told.push(Heard::Nothing { item_id: awaited.item_id, at: self.received });
        }
    }

    fn no_longer(&mut self, item_id: &str) -> Option<Awaited> {
        let place = self.awaited.iter().position(|awaited| awaited.item_id == item_id)?;
        Some(self.awaited.swap_remove(place))
    }

    fn transcribed(&mut self, item_id: &str, item: Result<Transcript, ProviderError>) {
        let open = self.open.as_ref().filter(|open| open.item_id == item_id);
        match (item, open) {
            (Ok(Transcript::Partial { text, stable_chars, .. }), Some(_)) => {
                self.tell_words(Heard::Partial, &text, stable_chars, Makeup::may_be_echo);
            }
            // How it ends is known before its last word is: the pause is judged already.
            (Ok(Transcript::Draft(draft)), Some(open)) if open.is_paused() && was_said(&draft) => {
                self.tell_words(Heard::Drafted, &draft.text, 0, Makeup::is_likely_echo);
                self.understood(doubt(&draft));
            }
            // The end is decided; the whole comes next.
            (Ok(Transcript::Partial { .. } | Transcript::Draft(_)), _) => {}
            (Ok(Transcript::Final(transcript)), Some(open)) if open.is_paused() => {
                if was_said(&transcript) {
                    self.tell_words(Heard::Paused, &transcript.text, 0, Makeup::is_likely_echo);
                }
                let doubt = doubt(&transcript);
                self.transcribed_early(item_id, Ok(transcript), doubt);
            }
            (Err(error), Some(open)) if open.is_paused() => {
                self.transcribed_early(item_id, Err(error), Doubt::UNHEARD);
            }
            (Ok(Transcript::Final(transcript)), _) => self.deliver(item_id, Ok(transcript)),
            (Err(error), _) => self.deliver(item_id, Err(error)),
        }
    }

    /// Tells what the open utterance says so far, unless it is `held` back.
    fn tell_words(
        &mut self,
        heard: fn(Transcription) -> Heard,
        text: &str,
        stable_chars: usize,
        held: fn(Makeup) -> bool,
    ) {
        let Some(open) = &mut self.open else { return };
        let words = open.says(text, stable_chars, self.received);
        if !held(open.makeup) {
            self.told.push(heard(words));
        }
    }

    /// A pause is transcribed, which may be the end.
    fn transcribed_early(&mut self, item_id: &str, outcome: Result<FinalTranscript, ProviderError>, doubt: Doubt) {
        if let Some(awaited) = find(&mut self.awaited, item_id) {
            awaited.early = Some(outcome);
        }
        self.understood(doubt);
    }

    /// An utterance is over and transcribed.
    fn deliver(&mut self, item_id: &str, outcome: Result<FinalTranscript, ProviderError>) {
        let Some(awaited) = self.no_longer(item_id) else { return };
        self.told.push(match outcome {
            Ok(transcript) if was_said(&transcript) => {
                Heard::Final(Box::new(utterance(awaited, transcript, self.received)))
            }
            Ok(_) => Heard::Nothing { item_id: awaited.item_id, at: self.received },
            Err(error) => Heard::Failed { item_id: awaited.item_id, error },
        });
    }

    fn give_up(&mut self) {
        let now = Instant::now();
        let late = |awaited: &Awaited| awaited.end.is_some_and(|end| end.decided + LONGEST_SILENCE <= now);
        let error = ProviderError::TimedOut { what: "speech recognition".to_owned(), after: LONGEST_SILENCE };
        for awaited in self.awaited.extract_if(.., |awaited| late(awaited)) {
            self.told.push(Heard::Failed { item_id: awaited.item_id, error: error.clone() });
        }
    }
}

fn find<'a>(awaited: &'a mut [Awaited], item_id: &str) -> Option<&'a mut Awaited> {
    awaited.iter_mut().find(|awaited| awaited.item_id == item_id)
}

#[cfg(test)]
mod tests;

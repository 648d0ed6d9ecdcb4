//! A text of any length, spoken: cut into sentences, each asked of the speech door while the one before is sent.
//!
//! The audio comes in the order of the sentences, from the first one on; they are one story of one voice. Speeds that no
//! engine has are made of the nearest it has and a change of speed at the same pitch. Dropping the audio cancels what is
//! being generated.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::time::sleep;
use uuid::Uuid;

use crate::audio::{SPEECH_HZ, Speech, Stretch};
use crate::provider::{
    Caller, Flow, ProviderError, SpeakRequest, SpeechChunk, SpeechSynthesizer, StoryId, Urgency, at_once,
};
use crate::text::{Chunker, speakable};

/// Characters of a text: ten minutes and more. OpenAI takes 4096.
pub(super) const LONGEST_TEXT: usize = 10_000;
/// What may be asked for, as OpenAI's.
pub(super) const SPEEDS: std::ops::RangeInclusive<f32> = 0.25..=4.0;
/// What every engine can do by itself.
const ENGINE_SPEEDS: (f32, f32) = (0.5, 2.0);
/// A later sentence that finds the door full is asked for again so often: what was sent already should not be in vain.
const ATTEMPTS: usize = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What to say, and how.
#[derive(Clone, Debug)]
pub(super) struct Script {
    pub(super) text: String,
    pub(super) voice: Option<String>,
    pub(super) speed: f32,
    pub(super) model: Option<String>,
    pub(super) urgency: Urgency,
    pub(super) caller: Caller,
}

/// A text that is being spoken.
pub(super) struct Narration {
    pub(super) served_by: Arc<str>,
    /// In order; an error is its last item.
    pub(super) audio: BoxStream<'static, Result<Speech, ProviderError>>,
}

/// Begins to speak, and waits for the first audio. `field` is the text's name in the request.
///
/// # Errors
/// What the request or the door is at fault for, before anything was said.
pub(super) async fn narrate(
    speech: &Arc<dyn SpeechSynthesizer>,
    script: Script,
    field: &'static str,
) -> Result<Narration, ProviderError> {
    let invalid = |field, message: String| Err(ProviderError::InvalidRequest { field, message });
    let length = script.text.chars().count();
    if length > LONGEST_TEXT {
        return invalid(field, format!("it has {length} characters; at most {LONGEST_TEXT} are allowed"));
    }
    if !SPEEDS.contains(&script.speed) {
        let message = format!("{} is not between {} and {}", script.speed, SPEEDS.start(), SPEEDS.end());
        return invalid("speed", message);
    }
    let mut reader = Reader::new(Arc::clone(speech), script);
    match reader.next().await {
        Some(first) => {
            let (served_by, audio) = first?;
            let rest = stream::unfold(Some(reader), |reader| async {
                let mut reader = reader?;
                let audio = reader.next().await?.map(|(_, audio)| audio);
                let going_on = audio.is_ok().then_some(reader);
                Some((audio, going_on))
            });
            Ok(Narration { served_by, audio: stream::once(async { Ok(audio) }).chain(rest).boxed() })
        }
        None => invalid(field, "there is nothing in it that can be said".to_owned()),
    }
}

struct Reader {
    speech: Arc<dyn SpeechSynthesizer>,
    /// Every sentence's request but for its text.
    request: SpeakRequest,
    /// Sentences that are generated at once.
    at_once: usize,
    waiting: VecDeque<String>,
    speaking: VecDeque<Sentence>,
    stretch: Option<Stretch<SPEECH_HZ>>,
    served_by: Arc<str>,
    /// Something was said.
    begun: bool,
}

/// A sentence that is being generated.
struct Sentence {
    text: String,
    flow: Flow<SpeechChunk>,
    /// Its first chunk came.
    begun: bool,
    attempts: usize,
}

impl Reader {
    fn new(speech: Arc<dyn SpeechSynthesizer>, script: Script) -> Self {
        let voice = script.voice.as_deref();
        let voices = speech.voices();
        let language = voices.iter().find(|known| Some(known.name.as_str()) == voice);
        let waiting = sentences(&script.text, language.map_or("en", |voice| voice.language.as_str()));
        let engine_speed = script.speed.clamp(ENGINE_SPEEDS.0, ENGINE_SPEEDS.1);
        let rest = script.speed / engine_speed;
        let request = SpeakRequest {
            voice: script.voice,
            speed: engine_speed,
            urgency: script.urgency,
            model: script.model,
            story: Some(StoryId::Text(Uuid::now_v7().to_string().into())),
            caller: script.caller,
            ..SpeakRequest::default()
        };
        Self {
            speech,
            request,
            at_once: at_once(&voices),
            waiting,
            speaking: VecDeque::new(),
            stretch: ((engine_speed - script.speed).abs() > f32::EPSILON).then(|| Stretch::new(rest)),
            served_by: "".into(),
            begun: false,
        }
    }

    /// The next audio that is not empty; None at the end.
    async fn next(&mut self) -> Option<Result<(Arc<str>, Speech), ProviderError>> {
        loop {
            while self.speaking.len() < self.at_once
                && let Some(text) = self.waiting.pop_front()
            {
                let flow = self.speak(&text);
                self.speaking.push_back(Sentence { text, flow, begun: false, attempts: 1 });
            }
            let Some(sentence) = self.speaking.front_mut() else {
                let tail = self.stretch.take()?.finish();
                return (!tail.is_empty()).then(|| Ok((Arc::clone(&self.served_by), tail)));
            };
            let chunk = match sentence.flow.next().await {
                Some(Ok(chunk)) => chunk,
                Some(Err(ProviderError::Overloaded { retry_after, .. }))
                    if self.begun && !sentence.begun && sentence.attempts < ATTEMPTS =>
                {
                    sleep(retry_after.min(LONGEST_PAUSE)).await;
                    self.ask_again();
                    continue;
                }
                Some(Err(error)) => return Some(Err(error)),
                None => return Some(Err(ProviderError::Failed { what: "the speech model".to_owned() })),
            };
            sentence.begun = true;
            if chunk.last {
                self.speaking.pop_front();
            }
            self.served_by = chunk.served_by;
            let audio = match &mut self.stretch {
                Some(stretch) => stretch.push(&chunk.audio),
                None => chunk.audio,
            };
            if !audio.is_empty() {
                self.begun = true;
                return Some(Ok((Arc::clone(&self.served_by), audio)));
            }
        }
    }

    fn speak(&mut self, text: &str) -> Flow<SpeechChunk> {
        let flow = self.speech.speak(SpeakRequest { text: text.to_owned(), ..self.request.clone() });
        // Only the first one is waited for in silence.
        self.request.urgency = Urgency::Later;
        flow
    }

    fn ask_again(&mut self) {
        if let Some(Sentence { text, attempts, .. }) = self.speaking.pop_front() {
            let flow = self.speak(&text);
            self.speaking.push_front(Sentence { text, flow, begun: false, attempts: attempts + 1 });
        }
    }
}

/// What is to be said, in the pieces in which it is spoken.
fn sentences(text: &str, language: &str) -> VecDeque<String> {
    let mut chunker = Chunker::default();
    let mut pieces = chunker.push(text);
    pieces.extend(chunker.finish());
    let spoken = pieces.into_iter().filter_map(|piece| piece.whole).map(|whole| speakable(&whole, language));
    spoken.filter(|text| !text.is_empty()).collect()
}

//! A recogniser elsewhere: `/audio/transcriptions` and `/audio/translations`, asked once the utterance is over.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::RequestBuilder;
use reqwest::multipart::{Form, Part};
use serde::Deserialize;
use tokio::time::Instant;

use super::flow::{flow, refused};
use super::service::{Service, Target};
use crate::audio::{Mic, Samples, wav};
use crate::provider::{
    FinalTranscript, Flow, ProviderError, Segment, SpeechToText, SttOptions, SttTask, Transcript, Word,
};

/// What OpenAI takes, in bytes of a WAV file: 13 minutes.
const LARGEST_FILE: usize = 25_000_000;
/// What is shorter holds no word, and services refuse it.
const SHORTEST: Samples<16_000> = Samples::from_millis(100);
/// Of the audio's length, by how much longer its upload and its transcription may take.
const PER_AUDIO: u32 = 4;
/// Of a language that nobody told: ISO 639's code for undetermined.
const UNDETERMINED: &str = "und";

/// A [`SpeechToText`] of a service.
pub struct RemoteTranscriber {
    target: Target,
}

impl RemoteTranscriber {
    /// `model` as the service names it.
    pub fn new(service: Service, model: &str) -> Self {
        Self { target: Target::new(service, model) }
    }
}

impl SpeechToText for RemoteTranscriber {
    /// There are no partial transcripts: services that send them begin when the utterance is over.
    fn transcribe(&self, audio: BoxStream<'static, Mic>, options: SttOptions) -> Flow<Transcript> {
        let target = self.target.clone();
        let unknown = options.languages.iter().find(|code| !LANGUAGES.iter().any(|(known, _)| known == code));
        if let Some(language) = unknown {
            let what = target.what.to_string();
            return refused(ProviderError::LanguageUnsupported { language: language.clone(), what });
        }
        match target.admit(&options.caller) {
            Ok(()) => flow("remote transcription", target.what.clone(), |_| transcribe(target, audio, options)),
            Err(error) => refused(error),
        }
    }

    fn languages(&self) -> Vec<String> {
        LANGUAGES.iter().map(|(code, _)| (*code).to_owned()).collect()
    }
}

async fn transcribe(
    target: Target,
    audio: BoxStream<'static, Mic>,
    options: SttOptions,
) -> Result<Transcript, ProviderError> {
    let heard = collect(audio).await?;
    let ended = Instant::now();
    let answer = if heard.len() < SHORTEST {
        Answer::default()
    } else {
        let form = Question { file: wav::encode(&heard).into(), target: &target, options: &options };
        let path = if options.task == SttTask::Translate { "audio/translations" } else { "audio/transcriptions" };
        let first_byte = target.bounds().first_byte + heard.duration() / PER_AUDIO;
        let body = target.send(path, first_byte, &options.caller, |request| form.fill(request)).await?;
        let answer = target.json(body).await?;
        serde_json::from_value(answer).map_err(|_| {
            tracing::warn!(what = %target.what, "the answer is no transcript");
            target.failed()
        })?
    };
    let text = answer.text.trim().to_owned();
    Ok(Transcript::Final(FinalTranscript {
        language: answer.language(&options),
        segments: answer.segments(&text, heard.duration()),
        text,
        audio: heard.duration(),
        latency: ended.elapsed(),
        ending: None,
        served_by: target.what,
    }))
}

async fn collect(mut audio: BoxStream<'static, Mic>) -> Result<Mic, ProviderError> {
    let mut heard = Mic::default();
    while let Some(piece) = audio.next().await {
        heard.extend(&piece);
        if heard.len().as_usize() * 2 + wav::HEADER_BYTES > LARGEST_FILE {
            let message = "a remote service takes at most 13 minutes at once; send it in parts".to_owned();
            return Err(ProviderError::InvalidRequest { field: "file", message });
        }
    }
    Ok(heard)
}

/// What is asked, ready to be asked again.
struct Question<'a> {
    file: Bytes,
    target: &'a Target,
    options: &'a SttOptions,
}

impl Question<'_> {
    fn fill(&self, request: RequestBuilder) -> RequestBuilder {
        let options = self.options;
        let file = Part::stream_with_length(self.file.clone(), self.file.len() as u64).file_name("utterance.wav");
        let mut form = Form::new().part("file", file).text("model", self.target.model.to_string());
        let verbose = takes_verbose(&self.target.model);
        form = form.text("response_format", if verbose { "verbose_json" } else { "json" });
        if let Some(prompt) = &options.prompt {
            form = form.text("prompt", prompt.clone());
        }
        if options.temperature > 0.0 {
            form = form.text("temperature", options.temperature.to_string());
        }
        if options.task == SttTask::Transcribe {
            if let [language] = options.languages.as_slice() {
                form = form.text("language", language.clone());
            }
            if verbose && options.word_times {
                form = form.text("timestamp_granularities[]", "word");
            }
            if verbose {
                form = form.text("timestamp_granularities[]", "segment");
            }
        }
        request.multipart(form)
    }
}

/// OpenAI's later models refuse to tell times; Whisper does not, wherever it runs.
fn takes_verbose(model: &str) -> bool {
    model.to_ascii_lowercase().contains("whisper")
}

/// Of either format.
#[derive(Default, Deserialize)]
struct Answer {
    text: String,
    language: Option<String>,
    segments: Option<Vec<WireSegment>>,
    words: Option<Vec<WireWord>>,
}

#[derive(Deserialize)]
struct WireSegment {
    text: String,
    start: f64,
    end: f64,
    avg_logprob: Option<f32>,
    no_speech_prob: Option<f32>,
}

#[derive(Deserialize)]
struct WireWord {
    word: String,
    start: f64,
    end: f64,
}

impl Answer {
    /// ISO 639-1 of what the service says, or else of what was asked.
    fn language(&self, options: &SttOptions) -> String {
        let said = self.language.as_deref().unwrap_or_default().to_ascii_lowercase();
        // OpenAI writes names, others codes.
        let code = LANGUAGES.iter().find(|(code, name)| *code == said || *name == said).map(|(code, _)| *code);
        let asked = match (options.task, options.languages.as_slice()) {
            (SttTask::Transcribe, [language]) => Some(language.as_str()),
            _ => None,
        };
        code.or(asked).unwrap_or(UNDETERMINED).to_owned()
    }

    fn segments(self, text: &str, length: Duration) -> Vec<Segment> {
        if text.is_empty() {
            return Vec::new();
        }
        let at = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default().min(length);
        let segment = |segment: WireSegment| Segment {
            text: segment.text.trim().to_owned(),
            start: at(segment.start),
            end: at(segment.end.max(segment.start)),
            words: Vec::new(),
            log_probability: segment.avg_logprob.unwrap_or(0.0),
            no_speech: segment.no_speech_prob.unwrap_or(0.0),
        };
        let mut segments: Vec<_> = self.segments.unwrap_or_default().into_iter().map(segment).collect();
        segments.sort_by_key(|segment| segment.start);
        if segments.is_empty() {
            let text = text.to_owned();
            let (log_probability, no_speech) = (0.0, 0.0);
            let words = Vec::new();
            segments = vec![Segment { text, start: Duration::ZERO, end: length, words, log_probability, no_speech }];
        }
        for word in self.words.unwrap_or_default() {
            let (start, end) = (at(word.start), at(word.end.max(word.start)));
            // In the segment that it begins in; what begins between two belongs to the former.
            let place = segments.partition_point(|segment| segment.start <= start).saturating_sub(1);
            segments[place].words.push(Word { text: word.word.trim().to_owned(), start, end });
        }
        segments
    }
}

/// Whisper's languages: codes of ISO 639 and the names that its service answers with.
const LANGUAGES: &[(&str, &str)] = &[
    ("af", "afrikaans"),
    ("am", "amharic"),
    ("ar", "arabic"),
    ("as", "assamese"),
    ("az", "azerbaijani"),
    ("ba", "bashkir"),
    ("be", "belarusian"),
    ("bg", "bulgarian"),
    ("bn", "bengali"),
    ("bo", "tibetan"),
    ("br", "breton"),
    ("bs", "bosnian"),
    ("ca", "catalan"),
    ("cs", "czech"),
    ("cy", "welsh"),
    ("da", "danish"),
    ("de", "german"),
    ("el", "greek"),
    ("en", "english"),
    ("es", "spanish"),
    ("et", "estonian"),
    ("eu", "basque"),
    ("fa", "persian"),
    ("fi", "finnish"),
    ("fo", "faroese"),
    ("fr", "french"),
    ("gl", "galician"),
    ("gu", "gujarati"),
    ("ha", "hausa"),
    ("haw", "hawaiian"),
    ("he", "hebrew"),
    ("hi", "hindi"),
    ("hr", "croatian"),
    ("ht", "haitian creole"),
    ("hu", "hungarian"),
    ("hy", "armenian"),
    ("id", "indonesian"),
    ("is", "icelandic"),
    ("it", "italian"),
    ("ja", "japanese"),
    ("jw", "javanese"),
    ("ka", "georgian"),
    ("kk", "kazakh"),
    ("km", "khmer"),
    ("kn", "kannada"),
    ("ko", "korean"),
    ("la", "latin"),
    ("lb", "luxembourgish"),
    ("ln", "lingala"),
    ("lo", "lao"),
    ("lt", "lithuanian"),
    ("lv", "latvian"),
    ("mg", "malagasy"),
    ("mi", "maori"),
    ("mk", "macedonian"),
    ("ml", "malayalam"),
    ("mn", "mongolian"),
    ("mr", "marathi"),
    ("ms", "malay"),
    ("mt", "maltese"),
    ("my", "myanmar"),
    ("ne", "nepali"),
    ("nl", "dutch"),
    ("nn", "nynorsk"),
    ("no", "norwegian"),
    ("oc", "occitan"),
    ("pa", "punjabi"),
    ("pl", "polish"),
    ("ps", "pashto"),
    ("pt", "portuguese"),
    ("ro", "romanian"),
    ("ru", "russian"),
    ("sa", "sanskrit"),
    ("sd", "sindhi"),
    ("si", "sinhala"),
    ("sk", "slovak"),
    ("sl", "slovenian"),
    ("sn", "shona"),
    ("so", "somali"),
    ("sq", "albanian"),
    ("sr", "serbian"),
    ("su", "sundanese"),
    ("sv", "swedish"),
    ("sw", "swahili"),
    ("ta", "tamil"),
    ("te", "telugu"),
    ("tg", "tajik"),
    ("th", "thai"),
    ("tk", "turkmen"),
    ("tl", "tagalog"),
    ("tr", "turkish"),
    ("tt", "tatar"),
    ("uk", "ukrainian"),
    ("ur", "urdu"),
    ("uz", "uzbek"),
    ("vi", "vietnamese"),
    ("yi", "yiddish"),
    ("yo", "yoruba"),
    ("yue", "cantonese"),
    ("zh", "chinese"),
];

#[cfg(test)]
#[path = "transcription_tests.rs"]
mod tests;

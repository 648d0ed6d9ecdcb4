//! One window of audio to text: how much of it to encode, which language, which search, and what to do when the
//! result is bad. Owns the model; knows no session and no channel.

use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::decode::{self, Ask, Strategy, Written};
use super::rules;
use super::segments;
use super::tokens::{Mark, Tokens};
use super::words::{self, TimedWord};
use crate::audio::MIC_HZ;
use crate::nn::whisper::{
    Attended, Check, HOP, Heard, MelFrontEnd, WINDOW_FRAMES, WINDOW_SAMPLES, Whisper, log_sum_exp,
};
use crate::provider::{Ending, Segment, SttTask, VAD_FRAME, VoiceActivity, Word};
use crate::text::word_count;

/// Hypotheses of the final search. Two find what greedy search misses; with the audio's context cut, more of them find
/// likely repetitions ("five five five") rather than better words.
const BEAM: usize = 2;
/// Hypotheses where all 30 s are heard, as in the reference.
const WIDE_BEAM: usize = 5;
/// Encoder positions heard beyond the audio's end. Without some silence after the last word Whisper does not stop.
const MARGIN: usize = 96;
/// OpenAI's thresholds: below this mean log probability a result is bad, above this probability there is no speech.
const LEAST_LOG_PROBABILITY: f32 = -1.0;
const NO_SPEECH: f32 = 0.6;
/// Where there is probably no speech, text has to be likelier than this: what Whisper makes of noise ("thanks for
/// watching") is around -0.9, where the reference's one threshold lets it pass.
const LEAST_WITHOUT_SPEECH: f32 = -0.5;
/// Text less certain than one of these is asked about: is there a voice at all?
const DOUBTFUL_NO_SPEECH: f32 = 0.2;
const DOUBTFUL_LOG_PROBABILITY: f32 = -0.7;
/// A guess of fewer words, where there is more likely no speech than this, is not shown.
const MURMUR_WORDS: usize = 3;
const MURMUR_NO_SPEECH: f32 = 0.5;
/// Score of a frame with a voice in it, and how many such frames of 32 ms make speech.
const VOICE: f32 = 0.5;
const VOICED_FRAMES: usize = 3;
/// Tried in order until a result is good.
const TEMPERATURES: [f32; 5] = [0.2, 0.4, 0.6, 0.8, 1.0];
/// Greedy search is believed where no word is less likely than this: where one is, two hypotheses find better ones.
const CERTAIN_LOG_PROBABILITY: f32 = -1.0;
/// Whoever sounds louder than this for 20 ms may have spoken: -66 dB of full scale.
const AUDIBLE: f32 = 5e-4;
/// Tokens of a window: speech in any language has fewer a second, a loop has more.
const TOKENS_AT_LEAST: usize = 24;
const TOKENS_PER_SECOND: f64 = 14.0;
/// Half the decoder's context is for what came before, as in the reference.
const PROMPT_TOKENS: usize = 223;
const LONGEST: usize = 224;

/// The model with all that is needed to use it.
pub(super) struct Listener {
    pub(super) whisper: Whisper,
    pub(super) tokens: Tokens,
    pub(super) mel: MelFrontEnd,
    /// A second opinion on whether anybody speaks.
    pub(super) voice_activity: Option<Arc<dyn VoiceActivity>>,
}

/// What is known before a window is heard.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    /// Language codes to choose from; empty for all.
    pub(super) languages: Vec<String>,
    pub(super) task: SttTask,
    /// Tokens that came before, or words to expect. What earlier windows held is not among them: after text that repeats
    /// itself the model skips what it has just read.
    pub(super) previous: Vec<u32>,
    /// Of the first attempt.
    pub(super) temperature: f32,
    pub(super) word_times: bool,
    /// Whether to tell what could come next.
    pub(super) ending: bool,
    /// Somebody waits. What was written for the beginning of the same window is probably right.
    pub(super) draft: Option<Vec<u32>>,
}

/// What a window holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    pub(super) language: String,
    pub(super) segments: Vec<Segment>,
    /// How many tokens its text has.
    pub(super) tokens: usize,
    /// Samples that are settled; the next window begins after them.
    pub(super) settled: usize,
    /// Probability that the window holds no speech, and mean log probability of what was written.
    pub(super) no_speech: f32,
    pub(super) mean_log_probability: f32,
    /// Where it was asked for.
    pub(super) ending: Option<Ending>,
}

/// What was probably said, and as it was written. Empty: nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Guess {
    pub(super) text: String,
    pub(super) tokens: Vec<u32>,
}

/// An encoded window.
struct Encoded {
    heard: Heard,
    whole: bool,
}

impl Listener {
    /// Hears the window that begins with `samples` for good. `start` is where that is in the whole audio. What somebody
    /// waits for is given to `early` where it may be written better yet.
    pub(super) fn settle(
        &self,
        samples: &[f32],
        start: Duration,
        context: &Context,
        check: Check,
        early: impl FnOnce(Window),
    ) -> candle_core::Result<Option<Window>> {
        if !is_audible(samples) {
            return Ok(Some(silent(samples)));
        }
        let Some(encoded) = self.encode(samples, false, check)? else { return Ok(None) };
        let language = self.choose_language(&encoded.heard, context)?;
        if let Some(draft) = context.draft.as_ref().filter(|_| context.temperature <= 0.0) {
            let ask = self.ask(seconds(samples.len()), &language, context);
            let written = decode::follow(&self.whisper, &self.tokens, &encoded.heard, &ask, draft, check)?;
            let Some(written) = written else { return Ok(None) };
            if !is_bad(&written) && !written.doubled {
                let window = self.window(&encoded.heard, &written, &language, context, (samples, start))?;
                if written.least_log_probability >= CERTAIN_LOG_PROBABILITY {
                    return Ok(Some(window));
                }
                // What is cut off would say more.
                let is_whole = window.settled >= samples.len();
                if context.ending && is_whole && !is_murmur(&self.tokens.decode(&written.tokens), &written) {
                    early(window);
                }
            }
        }
        let Some((heard, written)) = self.search(samples, encoded, &language, context, check)? else { return Ok(None) };
        self.window(&heard, &written, &language, context, (samples, start)).map(Some)
    }

    /// What a window holds by what was written.
    fn window(
        &self,
        heard: &Heard,
        written: &Written,
        language: &str,
        context: &Context,
        (samples, start): (&[f32], Duration),
    ) -> candle_core::Result<Window> {
        let (seconds, language) = (seconds(samples.len()), language.to_owned());
        if written.broken || is_silence(written) || is_voiceless(self.voice_activity.as_deref(), samples, written) {
            return Ok(Window { language, no_speech: written.no_speech, ..silent(samples) });
        }
        let (pieces, settled) = segments::cut(&self.tokens, &written.tokens, seconds);
        let settled = if settled < seconds { segments::into_pause(samples, settled) } else { settled };
        let (timed, ending) = self.look_back(heard, &pieces, &language, context, samples)?;
        let mut timed = timed.into_iter();
        let segments = pieces.iter().map(|piece| Segment {
            text: self.tokens.decode(&piece.tokens).trim().to_owned(),
            start: start + Duration::from_secs_f64(piece.start),
            end: start + Duration::from_secs_f64(piece.end),
            words: take_words(&mut timed, piece.tokens.len(), start, settled),
            log_probability: written.mean_log_probability,
            no_speech: written.no_speech,
        });
        Ok(Window {
            language,
            segments: segments.filter(|segment| !segment.text.is_empty()).collect(),
            tokens: pieces.iter().map(|piece| piece.tokens.len()).sum(),
            settled: ((settled * f64::from(MIC_HZ)) as usize).clamp(1, samples.len().max(1)),
            no_speech: written.no_speech,
            mean_log_probability: written.mean_log_probability,
            ending,
        })
    }

    /// Writes until the result is good or nothing is left to try.
    fn search(
        &self,
        samples: &[f32],
        mut encoded: Encoded,
        language: &str,
        context: &Context,
        check: Check,
    ) -> candle_core::Result<Option<(Heard, Written)>> {
        let seconds = seconds(samples.len());
        let first = |width| match context.temperature {
            temperature if temperature > 0.0 => Strategy::Sample { temperature, seed: samples.len() as u64 },
            _ => Strategy::Beam(width),
        };
        let Some(mut written) = self.write(&encoded, seconds, language, context, first(BEAM), check)? else {
            return Ok(None);
        };
        if (is_bad(&written) || written.doubled) && !encoded.whole {
            // Too little context can be the reason: hear the silence after it too.
            let Some(whole) = self.encode(samples, true, check)? else { return Ok(None) };
            encoded = whole;
            let Some(again) = self.write(&encoded, seconds, language, context, first(WIDE_BEAM), check)? else {
                return Ok(None);
            };
            written = again;
        }
        let higher = TEMPERATURES.into_iter().filter(|temperature| *temperature > context.temperature);
        for (round, temperature) in higher.enumerate() {
            if !is_bad(&written) {
                break;
            }
            let strategy = Strategy::Sample { temperature, seed: (samples.len() + round + 1) as u64 };
            let Some(again) = self.write(&encoded, seconds, language, context, strategy, check)? else {
                return Ok(None);
            };
            if better(&again, &written) {
                written = again;
            }
        }
        Ok(Some((encoded.heard, written)))
    }

    /// A quick guess at what was said so far.
    pub(super) fn guess(&self, samples: &[f32], context: &Context, check: Check) -> candle_core::Result<Option<Guess>> {
        if !is_audible(samples) {
            return Ok(Some(Guess::default()));
        }
        let Some(encoded) = self.encode(samples, false, check)? else { return Ok(None) };
        let language = self.choose_language(&encoded.heard, context)?;
        let ask = self.ask(seconds(samples.len()), &language, context);
        let draft = context.draft.as_deref().unwrap_or_default();
        let written = decode::follow(&self.whisper, &self.tokens, &encoded.heard, &ask, draft, check)?;
        Ok(written.map(|written| {
            // Where the words break off, the model often says them again and again instead of ending.
            let tokens = rules::first_round(&written.tokens);
            let is_bad = is_bad(&written) && tokens.len() == written.tokens.len();
            let text = self.tokens.decode(tokens).trim().to_owned();
            let nothing = is_bad || is_silence(&written) || is_murmur(&text, &written);
            if nothing { Guess::default() } else { Guess { text, tokens: tokens.to_vec() } }
        }))
    }

    /// Encodes the audio that is there and a margin of silence, or all 30 s.
    fn encode(&self, samples: &[f32], whole: bool, check: Check) -> candle_core::Result<Option<Encoded>> {
        let there = samples.len().min(WINDOW_SAMPLES).div_ceil(2 * HOP);
        let positions = (there + MARGIN).next_multiple_of(4).min(WINDOW_FRAMES / 2);
        let positions = if whole { WINDOW_FRAMES / 2 } else { positions };
        let mel = self.mel.log_mel(samples, 2 * positions)?;
        let heard = self.whisper.hear(&mel, 1, 2 * positions, check)?;
        Ok(heard.map(|heard| Encoded { heard, whole: 2 * positions == WINDOW_FRAMES }))
    }

    /// The likeliest of the languages in question.
    fn choose_language(&self, heard: &Heard, context: &Context) -> candle_core::Result<String> {
        if !self.tokens.is_multilingual() {
            return Ok("en".to_owned());
        }
        if let [only] = context.languages.as_slice() {
            return Ok(only.clone());
        }
        let logits = self.whisper.read(heard, &mut self.whisper.open(1, 1)?, &[self.tokens.start], &[0])?;
        let wanted = |code: &String| context.languages.is_empty() || context.languages.contains(code);
        let among = self.tokens.languages.iter().filter(|(code, _)| wanted(code));
        let best = among.max_by(|(_, a), (_, b)| logits[0][*a as usize].total_cmp(&logits[0][*b as usize]));
        Ok(best.map_or_else(|| "en".to_owned(), |(code, _)| code.clone()))
    }

    fn ask(&self, seconds: f64, language: &str, context: &Context) -> Ask {
        let mut prompt = Vec::new();
        if !context.previous.is_empty() {
            prompt.push(self.tokens.previous);
            prompt.extend(&context.previous[context.previous.len().saturating_sub(PROMPT_TOKENS)..]);
        }
        let start = prompt.len();
        prompt.extend(self.start_sequence(language, context.task));
        let limit = TOKENS_AT_LEAST + (seconds * TOKENS_PER_SECOND) as usize;
        Ask { prompt, start, limit: limit.min(LONGEST) }
    }

    fn start_sequence(&self, language: &str, task: SttTask) -> Vec<u32> {
        let mut sequence = vec![self.tokens.start];
        if let Some(language) = self.tokens.language(language) {
            sequence.push(language);
            sequence.push(if task == SttTask::Translate { self.tokens.translate } else { self.tokens.transcribe });
        }
        sequence
    }

    fn write(
        &self,
        encoded: &Encoded,
        seconds: f64,
        language: &str,
        context: &Context,
        strategy: Strategy,
        check: Check,
    ) -> candle_core::Result<Option<Written>> {
        let ask = self.ask(seconds, language, context);
        decode::write(&self.whisper, &self.tokens, &encoded.heard, &ask, strategy, check)
    }

    /// What a second reading of the text tells: when its words were said, and what could come after the last of them,
    /// whatever mark was written there.
    fn look_back(
        &self,
        heard: &Heard,
        pieces: &[segments::Piece],
        language: &str,
        context: &Context,
        samples: &[f32],
    ) -> candle_core::Result<(Vec<TimedWord>, Option<Ending>)> {
        let text: Vec<u32> = pieces.iter().flat_map(|piece| piece.tokens.iter().copied()).collect();
        let mut read = self.start_sequence(language, context.task);
        read.push(self.tokens.no_timestamps);
        let before = read.len();
        let is_wanted = context.word_times || context.ending;
        if !is_wanted || text.is_empty() || before + text.len() >= self.whisper.config().max_target_positions {
            return Ok((Vec::new(), None));
        }
        read.extend(&text);
        read.push(self.tokens.end);
        let last = text.iter().rposition(|id| self.tokens.mark(*id).is_none()).filter(|_| context.ending);
        let Attended { heads, logits } = self.whisper.attend(heard, &read, last.map(|last| before + last))?;
        let mut words = Vec::new();
        if context.word_times {
            words = words::time(&self.tokens, &text, before, &heads, samples.len().div_ceil(2 * HOP));
            words::trim_pauses(&mut words, samples);
        }
        Ok((words, logits.map(|logits| ending(&self.tokens, &logits))))
    }
}

/// The words of the next `tokens` tokens. None reaches beyond `settled` seconds, where the next window begins: attention
/// and timestamps disagree by some tenths of a second.
fn take_words(timed: &mut std::vec::IntoIter<TimedWord>, tokens: usize, offset: Duration, settled: f64) -> Vec<Word> {
    let (mut taken, mut words) = (0, Vec::new());
    while taken < tokens
        && let Some(mut word) = timed.next()
    {
        taken += word.tokens;
        (word.start, word.end) = (word.start.min(settled), word.end.min(settled));
        let (start, end) = word.at(offset);
        if !word.text.is_empty() {
            words.push(Word { text: word.text, start, end });
        }
    }
    words
}

fn ending(tokens: &Tokens, logits: &[f32]) -> Ending {
    let total = log_sum_exp(logits);
    let probability = |id: u32| (logits[id as usize] - total).exp();
    let of = |wanted| tokens.marks.iter().filter(|(_, mark)| *mark == wanted).map(|(id, _)| probability(*id)).sum();
    Ending {
        stop: of(Mark::Stop),
        question: of(Mark::Question),
        comma: of(Mark::Comma),
        break_off: of(Mark::BreakOff),
        nothing: probability(tokens.end),
    }
}

/// All of it settled, and nothing in it.
fn silent(samples: &[f32]) -> Window {
    Window { settled: samples.len(), no_speech: 1.0, ..Window::default() }
}

fn seconds(samples: usize) -> f64 {
    samples.min(WINDOW_SAMPLES) as f64 / f64::from(MIC_HZ)
}

/// Near-digital silence never reaches the model, which would make words of it.
fn is_audible(samples: &[f32]) -> bool {
    let loud = |frame: &[f32]| frame.iter().map(|sample| sample * sample).sum::<f32>() > AUDIBLE * AUDIBLE * 320.0;
    samples.chunks(320).any(loud)
}

fn is_silence(written: &Written) -> bool {
    written.no_speech > NO_SPEECH && (written.broken || written.mean_log_probability < LEAST_WITHOUT_SPEECH)
}

/// Doubtful text, and the voice-activity detector hears nobody. A detector that panics has no say.
fn is_voiceless(detector: Option<&dyn VoiceActivity>, samples: &[f32], written: &Written) -> bool {
    let doubtful = written.no_speech > DOUBTFUL_NO_SPEECH || written.mean_log_probability < DOUBTFUL_LOG_PROBABILITY;
    let Some(detector) = detector.filter(|_| doubtful) else { return false };
    let (frames, _) = samples.as_chunks::<VAD_FRAME>();
    let voiced = catch_unwind(AssertUnwindSafe(|| {
        let mut stream = detector.open();
        frames.iter().filter(|frame| stream.score(frame) >= VOICE).take(VOICED_FRAMES).count()
    }));
    voiced.map_or_else(
        |_| {
            tracing::error!("the voice-activity detector panicked; doubtful text is believed");
            false
        },
        |voiced| voiced < VOICED_FRAMES,
    )
}

/// A word or two where there may be no speech: a hummed "mhm" is guessed at as "No.", and more audio will tell.
fn is_murmur(text: &str, written: &Written) -> bool {
    word_count(text) < MURMUR_WORDS && written.no_speech > MURMUR_NO_SPEECH
}

fn is_bad(written: &Written) -> bool {
    !is_silence(written)
        && (written.broken || written.repetitive || written.mean_log_probability < LEAST_LOG_PROBABILITY)
}

fn better(new: &Written, old: &Written) -> bool {
    let faults = |written: &Written| (written.broken, written.repetitive);
    match faults(new).cmp(&faults(old)) {
        Ordering::Equal => new.mean_log_probability > old.mean_log_probability,
        order => order.is_lt(),
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;

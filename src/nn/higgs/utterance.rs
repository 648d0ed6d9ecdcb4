//! One utterance as the model writes it: which codes are given, which are drawn, and when it ends.
//!
//! Pure: logits in, frames out, one generator of random numbers per utterance. Frame 0 is all begins and is not drawn;
//! frame s has its codebooks 0 to s - 1 drawn, the rest begins, until all are. The first end that is drawn, at frame s
//! in codebook k, says where the speech ends: column s - k is all ends, whatever the codebooks below say, which have
//! gone past it already, and those above, which get there in the next frames. Columns 1 up to that one are the speech.
//!
//! Sources: Boson's generation.py and modeling code for the rules, transformers' for the other way to end.

use super::config::HiggsConfig;
use super::frames::{Codes, Edges};
use crate::nn::sampling::{NotFinite, Sampler, SamplingOptions};

/// How an utterance is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpeechSettings {
    /// 0 takes the likeliest codes.
    pub temperature: f32,
    /// Of each codebook by itself; 0 is off.
    pub top_k: usize,
    /// Of each codebook by itself; 1 is off.
    pub top_p: f32,
    /// None for humming and music, which repeat themselves.
    pub repetition: Option<RepetitionRule>,
    /// It is cut off at so many frames, the first among them. About 25 are a second.
    pub most_frames: usize,
    pub ending: EndPolicy,
}

impl Default for SpeechSettings {
    /// For a cloned voice. A voice that the model chooses by itself is steadier at 0.3.
    fn default() -> Self {
        Self {
            temperature: 0.7,
            top_k: 50,
            top_p: 0.95,
            repetition: Some(RepetitionRule::default()),
            most_frames: 2048,
            ending: EndPolicy::Boson,
        }
    }
}

/// A code that its codebook had `most` times in the last `window` frames is drawn anew, from the plain distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepetitionRule {
    pub window: usize,
    pub most: usize,
}

impl Default for RepetitionRule {
    fn default() -> Self {
        Self { window: 7, most: 2 }
    }
}

/// What happens after the first end was drawn. The columns are the same codes wherever both draw the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndPolicy {
    /// Codebooks below the one that ended get their ends at once, those above one frame later each. It is over with the
    /// frame that completes the last column of speech.
    #[default]
    Boson,
    /// Codebook 0 gets its end in the next frame, and so on, whichever ended. It is over when all are ends.
    Transformers,
}

/// Why an utterance is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The model ended it.
    Spoken,
    /// The model ended it before the first column: try again with another seed.
    Empty,
    /// It had reached its most frames, or its slot was full, and did not end: its text is probably spoken, and much
    /// more. What it has is whole columns.
    CutOff,
    /// The model's numbers are not finite.
    Broken,
}

/// An utterance in the making.
pub struct Utterance {
    settings: SpeechSettings,
    edges: Edges,
    sampler: Sampler,
    /// The last frames of what the model had heard before, for the repetition rule.
    heard: Codes,
    frames: Codes,
    end: Option<End>,
    outcome: Option<Outcome>,
    /// Kept between steps to save the allocation.
    next: Vec<u32>,
}

/// Where the speech ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// The frame in which the first end was drawn, and its lowest codebook there.
    frame: usize,
    codebook: usize,
}

impl End {
    /// The first that is not speech.
    fn column(self) -> usize {
        self.frame - self.codebook
    }
}

impl Utterance {
    /// `heard`: the frames of the prompt's last reference, or of what was generated before; may be empty. The same seed,
    /// settings and logits give the same frames.
    pub fn new(config: &HiggsConfig, settings: SpeechSettings, seed: u64, heard: &Codes) -> Self {
        let options = SamplingOptions {
            temperature: settings.temperature,
            top_k: settings.top_k,
            top_p: settings.top_p,
            repetition_penalty: 1.0,
        };
        let edges = Edges { begin: config.stream_begin(), end: config.stream_end() };
        let mut frames = Codes::new(config.codebooks);
        frames.push(&vec![edges.begin; config.codebooks]);
        Self {
            heard: heard.last(settings.repetition.map_or(0, |rule| rule.window)),
            settings,
            edges,
            sampler: Sampler::new(options, seed),
            frames,
            end: None,
            outcome: None,
            next: Vec::with_capacity(config.codebooks),
        }
    }

    /// Every frame so far, the first (all begins) among them. The last is what the model reads next.
    pub fn frames(&self) -> &Codes {
        &self.frames
    }

    /// Why it is over, once it is.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// Columns of speech that are complete. More come until there is an outcome; none is ever taken back.
    pub fn columns(&self) -> usize {
        // Frame s completes column s - (K - 1), and column 0 is all begins.
        let complete = (self.frames.len() - 1).saturating_sub(self.frames.codebooks() - 1);
        self.end.map_or(complete, |end| complete.min(end.column().saturating_sub(1)))
    }

    /// Complete columns of speech, from the `from`th on up to but without the `to`th, for the codec: every code is one
    /// of its own.
    ///
    /// # Panics
    /// Where there are not so many.
    pub fn speech(&self, from: usize, to: usize) -> Codes {
        assert!(from <= to && to <= self.columns(), "columns {from} to {to} of {}", self.columns());
        let mut columns = Codes::new(self.frames.codebooks());
        for column in from..to {
            let code = |codebook: usize| self.frames.row(column + 1 + codebook)[codebook];
            let row: Vec<u32> = (0..columns.codebooks()).map(|k| code(k).min(self.edges.begin - 1)).collect();
            columns.push(&row);
        }
        columns
    }

    /// Draws the next frame from `logits`, `[codebooks, codes + 2]`. Nothing happens where it is over.
    pub fn advance(&mut self, logits: &mut [f32]) -> Option<Outcome> {
        if self.outcome.is_none() {
            self.outcome = match self.draw(logits) {
                Ok(()) => self.judge(),
                Err(NotFinite) => Some(Outcome::Broken),
            };
        }
        self.outcome
    }

    /// Ends it where it is, as where its slot is full.
    pub fn cut_off(&mut self) {
        self.outcome.get_or_insert(Outcome::CutOff);
    }

    /// Pushes the next frame.
    fn draw(&mut self, logits: &mut [f32]) -> Result<(), NotFinite> {
        let frame = self.frames.len();
        let codebooks = self.frames.codebooks();
        let book = logits.len() / codebooks;
        let ended = self.ended(frame);
        self.next.clear();
        for (codebook, logits) in logits.chunks_exact_mut(book).enumerate() {
            let code = if codebook >= frame {
                self.edges.begin
            } else if codebook < ended {
                self.edges.end
            } else {
                self.draw_code(codebook, logits)?
            };
            self.next.push(code);
        }
        if self.end.is_none()
            && let Some(codebook) = self.next.iter().position(|code| *code == self.edges.end)
        {
            self.end = Some(End { frame, codebook });
            if self.settings.ending == EndPolicy::Boson {
                self.next[..codebook].fill(self.edges.end);
            }
        }
        self.frames.push(&self.next);
        Ok(())
    }

    /// How many codebooks have their ends given in `frame`.
    fn ended(&self, frame: usize) -> usize {
        self.end.map_or(0, |end| match self.settings.ending {
            EndPolicy::Boson => frame - end.column(),
            EndPolicy::Transformers => frame - end.frame,
        })
    }

    fn draw_code(&mut self, codebook: usize, logits: &mut [f32]) -> Result<u32, NotFinite> {
        let code = self.sampler.choose(logits, &[])?;
        match self.settings.repetition {
            Some(rule) if self.seen(codebook, code, rule.window) >= rule.most => self.sampler.choose_from_all(logits),
            _ => Ok(code),
        }
    }

    /// How often `codebook` had `code` in the last frames. Begins and ends do not count: they are given.
    fn seen(&self, codebook: usize, code: u32, window: usize) -> usize {
        if code == self.edges.begin || code == self.edges.end {
            return 0;
        }
        let latest_first = self.frames.rows().rev().chain(self.heard.rows().rev());
        latest_first.take(window).filter(|frame| frame[codebook] == code).count()
    }

    /// After a frame was pushed.
    fn judge(&self) -> Option<Outcome> {
        let last = self.frames.len() - 1;
        let codebooks = self.frames.codebooks();
        if let Some(end) = self.end {
            let is_over = match self.settings.ending {
                // The column before the end's is complete: nothing that comes is heard.
                EndPolicy::Boson => last + 2 >= end.column() + codebooks || end.column() <= 1,
                EndPolicy::Transformers => self.frames.row(last).iter().all(|code| *code == self.edges.end),
            };
            if is_over {
                return Some(if end.column() <= 1 { Outcome::Empty } else { Outcome::Spoken });
            }
        }
        (self.frames.len() >= self.settings.most_frames).then_some(Outcome::CutOff)
    }
}

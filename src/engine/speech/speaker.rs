//! The model with what it needs at hand: voices that were asked for and style rows made ready.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::Device;

use super::pieces::Piece;
use super::queue::Job;
use super::render;
use super::voices::Voices;
use crate::engine::{EngineError, failure};
use crate::nn::kokoro::{Kokoro, Noise, Style, Utterance};
use crate::provider::{ProviderError, SpeechChunk};

/// Voices kept in memory, half a megabyte each.
const MOST_VOICES: usize = 16;
/// Style rows kept ready, a quarter of a megabyte each.
const MOST_STYLES: usize = 128;

/// The canary: "Hello world."
const CANARY: &str = "həlˈO wˈɜɹld.";

/// A voice's rows.
type Rows = Rc<Vec<Vec<f32>>>;

/// Owned by the model thread.
pub(super) struct Speaker {
    model: Kokoro,
    voices: Arc<Voices>,
    rows: RefCell<HashMap<String, Rows>>,
    styles: RefCell<HashMap<(String, usize), Rc<Style>>>,
    name: String,
}

/// Loads the model in `dir` and listens to its first words.
pub(super) fn load(name: &str, dir: &Path, device: &Device, voices: Arc<Voices>) -> Result<Speaker, EngineError> {
    let model = Kokoro::load(dir, device)?;
    let (rows, styles) = (RefCell::default(), RefCell::default());
    let speaker = Speaker { model, voices, rows, styles, name: name.to_owned() };
    speaker.check()?;
    Ok(speaker)
}

impl Speaker {
    /// Says `piece` as `job` wants it: the chunks and how many samples they have. None where `may_go_on` said no.
    pub(super) fn say(
        &self,
        piece: &Piece,
        job: &Job,
        last: bool,
        may_go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<(Vec<SpeechChunk>, usize)>, ProviderError> {
        let ids: Vec<u32> = piece.symbols.iter().map(|symbol| symbol.id).collect();
        // Every piece of a request hisses differently, and the same again for the same seed.
        let noise = Noise::Seeded(job.seed.wrapping_add(job.spoken.wrapping_mul(0xD1B5_4A32_D192_ED03)));
        let style = self.style(&job.voice, ids.len()).map_err(|error| failure(&self.name, &error))?;
        let utterance = self.model.speak(&ids, &style, job.speed, noise, may_go_on);
        let Some(utterance) = utterance.map_err(|error| failure(&self.name, &error))? else {
            return Ok(None);
        };
        let rendered = render::render(piece, &utterance, self.model.config().samples_per_frame(), job.position);
        let samples = rendered.len();
        Ok(Some((rendered.chunks(job.position, last, &job.served_by), samples)))
    }

    /// The voice's style for an utterance of `symbols` symbols.
    fn style(&self, voice: &str, symbols: usize) -> Result<Rc<Style>, EngineError> {
        let rows = self.rows(voice)?;
        // A voice has at least one row: `read_voice` saw to it.
        let index = symbols.saturating_sub(1).min(rows.len() - 1);
        let key = (voice.to_owned(), index);
        if let Some(style) = self.styles.borrow().get(&key) {
            return Ok(Rc::clone(style));
        }
        let style = Rc::new(self.model.style(&rows[index])?);
        let mut styles = self.styles.borrow_mut();
        if styles.len() >= MOST_STYLES {
            styles.clear();
        }
        styles.insert(key, Rc::clone(&style));
        Ok(style)
    }

    fn rows(&self, voice: &str) -> Result<Rows, EngineError> {
        if let Some(rows) = self.rows.borrow().get(voice) {
            return Ok(Rc::clone(rows));
        }
        let missing = || EngineError::BadFile { path: voice.into(), reason: "there is no such voice".to_owned() };
        let path = self.voices.path(voice).ok_or_else(missing)?;
        let rows = Rc::new(self.model.read_voice(path)?);
        let mut all = self.rows.borrow_mut();
        if all.len() >= MOST_VOICES {
            all.clear();
        }
        all.insert(voice.to_owned(), Rc::clone(&rows));
        Ok(rows)
    }

    /// Two words, whose length and loudness are known: this also touches every weight once.
    fn check(&self) -> Result<(), EngineError> {
        let ids: Vec<u32> = CANARY.chars().filter_map(|symbol| self.model.vocabulary().id(symbol)).collect();
        let style = self.style(self.voices.default_name(), ids.len())?;
        let utterance = self.model.speak(&ids, &style, 1.0, Noise::Seeded(0), &mut || true)?;
        let verdict = utterance.ok_or("it stopped".to_owned()).and_then(|utterance| verdict(&utterance));
        verdict.map_err(|reason| EngineError::Canary { what: self.name.clone(), reason })
    }
}

/// Healthy weights say "Hello world" in 1.2 to 1.8 s at a root mean square of 0.03 to 0.1.
fn verdict(utterance: &Utterance) -> Result<(), String> {
    let seconds = utterance.samples.len() as f32 / 24_000.0;
    let energy = utterance.samples.iter().map(|sample| sample * sample).sum::<f32>();
    let loudness = (energy / utterance.samples.len().max(1) as f32).sqrt();
    if !(0.6..4.0).contains(&seconds) {
        Err(format!("two words took {seconds:.2} s"))
    } else if !(0.005..0.5).contains(&loudness) {
        Err(format!("two words have a loudness of {loudness:.4}"))
    } else {
        Ok(())
    }
}

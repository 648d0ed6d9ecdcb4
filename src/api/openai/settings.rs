//! How to draw tokens, as chat and completions both let a client say it.
//!
//! What a request leaves out is the server's own setting; penalties are off. Beside OpenAI's names it takes vLLM's
//! `top_k`, `repetition_penalty`, `min_tokens` and `ignore_eos`.

use crate::api::body::Fields;
use crate::api::problem::Problem;
use crate::provider::{ChatRequest, Sampling};
use crate::session::settings::Settings;

/// Each is a reply of its own at the same time.
pub(super) const MOST_CHOICES: usize = 4;
/// OpenAI's own limit.
const MOST_STOPS: usize = 4;

/// `max_tokens` is for requests that set none.
///
/// # Errors
/// Fields of the wrong kind. Whether numbers are in range is for whoever answers to say.
pub(super) fn sampling(fields: &Fields<'_>, settings: &Settings, max_tokens: usize) -> Result<Sampling, Problem> {
    let stop = fields.texts("stop")?;
    if stop.len() > MOST_STOPS {
        return Err(fields.wrong("stop", format!("at most {MOST_STOPS} strings can stop a reply")));
    }
    let asked = fields.whole("max_tokens", 1..=usize::MAX)?;
    let min_tokens = fields.whole("min_tokens", 0..=usize::MAX)?.unwrap_or(0);
    Ok(Sampling {
        temperature: fields.number("temperature")?.unwrap_or(settings.temperature),
        top_p: fields.number("top_p")?.unwrap_or(settings.top_p),
        top_k: fields.whole("top_k", 0..=usize::MAX)?.unwrap_or(settings.top_k),
        repetition_penalty: fields.number("repetition_penalty")?.unwrap_or(1.0),
        presence_penalty: fields.number("presence_penalty")?.unwrap_or(0.0),
        frequency_penalty: fields.number("frequency_penalty")?.unwrap_or(0.0),
        logit_bias: logit_bias(fields)?,
        max_tokens: fields.whole("max_completion_tokens", 1..=usize::MAX)?.or(asked).unwrap_or(max_tokens),
        min_tokens,
        ignore_eos: fields.flag("ignore_eos")?.unwrap_or(false),
        seed: fields.integer("seed")?.or(settings.seed),
        stop,
    })
}

/// One request per choice. A seed gives the first choice what it gives alone, and each of the others something else.
pub(super) fn copies(request: &ChatRequest, choices: usize) -> Vec<ChatRequest> {
    let copy = |number: u64| {
        let mut copy = request.clone();
        copy.sampling.seed = copy.sampling.seed.map(|seed| seed.wrapping_add(number));
        copy
    };
    (0..choices as u64).map(copy).collect()
}

/// An object from token ids, as strings, to numbers.
fn logit_bias(fields: &Fields<'_>) -> Result<Vec<(u32, f32)>, Problem> {
    let Some(biases) = fields.value("logit_bias") else { return Ok(Vec::new()) };
    let expected = || fields.wrong("logit_bias", "must be an object from token ids to numbers");
    let bias = |(token, bias): (&String, &serde_json::Value)| Some((token.parse::<u32>().ok()?, bias.as_f64()? as f32));
    biases.as_object().and_then(|biases| biases.iter().map(bias).collect()).ok_or_else(expected)
}

//! What a client asks to be continued.

use serde_json::Value;

use crate::api::body::Fields;
use crate::api::openai::alias;
use crate::api::openai::settings::{MOST_CHOICES, copies, sampling};
use crate::api::problem::Problem;
use crate::provider::{Caller, ChatRequest};
use crate::session::settings::Settings;

/// OpenAI's own default.
const MAX_TOKENS: usize = 16;
/// Choices of all prompts together: as many as a local model takes in.
const MOST_REPLIES: usize = 16;
const MOST_LOGPROBS: usize = 20;

/// A request as read.
pub(super) struct Asked {
    /// The choices of the first prompt, then of the next.
    pub(super) requests: Vec<ChatRequest>,
    /// Of each prompt.
    pub(super) choices: usize,
    pub(super) stream: bool,
    /// Streams end with the tokens used.
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
}

/// # Errors
/// The field that is missing, wrong or not supported.
pub(super) fn read(fields: &Fields<'_>, settings: &Settings, caller: &Caller) -> Result<Asked, Problem> {
    let choices = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1);
    refuse_others(fields, choices)?;
    let prompts = prompts(fields)?;
    if prompts.len() * choices > MOST_REPLIES {
        return Err(fields.wrong("prompt", format!("at most {MOST_REPLIES} texts are written at once, n times each")));
    }
    let stream_options = fields.object("stream_options")?;
    let include_usage = stream_options.map(|options| options.flag("include_usage")).transpose()?.flatten();
    let logprobs = fields.whole("logprobs", 0..=MOST_LOGPROBS)?;
    let model = alias(fields.text("model")?.unwrap_or_default());
    let sampling = sampling(fields, settings, MAX_TOKENS)?;
    let request = |prompt| ChatRequest {
        raw_prompt: Some(prompt),
        model: model.clone(),
        sampling: sampling.clone(),
        logprobs,
        caller: caller.clone(),
        ..ChatRequest::default()
    };
    Ok(Asked {
        requests: prompts.into_iter().flat_map(|prompt| copies(&request(prompt), choices)).collect(),
        choices,
        stream: fields.flag("stream")?.unwrap_or(false),
        include_usage: include_usage.unwrap_or(false),
        logprobs: logprobs.is_some(),
    })
}

/// What would be missed if it were ignored.
fn refuse_others(fields: &Fields<'_>, choices: usize) -> Result<(), Problem> {
    if fields.flag("echo")? == Some(true) {
        return Err(fields.wrong("echo", "is not supported; put the prompt before the text yourself"));
    }
    if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
        return Err(fields.wrong("suffix", "is not supported: the models here only go on at the end"));
    }
    if fields.whole("best_of", 1..=usize::MAX)?.is_some_and(|best_of| best_of != choices) {
        return Err(fields.wrong("best_of", "must be n: every text that is written is answered"));
    }
    Ok(())
}

fn prompts(fields: &Fields<'_>) -> Result<Vec<String>, Problem> {
    let ids = |items: &Vec<Value>| items.iter().any(|item| item.is_number() || item.is_array());
    if fields.value("prompt").and_then(Value::as_array).is_some_and(ids) {
        return Err(fields.wrong("prompt", "must be text: token ids are not supported"));
    }
    let prompts = fields.texts("prompt")?;
    if prompts.is_empty() { Err(fields.missing("prompt")) } else { Ok(prompts) }
}

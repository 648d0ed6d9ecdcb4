//! What a client asks of a chat.

use serde_json::json;

use super::messages;
use crate::api::body::Fields;
use crate::api::openai::alias;
use crate::api::openai::replies::Rules;
use crate::api::openai::settings::{MOST_CHOICES, copies, sampling};
use crate::api::problem::Problem;
use crate::provider::{Caller, ChatRequest, OutputShape, ToolChoice, ToolSpec};
use crate::session::settings::Settings;

/// For a model that does not say how much fits.
const UNKNOWN_WINDOW: usize = 4096;
/// OpenAI's own limit.
const MOST_TOP_LOGPROBS: usize = 20;

/// A request as read.
pub(super) struct Asked {
    /// One per choice.
    pub(super) requests: Vec<ChatRequest>,
    pub(super) choices: usize,
    pub(super) rules: Rules,
    pub(super) stream: bool,
    /// Streams end with the tokens used.
    pub(super) include_usage: bool,
    pub(super) logprobs: bool,
}

/// # Errors
/// The field that is missing or wrong.
pub(super) fn read(
    fields: &Fields<'_>,
    settings: &Settings,
    window: Option<usize>,
    caller: Caller,
) -> Result<Asked, Problem> {
    refuse_others(fields)?;
    let (thinking, thoughts) = reasoning(fields)?;
    let logprobs = logprobs(fields)?;
    let choices = fields.whole("n", 1..=MOST_CHOICES)?.unwrap_or(1);
    let stream_options = fields.object("stream_options")?;
    let include_usage = stream_options.map(|options| options.flag("include_usage")).transpose()?.flatten();
    let one_call = fields.flag("parallel_tool_calls")? == Some(false);
    let request = ChatRequest {
        messages: messages::read(fields)?,
        raw_prompt: None,
        model: alias(fields.text("model")?.unwrap_or_default()),
        // Without a limit a reply goes on to its end.
        sampling: sampling(fields, settings, window.unwrap_or(UNKNOWN_WINDOW))?,
        thinking,
        tools: tools(fields)?,
        tool_choice: tool_choice(fields)?,
        one_call,
        shape: shape(fields)?,
        logprobs,
        caller,
    };
    Ok(Asked {
        requests: copies(&request, choices),
        choices,
        rules: Rules { thoughts, one_call },
        stream: fields.flag("stream")?.unwrap_or(false),
        include_usage: include_usage.unwrap_or(false),
        logprobs: logprobs.is_some(),
    })
}

/// What would be missed if it were ignored.
fn refuse_others(fields: &Fields<'_>) -> Result<(), Problem> {
    for (name, instead) in [("functions", "tools"), ("function_call", "tool_choice")] {
        if fields.value(name).is_some() {
            return Err(fields.wrong(name, format!("is no longer a field; use {instead}")));
        }
    }
    if fields.texts("modalities")?.iter().any(|kind| kind != "text") {
        return Err(fields.wrong("modalities", "only text is answered here; /v1/audio/speech speaks"));
    }
    Ok(())
}

/// Whether the model may think, and whether its thoughts are told.
fn reasoning(fields: &Fields<'_>) -> Result<(bool, bool), Problem> {
    let effort = fields.text("reasoning_effort")?.filter(|effort| *effort != "none");
    let included = fields.flag("include_reasoning")?;
    let thinking = effort.is_some() || included == Some(true);
    Ok((thinking, thinking && included != Some(false)))
}

/// How many of the likeliest tokens are told with each.
fn logprobs(fields: &Fields<'_>) -> Result<Option<usize>, Problem> {
    let wanted = fields.flag("logprobs")?.unwrap_or(false);
    let most = fields.whole("top_logprobs", 0..=MOST_TOP_LOGPROBS)?;
    match (wanted, most) {
        (true, most) => Ok(Some(most.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(fields.wrong("top_logprobs", "needs logprobs to be true")),
    }
}

fn tools(fields: &Fields<'_>) -> Result<Vec<ToolSpec>, Problem> {
    let tool = |fields: &Fields<'_>| {
        messages::function_only(fields)?;
        let function = fields.required_object("function")?;
        Ok(ToolSpec {
            name: function.required_text("name")?.to_owned(),
            description: function.text("description")?.unwrap_or_default().to_owned(),
            parameters: match function.object("parameters")? {
                Some(_) => function.value("parameters").cloned().unwrap_or_default(),
                None => json!({"type": "object", "properties": {}}),
            },
        })
    };
    fields.objects("tools")?.iter().map(tool).collect()
}

fn tool_choice(fields: &Fields<'_>) -> Result<ToolChoice, Problem> {
    let Some(choice) = fields.value("tool_choice") else { return Ok(ToolChoice::Auto) };
    let Some(word) = choice.as_str() else {
        let choice = fields.required_object("tool_choice")?;
        messages::function_only(&choice)?;
        return Ok(ToolChoice::Named(choice.required_object("function")?.required_text("name")?.to_owned()));
    };
    match word {
        "none" => Ok(ToolChoice::None),
        "auto" => Ok(ToolChoice::Auto),
        "required" => Ok(ToolChoice::Required),
        other => {
            let message = format!("must be none, auto, required or a function's object, not \"{other}\"");
            Err(fields.wrong("tool_choice", message))
        }
    }
}

/// Whether `strict` or not, a schema is held to.
fn shape(fields: &Fields<'_>) -> Result<Option<OutputShape>, Problem> {
    let Some(format) = fields.object("response_format")? else { return Ok(None) };
    match format.required_text("type")? {
        "text" => Ok(None),
        "json_object" => Ok(Some(OutputShape::Json)),
        "json_schema" => {
            let named = format.required_object("json_schema")?;
            named.required_object("schema")?;
            Ok(named.value("schema").cloned().map(OutputShape::JsonSchema))
        }
        other => Err(format.wrong("type", format!("must be text, json_object or json_schema, not \"{other}\""))),
    }
}

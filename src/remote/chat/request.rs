//! A [`ChatRequest`] as the JSON that a service takes.

use serde_json::{Map, Value, json};

use crate::provider::{ChatMessage, ChatRequest, OutputShape, ProviderError, Role, Sampling, ToolChoice, ToolSpec};
use crate::remote::service::Dialect;

/// The whole request. What the service cannot hold to is refused rather than left out.
pub(super) fn body(dialect: Dialect, model: &str, request: &ChatRequest) -> Result<Value, ProviderError> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    put("model", model.into());
    put("stream", true.into());
    put("stream_options", json!({ "include_usage": true }));
    if dialect == Dialect::OpenRouter {
        put("usage", json!({ "include": true }));
    }
    if let Some(prompt) = &request.raw_prompt {
        put("prompt", prompt.as_str().into());
        request.logprobs.map(|top| put("logprobs", top.into()));
    } else {
        put("messages", request.messages.iter().map(message).collect());
        if let Some(top) = request.logprobs {
            put("logprobs", true.into());
            put("top_logprobs", top.into());
        }
        if !request.tools.is_empty() {
            put("tools", request.tools.iter().map(tool).collect());
            put("tool_choice", tool_choice(&request.tool_choice));
            if request.one_call {
                put("parallel_tool_calls", false.into());
            }
        }
        if let Some((name, value)) = thinking(dialect, model, request.thinking) {
            put(name, value);
        }
    }
    if let Some(shape) = &request.shape {
        put_shape(&mut body, dialect, request.raw_prompt.is_some(), shape)?;
    }
    put_sampling(&mut body, dialect, model, request)?;
    Ok(body.into())
}

fn message(message: &ChatMessage) -> Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut value = json!({ "role": role, "content": message.content });
    if !message.tool_calls.is_empty() {
        if message.content.is_empty() {
            value["content"] = Value::Null;
        }
        let call = |call: &crate::provider::ToolCall| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        };
        value["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    if let Some(id) = &message.tool_call_id {
        value["tool_call_id"] = id.as_str().into();
    }
    value
}

fn tool(tool: &ToolSpec) -> Value {
    let function = json!({ "name": tool.name, "description": tool.description, "parameters": tool.parameters });
    json!({ "type": "function", "function": function })
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice {
        ToolChoice::None => "none".into(),
        ToolChoice::Auto => "auto".into(),
        ToolChoice::Required => "required".into(),
        ToolChoice::Named(name) => json!({ "type": "function", "function": { "name": name } }),
    }
}

/// How a service is told whether to think.
fn thinking(dialect: Dialect, model: &str, think: bool) -> Option<(&'static str, Value)> {
    match dialect {
        Dialect::OpenAi if always_thinks(model) => {
            Some(("reasoning_effort", if think { "medium" } else { "low" }.into()))
        }
        Dialect::OpenAi => None,
        // Models that cannot but think refuse to be told not to: what they think is only kept back.
        Dialect::OpenRouter if think => Some(("reasoning", json!({ "enabled": true }))),
        Dialect::OpenRouter => Some(("reasoning", json!({ "exclude": true }))),
        Dialect::Vllm => Some(("chat_template_kwargs", json!({ "enable_thinking": think }))),
    }
}

/// OpenAI's models that think before each reply and take no sampling settings.
fn always_thinks(model: &str) -> bool {
    ["o1", "o3", "o4", "gpt-5"].iter().any(|family| model.starts_with(family))
}

fn put_shape(
    body: &mut Map<String, Value>,
    dialect: Dialect,
    raw: bool,
    shape: &OutputShape,
) -> Result<(), ProviderError> {
    let refused =
        |message: &str| ProviderError::InvalidRequest { field: "response_format", message: message.to_owned() };
    let guided = match shape {
        OutputShape::Json if !raw => {
            body.insert("response_format".to_owned(), json!({ "type": "json_object" }));
            return Ok(());
        }
        OutputShape::JsonSchema(schema) if !raw => {
            let schema = json!({ "name": "reply", "schema": schema, "strict": true });
            body.insert("response_format".to_owned(), json!({ "type": "json_schema", "json_schema": schema }));
            return Ok(());
        }
        _ if dialect != Dialect::Vllm => {
            return Err(refused("this service holds only the reply to messages to JSON, and to no grammar or regex"));
        }
        OutputShape::Json => ("json", json!({ "type": "object" })),
        OutputShape::JsonSchema(schema) => ("json", schema.clone()),
        OutputShape::Grammar(grammar) => ("grammar", grammar.as_str().into()),
        OutputShape::Regex(regex) => ("regex", regex.as_str().into()),
    };
    let (kind, value) = guided;
    // vLLM's name for it, before 0.11 and since.
    body.insert(format!("guided_{kind}"), value.clone());
    body.insert("structured_outputs".to_owned(), json!({ kind: value }));
    Ok(())
}

fn put_sampling(
    body: &mut Map<String, Value>,
    dialect: Dialect,
    model: &str,
    request: &ChatRequest,
) -> Result<(), ProviderError> {
    let sampling = &request.sampling;
    let mut put = |name: &str, value: Value| body.insert(name.to_owned(), value);
    let strict = dialect == Dialect::OpenAi;
    // OpenAI's newer models refuse the older name, others know only that.
    let newer = strict && request.raw_prompt.is_none();
    put(if newer { "max_completion_tokens" } else { "max_tokens" }, sampling.max_tokens.into());
    if let Some(seed) = sampling.seed {
        // Services take signed numbers.
        put("seed", (seed & (u64::MAX >> 1)).into());
    }
    if !sampling.stop.is_empty() {
        put("stop", sampling.stop.clone().into());
    }
    if !(strict && always_thinks(model)) {
        put_drawing(&mut put, sampling);
    }
    if dialect != Dialect::OpenAi {
        if sampling.top_k > 0 {
            put("top_k", sampling.top_k.into());
        }
        if (sampling.repetition_penalty - 1.0).abs() > f32::EPSILON {
            put("repetition_penalty", decimal(sampling.repetition_penalty));
        }
    }
    let beyond =
        if sampling.ignore_eos { Some("ignore_eos") } else { (sampling.min_tokens > 0).then_some("min_tokens") };
    match beyond {
        Some(field) if dialect != Dialect::Vllm => {
            let message = "this service does not know it; leave it out".to_owned();
            return Err(ProviderError::InvalidRequest { field, message });
        }
        Some(_) => {
            put("ignore_eos", sampling.ignore_eos.into());
            put("min_tokens", sampling.min_tokens.into());
        }
        None => {}
    }
    Ok(())
}

fn put_drawing(put: &mut impl FnMut(&str, Value) -> Option<Value>, sampling: &Sampling) {
    put("temperature", decimal(sampling.temperature));
    put("top_p", decimal(sampling.top_p));
    for (name, penalty) in
        [("presence_penalty", sampling.presence_penalty), ("frequency_penalty", sampling.frequency_penalty)]
    {
        if penalty != 0.0 {
            put(name, decimal(penalty));
        }
    }
    if !sampling.logit_bias.is_empty() {
        let bias = |(token, bias): &(u32, f32)| (token.to_string(), decimal(*bias));
        put("logit_bias", Value::Object(sampling.logit_bias.iter().map(bias).collect()));
    }
}

/// As it was written: 0.7 and not 0.699999988.
fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

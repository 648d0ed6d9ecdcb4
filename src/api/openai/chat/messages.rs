//! A conversation as OpenAI's clients send it: roles, text in one or several parts, calls and their results.

use serde_json::Value;

use crate::api::body::Fields;
use crate::api::problem::Problem;
use crate::provider::{ChatMessage, Role, ToolCall};

/// The messages of a request. The system's first ones become one.
///
/// # Errors
/// The field that is missing or wrong, as `messages[2].content`.
pub(super) fn read(fields: &Fields<'_>) -> Result<Vec<ChatMessage>, Problem> {
    let mut messages: Vec<ChatMessage> = Vec::new();
    for fields in fields.objects("messages")? {
        let message = message(&fields)?;
        match &mut messages[..] {
            [first] if first.role == Role::System && message.role == Role::System => {
                first.content = format!("{}\n\n{}", first.content, message.content);
            }
            _ => messages.push(message),
        }
    }
    if messages.is_empty() {
        return Err(fields.wrong("messages", "must hold at least one message"));
    }
    Ok(messages)
}

fn message(fields: &Fields<'_>) -> Result<ChatMessage, Problem> {
    let role = match fields.required_text("role")? {
        "system" | "developer" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        "tool" => Role::Tool,
        other => {
            let message = format!("must be system, developer, user, assistant or tool, not \"{other}\"");
            return Err(fields.wrong("role", message));
        }
    };
    let tool_calls = match role {
        Role::Assistant => fields.objects("tool_calls")?.iter().map(call).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    let content = match content(fields)? {
        Some(content) => content,
        None if tool_calls.is_empty() => return Err(fields.missing("content")),
        None => String::new(),
    };
    let tool_call_id = match role {
        Role::Tool => Some(fields.required_text("tool_call_id")?.to_owned()),
        _ => None,
    };
    Ok(ChatMessage { role, content, tool_calls, tool_call_id })
}

/// A string, or parts, which are joined as lines.
fn content(fields: &Fields<'_>) -> Result<Option<String>, Problem> {
    match fields.value("content") {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(_)) => {
            let parts = fields.objects("content")?;
            let texts: Vec<&str> = parts.iter().map(part).collect::<Result<_, _>>()?;
            Ok(Some(texts.join("\n")))
        }
        Some(_) => Err(fields.wrong("content", "must be a string or a list of parts")),
    }
}

fn part<'a>(fields: &Fields<'a>) -> Result<&'a str, Problem> {
    match fields.required_text("type")? {
        "text" => fields.required_text("text"),
        other => Err(fields.wrong("type", format!("must be text: \"{other}\" is not understood here"))),
    }
}

fn call(fields: &Fields<'_>) -> Result<ToolCall, Problem> {
    function_only(fields)?;
    let function = fields.required_object("function")?;
    Ok(ToolCall {
        id: fields.required_text("id")?.to_owned(),
        name: function.required_text("name")?.to_owned(),
        arguments: function.required_text("arguments")?.to_owned(),
    })
}

/// Tools and calls are of functions.
pub(super) fn function_only(fields: &Fields<'_>) -> Result<(), Problem> {
    match fields.text("type")? {
        None | Some("function") => Ok(()),
        Some(other) => Err(fields.wrong("type", format!("must be function, not \"{other}\""))),
    }
}

//! The model's own chat template (Jinja), rendered as transformers' `apply_chat_template` renders it.
//!
//! A template comes with a download, so it runs without access to anything but the messages, and with a bound on its
//! steps.

use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::json;
use time::OffsetDateTime;

use super::tools::Dialect;
use crate::provider::{ChatMessage, Role, ToolCall, ToolSpec};

/// For files without a template.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + \
                      '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
/// Steps of one rendering: a thousand messages take about a hundred thousand.
const FUEL: u64 = 10_000_000;
const NAME: &str = "chat";

pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    begin_text: String,
    end_text: String,
    /// How its model writes tool calls.
    pub(super) dialect: Dialect,
}

/// Messages as templates know them: a call's arguments are JSON, not its text, and its result names its tool.
pub(super) fn template_messages(messages: &[ChatMessage]) -> Vec<serde_json::Value> {
    let calls = || messages.iter().flat_map(|message| &message.tool_calls);
    let tool_of = |id: &str| calls().find(|call| call.id == id).map(|call| call.name.as_str());
    messages.iter().map(|message| template_message(message, tool_of)).collect()
}

fn template_message<'a>(message: &ChatMessage, tool_of: impl Fn(&str) -> Option<&'a str>) -> serde_json::Value {
    let role = match message.role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut value = json!({"role": role, "content": message.content});
    if !message.tool_calls.is_empty() {
        let call = |call: &ToolCall| {
            let function = json!({"name": call.name, "arguments": call.arguments_value()});
            json!({"id": call.id, "type": "function", "function": function})
        };
        value["tool_calls"] = message.tool_calls.iter().map(call).collect();
    }
    if let Some(id) = &message.tool_call_id {
        value["tool_call_id"] = json!(id);
        if let Some(name) = tool_of(id) {
            value["name"] = json!(name);
        }
    }
    value
}

impl ChatTemplate {
    /// `begin_text` and `end_text` are what the template knows as `bos_token` and `eos_token`.
    ///
    /// # Errors
    /// What is wrong with the template.
    pub(super) fn new(source: Option<&str>, begin_text: String, end_text: String) -> Result<Self, String> {
        Self::with_clock(source, begin_text, end_text, SystemTime::now)
    }

    fn with_clock(
        source: Option<&str>,
        begin_text: String,
        end_text: String,
        clock: fn() -> SystemTime,
    ) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| error.to_string())?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", move |format: String| strftime(&format, clock()));
        environment.add_filter("tojson", to_json);
        let dialect = Dialect::of(source.unwrap_or(CHATML));
        let source = without_generation_tags(source.unwrap_or(CHATML));
        environment.add_template_owned(NAME, source).map_err(|error| error.to_string())?;
        Ok(Self { environment, begin_text, end_text, dialect })
    }

    /// `messages` are [`template_messages`], `tools` what [`template_tools`] gives.
    ///
    /// # Errors
    /// The template's own refusal, or what it lacks, as a reason.
    pub(super) fn render(
        &self,
        messages: &[serde_json::Value],
        tools: &[serde_json::Value],
        open_reply: bool,
        thinking: bool,
    ) -> Result<String, String> {
        let template = self.environment.get_template(NAME).map_err(|error| error.to_string())?;
        let tools = if tools.is_empty() { Value::from(()) } else { Value::from(Serde(tools)) };
        let rendered = template.render(context! {
            messages => Value::from(Serde(messages)),
            tools => tools,
            add_generation_prompt => open_reply,
            enable_thinking => thinking,
            bos_token => self.begin_text.as_str(),
            eos_token => self.end_text.as_str(),
        });
        rendered.map_err(|error| match error.kind() {
            ErrorKind::InvalidOperation => error.detail().map_or_else(|| error.to_string(), str::to_owned),
            _ => error.to_string(),
        })
    }
}

/// Tools as templates know them.
pub(super) fn template_tools(tools: &[ToolSpec]) -> Vec<serde_json::Value> {
    let tool = |tool: &ToolSpec| {
        let ToolSpec { name, description, parameters } = tool;
        let function = json!({"name": name, "description": description, "parameters": parameters});
        json!({"type": "function", "function": function})
    };
    tools.iter().map(tool).collect()
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// transformers marks the assistant's part for training with `{% generation %}`; for a prompt it means nothing.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (before, tag, after) = (&rest[..start], &rest[start + 2..start + length], &rest[start + length + 2..]);
        out.push_str(before);
        let tag = match tag.trim_matches(|letter: char| letter == '-' || letter.is_whitespace()) {
            "generation" => tag.replace("generation", "if true"),
            "endgeneration" => tag.replace("endgeneration", "endif"),
            _ => tag.to_owned(),
        };
        out.extend(["{%", &tag, "%}"]);
        rest = after;
    }
    out + rest
}

/// As Python's `json.dumps(value, ensure_ascii=False)`, with its optional `indent`.
#[expect(clippy::needless_pass_by_value, reason = "the shape of a filter")]
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let mut out = String::new();
    write_json(&mut out, value, indent, 0)?;
    Ok(out)
}

fn write_json(out: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let is_map = match value.kind() {
        ValueKind::Map => true,
        ValueKind::Seq | ValueKind::Iterable => false,
        ValueKind::String => {
            write_json_text(out, value.as_str().unwrap_or_default());
            return Ok(());
        }
        ValueKind::None | ValueKind::Undefined => {
            out.push_str("null");
            return Ok(());
        }
        ValueKind::Bool => {
            out.push_str(if value.is_true() { "true" } else { "false" });
            return Ok(());
        }
        _ => {
            out.push_str(&value.to_string());
            return Ok(());
        }
    };
    let line = |depth: usize| indent.map(|width| format!("\n{}", " ".repeat(width * depth)));
    out.push(if is_map { '{' } else { '[' });
    let mut empty = true;
    // A map yields its keys.
    for item in value.try_iter()? {
        match (empty, line(depth + 1)) {
            (true, Some(line)) => out.push_str(&line),
            (false, Some(line)) => out.extend([",", &line]),
            (true, None) => {}
            (false, None) => out.push_str(", "),
        }
        empty = false;
        if is_map {
            write_json_text(out, &item.to_string());
            out.push_str(": ");
            write_json(out, &value.get_item(&item)?, indent, depth + 1)?;
        } else {
            write_json(out, &item, indent, depth + 1)?;
        }
    }
    if let Some(line) = line(depth).filter(|_| !empty) {
        out.push_str(&line);
    }
    out.push(if is_map { '}' } else { ']' });
    Ok(())
}

fn write_json_text(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => out.extend(format!("\\u{:04x}", u32::from(control)).chars()),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// The time in UTC by strftime's letters that templates use; any other letter stays as it is.
fn strftime(format: &str, now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let (month_name, day_name) = (now.month().to_string(), now.weekday().to_string());
    let mut out = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            out.push(letter);
            continue;
        }
        let part = match letters.next() {
            Some('Y') => now.year().to_string(),
            Some('y') => format!("{:02}", now.year() % 100),
            Some('m') => format!("{:02}", u8::from(now.month())),
            Some('d') => format!("{:02}", now.day()),
            Some('B') => month_name.clone(),
            Some('b') => month_name[..3].to_owned(),
            Some('A') => day_name.clone(),
            Some('a') => day_name[..3].to_owned(),
            Some('H') => format!("{:02}", now.hour()),
            Some('M') => format!("{:02}", now.minute()),
            Some('S') => format!("{:02}", now.second()),
            Some('%') | None => "%".to_owned(),
            Some(other) => format!("%{other}"),
        };
        out.push_str(&part);
    }
    out
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;

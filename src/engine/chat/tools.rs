//! Tool calls as the families write them: found in a reply while it streams, and described to families that know none.
//!
//! Text before and after a call streams on. What begins like a call and is none, because its JSON is broken or its name
//! is not one of the request's, is given as the text that it is: nothing that a model wrote is lost.
//!
//! Sources: the chat templates of the models, and vLLM's tool parsers for what models write beside them.

use rand::Rng;
use rand::distr::Alphanumeric;
use serde_json::{Map, Value};

use crate::provider::{ToolCall, ToolSpec};

pub(super) const HERMES_OPEN: &str = "<tool_call>";
pub(super) const HERMES_CLOSE: &str = "</tool_call>";
pub(super) const RESULT: (&str, &str) = ("<tool_response>", "</tool_response>");
pub(super) const MISTRAL_OPEN: &str = "[TOOL_CALLS]";
pub(super) const MISTRAL_ARGUMENTS: &str = "[ARGS]";
const MISTRAL_ID: &str = "[CALL_ID]";
pub(super) const LLAMA_OPEN: &str = "<|python_tag|>";
/// Letters and digits of a call's id: Mistral's templates take no others.
const ID_LENGTH: usize = 9;
/// A call longer than this is given as text, so that what is held back is bounded.
const LONGEST_CALL: usize = 256 << 10;

/// How a family writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `<tool_call>` with `name` and `arguments`; several in a row. Qwen and the Hermes models.
    Hermes,
    /// An object with `name` and `parameters` that is the whole message, or follows `<|python_tag|>`.
    Llama,
    /// `[TOOL_CALLS]` with an array of objects with `name` and `arguments`.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`, Mistral's from 2025 on.
    MistralArguments,
    /// The template knows no tools: the system message explains them and Hermes' form.
    Generic,
}

impl Dialect {
    /// Tells by the markers in a chat template.
    pub(super) fn of(template: &str) -> Self {
        let knows = |text: &str| template.contains(text);
        if !knows("tools") {
            Self::Generic
        } else if knows(MISTRAL_OPEN) && knows(MISTRAL_ARGUMENTS) {
            Self::MistralArguments
        } else if knows(MISTRAL_OPEN) {
            Self::Mistral
        // Qwen's coders write the arguments as XML, and SmolLM3 takes tools by other names, to print them as Python's.
        } else if knows(HERMES_OPEN) && !knows("<function=") && !knows("xml_tools") {
            Self::Hermes
        } else if knows("<|start_header_id|>") && knows("parameters") {
            Self::Llama
        } else {
            Self::Generic
        }
    }

    /// The tags that tell a call or a result apart from other text. Some vocabularies have no markers for them.
    pub(super) fn tags(self) -> &'static [&'static str] {
        match self {
            Self::Hermes | Self::Generic => &[HERMES_OPEN, HERMES_CLOSE, RESULT.0, RESULT.1],
            Self::Llama => &[LLAMA_OPEN],
            Self::Mistral | Self::MistralArguments => {
                &[MISTRAL_OPEN, MISTRAL_ARGUMENTS, MISTRAL_ID, "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CONTENT]"]
            }
        }
    }

    /// What a call begins with, where that is fixed.
    pub(super) fn opening(self) -> &'static str {
        match self {
            Self::Hermes | Self::Generic => HERMES_OPEN,
            Self::Llama => LLAMA_OPEN,
            Self::Mistral | Self::MistralArguments => MISTRAL_OPEN,
        }
    }
}

/// For the system message of a model whose template knows no tools.
pub(super) fn instruction(tools: &[Value]) -> String {
    let listed: Vec<String> = tools.iter().map(Value::to_string).collect();
    format!(
        "You can call these tools:\n{}\n\nTo call one, write nothing but its name and arguments in this form:\n\
         {HERMES_OPEN}\n{{\"name\": \"tool's name\", \"arguments\": {{\"argument\": \"value\"}}}}\n{HERMES_CLOSE}\n\
         The result comes between {} and {}. Call a tool only if the question needs it.",
        listed.join("\n"),
        RESULT.0,
        RESULT.1
    )
}

/// A call as text, in Hermes' form.
pub(super) fn written(name: &str, arguments: &Value) -> String {
    let name = Value::from(name);
    format!("{HERMES_OPEN}\n{{\"name\": {name}, \"arguments\": {arguments}}}\n{HERMES_CLOSE}")
}

/// What a piece of a reply added.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
}

/// Finds the calls in a reply that comes in pieces.
pub(super) struct ToolParser {
    dialect: Dialect,
    names: Vec<String>,
    /// Not told yet. In [`Place::Call`] it begins with the call's opening.
    held: String,
    place: Place,
    /// A call was the last thing: space and separators after it are dropped.
    after_call: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Where a bare object is a call, for Llama.
    Start,
    Text,
    Call,
}

/// What the text from a call's opening on is, its length in bytes included.
enum Reading {
    Unfinished,
    Calls(usize, Parsed),
    Text(usize),
}

impl ToolParser {
    pub(super) fn new(dialect: Dialect, tools: &[&ToolSpec]) -> Self {
        let names = tools.iter().map(|tool| tool.name.clone()).collect();
        Self { dialect, names, held: String::new(), place: Place::Start, after_call: false }
    }

    pub(super) fn push(&mut self, text: &str) -> Parsed {
        self.held.push_str(text);
        self.parse(false)
    }

    /// What was held back, once no more comes.
    pub(super) fn finish(&mut self) -> Parsed {
        self.parse(true)
    }

    fn parse(&mut self, last: bool) -> Parsed {
        let mut parsed = Parsed::default();
        loop {
            if self.place != Place::Call && !self.find(&mut parsed, last) {
                return parsed;
            }
            match self.read(last) {
                Reading::Unfinished if self.held.len() <= LONGEST_CALL && !last => return parsed,
                Reading::Unfinished => self.tell(&mut parsed, self.held.len()),
                Reading::Text(length) => self.tell(&mut parsed, length),
                Reading::Calls(length, found) => {
                    self.held.drain(..length);
                    self.after_call = !found.calls.is_empty();
                    self.place = if found.text.is_empty() { Place::Start } else { Place::Text };
                    parsed.text.push_str(&found.text);
                    parsed.calls.extend(found.calls);
                }
            }
        }
    }

    /// Tells the text up to the next opening. False: there is none yet.
    fn find(&mut self, parsed: &mut Parsed, last: bool) -> bool {
        if self.after_call {
            let kept = self.held.trim_start_matches(|letter: char| letter.is_whitespace() || letter == ';').len();
            self.held.drain(..self.held.len() - kept);
        }
        if self.place == Place::Start && self.dialect == Dialect::Llama {
            let space = self.held.len() - self.held.trim_start().len();
            match self.held[space..].chars().next() {
                Some('{') => {
                    self.tell(parsed, space);
                    self.place = Place::Call;
                    return true;
                }
                None if !last => return false,
                _ => {}
            }
        }
        let opening = self.dialect.opening();
        let found = self.held.find(opening);
        let held_back = if last { 0 } else { overlap(&self.held, opening) };
        self.tell(parsed, found.unwrap_or(self.held.len() - held_back));
        if found.is_some() {
            self.place = Place::Call;
        }
        found.is_some()
    }

    /// Moves the first `length` bytes of what is held to the text.
    fn tell(&mut self, parsed: &mut Parsed, length: usize) {
        if length > 0 {
            parsed.text.extend(self.held.drain(..length));
            self.after_call = false;
            self.place = Place::Text;
        }
    }

    fn read(&self, last: bool) -> Reading {
        match self.dialect {
            Dialect::Hermes | Dialect::Generic => self.read_hermes(last),
            Dialect::Llama => self.read_llama(),
            Dialect::Mistral | Dialect::MistralArguments => self.read_mistral(),
        }
    }

    fn read_hermes(&self, last: bool) -> Reading {
        let start = skip_space(&self.held, HERMES_OPEN.len());
        let end = match object_end(&self.held, start) {
            Ok(Some(end)) => end,
            Ok(None) => return Reading::Unfinished,
            Err(()) => return Reading::Text(HERMES_OPEN.len()),
        };
        // Some models forget to close.
        let close = skip_space(&self.held, end);
        let rest = &self.held[close..];
        let closed = if rest.starts_with(HERMES_CLOSE) {
            close + HERMES_CLOSE.len()
        } else if HERMES_CLOSE.starts_with(rest) {
            if !last {
                return Reading::Unfinished;
            }
            self.held.len()
        } else {
            end
        };
        match self.call_in(&self.held[start..end], false) {
            Some(call) => Reading::Calls(closed, Parsed { text: String::new(), calls: vec![call] }),
            None => Reading::Text(closed),
        }
    }

    fn read_llama(&self) -> Reading {
        let opening = if self.held.starts_with(LLAMA_OPEN) { LLAMA_OPEN.len() } else { 0 };
        let start = skip_space(&self.held, opening);
        match object_end(&self.held, start) {
            Ok(Some(end)) => match self.call_in(&self.held[start..end], true) {
                Some(call) => Reading::Calls(end, Parsed { text: String::new(), calls: vec![call] }),
                None => Reading::Text(end),
            },
            Ok(None) if may_be_call(&self.held[start..]) => Reading::Unfinished,
            Ok(None) => Reading::Text(self.held.len()),
            Err(()) => Reading::Text(opening.max(1)),
        }
    }

    fn read_mistral(&self) -> Reading {
        let opening = MISTRAL_OPEN.len();
        let start = skip_space(&self.held, opening);
        let rest = &self.held[start..];
        if rest.starts_with(['[', '{']) {
            let Some(length) = value_length(rest) else { return Reading::Unfinished };
            return self.objects(&rest[..length], start + length);
        }
        // The newer form: name, perhaps an id, and arguments.
        let name = rest.len() - rest.trim_start_matches(is_name_letter).len();
        let mut at = name;
        if rest[at..].starts_with(MISTRAL_ID) {
            at += MISTRAL_ID.len();
            at += rest[at..].len() - rest[at..].trim_start_matches(is_name_letter).len();
        }
        let next = &rest[at..];
        if !next.starts_with(MISTRAL_ARGUMENTS) {
            let begins = |wanted: &str| wanted.starts_with(next);
            let open = begins(MISTRAL_ARGUMENTS) || (at == name && begins(MISTRAL_ID));
            return if open { Reading::Unfinished } else { Reading::Text(opening) };
        }
        let object = skip_space(rest, at + MISTRAL_ARGUMENTS.len());
        match object_end(rest, object) {
            Ok(Some(end)) => {
                let arguments = serde_json::from_str(&rest[object..end]).ok();
                match arguments.and_then(|arguments| self.call(&rest[..name], arguments)) {
                    Some(call) => Reading::Calls(start + end, Parsed { text: String::new(), calls: vec![call] }),
                    None => Reading::Text(start + end),
                }
            }
            Ok(None) => Reading::Unfinished,
            Err(()) => Reading::Text(opening),
        }
    }

    /// Each object of an array, or the one there is: what is no call is text.
    fn objects(&self, json: &str, length: usize) -> Reading {
        let items = match serde_json::from_str(json) {
            Ok(Value::Array(items)) => items,
            Ok(item) => vec![item],
            Err(_) => return Reading::Text(length),
        };
        let mut parsed = Parsed::default();
        for item in items {
            match self.call_of(&item, false) {
                Some(call) => parsed.calls.push(call),
                None => parsed.text.push_str(&item.to_string()),
            }
        }
        if parsed.calls.is_empty() { Reading::Text(length) } else { Reading::Calls(length, parsed) }
    }

    fn call_in(&self, object: &str, needs_arguments: bool) -> Option<ToolCall> {
        self.call_of(&serde_json::from_str(object).ok()?, needs_arguments)
    }

    /// `needs_arguments`: an object without them is no call.
    fn call_of(&self, object: &Value, needs_arguments: bool) -> Option<ToolCall> {
        let name = object.get("name")?.as_str()?;
        let arguments = object.get("arguments").or_else(|| object.get("parameters"));
        if arguments.is_none() && needs_arguments {
            return None;
        }
        self.call(name, arguments.cloned().unwrap_or_default())
    }

    fn call(&self, name: &str, arguments: Value) -> Option<ToolCall> {
        if !self.names.iter().any(|known| known == name) {
            return None;
        }
        let arguments: Map<String, Value> = match arguments {
            Value::Object(arguments) => arguments,
            Value::Null => Map::new(),
            // Some models write the JSON of the arguments as a string.
            Value::String(text) => serde_json::from_str(&text).ok()?,
            _ => return None,
        };
        let arguments = Value::Object(arguments).to_string();
        Some(ToolCall { id: new_id(), name: name.to_owned(), arguments })
    }
}

fn new_id() -> String {
    rand::rng().sample_iter(Alphanumeric).take(ID_LENGTH).map(char::from).collect()
}

/// An id that Mistral's templates take: `id` itself, or one made from it.
pub(super) fn short_id(id: &str) -> String {
    if id.len() == ID_LENGTH && id.bytes().all(|letter| letter.is_ascii_alphanumeric()) {
        return id.to_owned();
    }
    // FNV-1a, in base 36: the same id always becomes the same.
    let hash = id
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let digit = |place: u32| b"0123456789abcdefghijklmnopqrstuvwxyz"[(hash / 36_u64.pow(place) % 36) as usize];
    (0..ID_LENGTH as u32).map(|place| char::from(digit(place))).collect()
}

pub(super) fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.')
}

/// The beginning of an object may still become a call: its first key is one of a call's.
fn may_be_call(object: &str) -> bool {
    let key = object.trim_start_matches('{').trim_start();
    let keys = ["\"name\"", "\"type\"", "\"function\"", "\"parameters\"", "\"arguments\"", "\"id\""];
    keys.iter().any(|known| key.starts_with(known) || known.starts_with(key))
}

fn skip_space(text: &str, from: usize) -> usize {
    text.len() - text[from..].trim_start().len()
}

/// Where the JSON object that begins at `start` ends. None: not yet. An error: no object begins there.
fn object_end(text: &str, start: usize) -> Result<Option<usize>, ()> {
    match text[start..].chars().next() {
        None => Ok(None),
        Some('{') => Ok(value_length(&text[start..]).map(|length| start + length)),
        Some(_) => Err(()),
    }
}

/// Bytes of the JSON object or array that `text` begins with, by its brackets.
fn value_length(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Some(place + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// The longest end of `text` that `wanted` begins with, short of all of it.
pub(super) fn overlap(text: &str, wanted: &str) -> usize {
    let most = wanted.len().saturating_sub(1).min(text.len());
    (1..=most).rev().find(|length| text.as_bytes().ends_with(&wanted.as_bytes()[..*length])).unwrap_or(0)
}

#[cfg(test)]
#[path = "tools_tests.rs"]
mod tests;

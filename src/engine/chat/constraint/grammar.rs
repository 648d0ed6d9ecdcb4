//! From a request's shape and tools to the grammar that its reply is held to, and the bounds on what is compiled at all.
//!
//! Bounds are checked before anything is compiled, so that a hostile schema costs nothing but its reading.

use std::collections::HashSet;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::{JsonCompileOptions, regex_to_lark};
use serde_json::{Value, json};

use super::super::tokenizer::Tokenizer;
use super::super::tools::{Dialect, HERMES_CLOSE, MISTRAL_ARGUMENTS, is_name_letter};
use crate::provider::{ChatRequest, OutputShape, ProviderError, ToolChoice, ToolSpec};

/// Bytes of all schemas, or of a grammar or expression: ten times what people write.
const MOST_BYTES: usize = 128 << 10;
/// Objects and arrays within each other in a schema, and brackets in a grammar.
const MOST_DEPTH: usize = 64;
/// Least lengths and counts: beyond them no reply that fits a window ever ends.
const LARGEST_LEAST: f64 = 10_000.0;
/// Greatest lengths and counts, and repetitions in grammars: each costs states.
const LARGEST_MOST: f64 = 100_000.0;
const MOST_TOOLS: usize = 128;
const LONGEST_TOOL_NAME: usize = 64;
/// Between the marks of a JSON text: as people indent, so that a model that has lost its way cannot write space forever.
const JSON_SPACE: &str = r"\n? {0,24}";

/// JSON's without those of the quote and the backslash.
const ESCAPES_BUT_QUOTES: &str = "nrbtfu";

/// What to compile.
pub(super) struct Plan {
    pub(super) grammar: TopLevelGrammar,
    /// Markers that the grammar itself asks for.
    pub(super) markers: Vec<u32>,
    /// The text is JSON, complete at the bracket that closes its first.
    pub(super) is_json: bool,
}

/// The grammar for a request. None: its reply is free.
///
/// # Errors
/// [`ProviderError::InvalidRequest`]: a tool's name or what is to be compiled is beyond its bounds.
pub(super) fn plan(
    request: &ChatRequest,
    dialect: Dialect,
    tokenizer: &Tokenizer,
) -> Result<Option<Plan>, ProviderError> {
    let tools = callable(request)?;
    if let Some(shape) = &request.shape {
        check_shape(shape)?;
    }
    let must_call = matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
    let shape = request.shape.as_ref().filter(|_| tools.is_empty() || !must_call);
    // A family that was taught its own form keeps to it, and may think aloud around it.
    let is_taught = dialect != Dialect::Generic;
    if tools.is_empty() || (!must_call && is_taught && shape.is_none()) {
        let plan = |shape| {
            let is_json = matches!(shape, &OutputShape::Json | &OutputShape::JsonSchema(_));
            Plan { grammar: TopLevelGrammar::from_grammar(shape_grammar(shape)), markers: Vec::new(), is_json }
        };
        return Ok(shape.map(plan));
    }
    let several = !matches!(request.tool_choice, ToolChoice::Named(_));
    let mut writer = Writer { tokenizer, markers: Vec::new(), rules: String::new(), others: Vec::new() };
    writer.calls(dialect, &tools, several);
    let start = match (must_call, shape) {
        (true, _) => "calls".to_owned(),
        (false, Some(shape)) => {
            writer.others.push(GrammarWithLexer { name: Some("shape".to_owned()), ..shape_grammar(shape) });
            "@shape | calls".to_owned()
        }
        (false, None) => writer.text_or_calls(),
    };
    Ok(Some(writer.plan(&start)))
}

/// The tools that a reply to the request may call.
///
/// # Errors
/// [`ProviderError::InvalidRequest`]: a name or a schema is out of bounds, or the choice names no tool.
pub(in super::super) fn callable(request: &ChatRequest) -> Result<Vec<&ToolSpec>, ProviderError> {
    if request.tools.len() > MOST_TOOLS {
        return Err(invalid("tools", format!("there are {}, at most {MOST_TOOLS} fit", request.tools.len())));
    }
    for tool in &request.tools {
        let fits = (1..=LONGEST_TOOL_NAME).contains(&tool.name.len()) && tool.name.chars().all(is_name_letter);
        if !fits {
            let reason = "a tool's name has 1 to 64 letters, digits, \"_\", \"-\" or \".\"";
            return Err(invalid("tools", format!("{reason}; \"{}\" has not", tool.name)));
        }
        if !tool.parameters.is_object() {
            return Err(invalid("tools", format!("the parameters of {} are not a JSON schema", tool.name)));
        }
    }
    let schemas = || request.tools.iter().map(|tool| &tool.parameters);
    let checked = check_schemas(schemas()).and_then(|()| schemas().try_for_each(check_schema));
    checked.map_err(|reason| invalid("tools", reason))?;
    let chosen: Vec<&ToolSpec> = match &request.tool_choice {
        ToolChoice::None => Vec::new(),
        ToolChoice::Auto | ToolChoice::Required => request.tools.iter().collect(),
        ToolChoice::Named(name) => request.tools.iter().filter(|tool| tool.name == *name).collect(),
    };
    match &request.tool_choice {
        ToolChoice::Named(name) if chosen.is_empty() => {
            Err(invalid("tool_choice", format!("there is no tool \"{name}\"")))
        }
        ToolChoice::Required if chosen.is_empty() => Err(invalid("tool_choice", "there are no tools".to_owned())),
        _ => Ok(chosen),
    }
}

pub(super) fn invalid(field: &'static str, message: String) -> ProviderError {
    ProviderError::InvalidRequest { field, message }
}

/// Writes the Lark grammar of tool calls.
struct Writer<'a> {
    tokenizer: &'a Tokenizer,
    markers: Vec<u32>,
    rules: String,
    others: Vec<GrammarWithLexer>,
}

impl Writer<'_> {
    /// The rules `calls` and `call`, and one `arguments` for each tool.
    fn calls(&mut self, dialect: Dialect, tools: &[&ToolSpec], several: bool) {
        for (place, tool) in tools.iter().enumerate() {
            let schema = with_separators(tool.parameters.clone());
            let arguments = GrammarWithLexer::from_json_schema(schema);
            self.others.push(GrammarWithLexer { name: Some(format!("arguments{place}")), ..arguments });
        }
        let key = if dialect == Dialect::Llama { "parameters" } else { "arguments" };
        let numbered = tools.iter().enumerate();
        let forms: Vec<String> = if dialect == Dialect::MistralArguments {
            let middle = self.marked(MISTRAL_ARGUMENTS);
            numbered.map(|(place, tool)| format!("{} {middle} @arguments{place}", quoted(&tool.name))).collect()
        } else {
            let head = |tool: &ToolSpec| quoted(&format!("{{\"name\": \"{}\", \"{key}\": ", tool.name));
            numbered.map(|(place, tool)| format!("{} @arguments{place} \"}}\"", head(tool))).collect()
        };
        self.rule("body", &forms.join(" | "));
        let open = self.marked(dialect.opening());
        let more = |separator: &str| if several { format!(" ({separator} call)*") } else { String::new() };
        match dialect {
            Dialect::Hermes | Dialect::Generic => {
                let close = self.marked(HERMES_CLOSE);
                self.rule("call", &format!("{open} \"\\n\" body \"\\n\" {close}"));
                self.rule("calls", &format!("call{}", more("\"\\n\"")));
            }
            Dialect::Llama => self.rule("calls", "body"),
            Dialect::Mistral => {
                self.rule("call", "body");
                self.rule("calls", &format!("{open} \"[\" call{} \"]\"", more("\", \"")));
            }
            Dialect::MistralArguments => {
                self.rule("call", &format!("{open} body"));
                self.rule("calls", &format!("call{}", more("")));
            }
        }
    }

    /// Free text up to the first call, for a family that writes its calls as plain text. The start rule.
    fn text_or_calls(&mut self) -> String {
        let close = self.marked(HERMES_CLOSE);
        let open = regex_to_lark(super::super::tools::HERMES_OPEN, "");
        self.rule("first[lazy]", &format!("/(.|\\n)*{open}/"));
        self.rule("rest", &format!("\"\\n\" body \"\\n\" {close} (\"\\n\" call)*"));
        self.rule("TEXT", &format!("/(.|\\n)*/ & ~/(.|\\n)*{open}(.|\\n)*/"));
        "TEXT | first rest".to_owned()
    }

    fn rule(&mut self, name: &str, body: &str) {
        self.rules.extend([name, ": ", body, "\n"]);
    }

    /// A marker by its id where the vocabulary has it, else as text.
    fn marked(&mut self, text: &str) -> String {
        match self.tokenizer.marker(text) {
            Some(id) => {
                self.markers.push(id);
                format!("<[{id}]>")
            }
            None => quoted(text),
        }
    }

    fn plan(self, start: &str) -> Plan {
        let grammar = GrammarWithLexer::from_lark(format!("start: {start}\n{}", self.rules));
        let grammars = std::iter::once(grammar).chain(self.others).collect();
        Plan { grammar: TopLevelGrammar { grammars, max_tokens: None }, markers: self.markers, is_json: false }
    }
}

/// As a literal of Lark, which are JSON's.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn shape_grammar(shape: &OutputShape) -> GrammarWithLexer {
    match shape {
        OutputShape::Json => GrammarWithLexer::from_json_schema(with_space(json!({"type": "object"}))),
        OutputShape::JsonSchema(schema) => GrammarWithLexer::from_json_schema(with_space(schema.clone())),
        OutputShape::Grammar(lark) => GrammarWithLexer::from_lark(lark.clone()),
        OutputShape::Regex(regex) => GrammarWithLexer::from_regex(regex),
    }
}

/// JSON as people write it.
fn with_space(schema: Value) -> Value {
    with_options(schema, JsonCompileOptions { whitespace_pattern: Some(JSON_SPACE.to_owned()), ..<_>::default() })
}

/// JSON as Python writes it, which is how models were taught to call.
fn with_separators(schema: Value) -> Value {
    let options = JsonCompileOptions {
        item_separator: ", ".to_owned(),
        key_separator: ": ".to_owned(),
        whitespace_flexible: false,
        ..<_>::default()
    };
    with_options(schema, options)
}

fn with_options(schema: Value, mut options: JsonCompileOptions) -> Value {
    if escapes_are_loose(&schema) {
        options.json_allowed_escapes = Some(ESCAPES_BUT_QUOTES.to_owned());
    }
    // `true` and `{}` both allow everything, but only objects hold options.
    let mut schema = if schema == Value::Bool(true) { json!({}) } else { schema };
    if schema.is_object() {
        options.apply_to(&mut schema);
    }
    schema
}

/// derivre 0.3.13 lets `\"` and `\\` into a class that has every control character, even where the class leaves the quote
/// or the backslash out, as `[^"]` does. Where a pattern may have such a class, no string may hold the two; constants
/// that do would be cut, so both together are refused.
fn escapes_are_loose(schema: &Value) -> bool {
    let loose = |pattern: &str| {
        let has = |part: &str| pattern.contains(part);
        has("[^") && (has("\"") || has("\\\\")) || ["\\x", "\\u", "\\0", "\0", "\u{1}"].into_iter().any(has)
    };
    match schema {
        Value::Array(items) => items.iter().any(escapes_are_loose),
        Value::Object(entries) => {
            let by_name = entries.get("patternProperties").and_then(Value::as_object);
            entries.get("pattern").and_then(Value::as_str).is_some_and(loose)
                || by_name.is_some_and(|by_name| by_name.keys().any(|pattern| loose(pattern)))
                || entries.values().any(escapes_are_loose)
        }
        _ => false,
    }
}

fn check_shape(shape: &OutputShape) -> Result<(), ProviderError> {
    let checked = match shape {
        OutputShape::Json => Ok(()),
        OutputShape::JsonSchema(schema) => check_schemas([schema].into_iter()).and_then(|()| check_schema(schema)),
        OutputShape::Grammar(text) | OutputShape::Regex(text) => check_text(text),
    };
    checked.map_err(|reason| invalid("shape", reason))
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MOST_BYTES {
        return Err(format!("it has {} bytes, at most {MOST_BYTES} fit", text.len()));
    }
    let (mut depth, mut number) = (0_usize, 0.0_f64);
    for letter in text.chars() {
        match letter {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MOST_DEPTH {
            return Err(format!("its brackets are more than {MOST_DEPTH} deep"));
        }
        number = letter.to_digit(10).map_or(0.0, |digit| number * 10.0 + f64::from(digit));
        // Repetitions: a long number elsewhere is rare enough to be refused with them.
        if number > LARGEST_MOST {
            return Err(format!("it holds a number over {LARGEST_MOST}"));
        }
    }
    Ok(())
}

/// Walks the schemas without recursion.
fn check_schemas<'a>(schemas: impl Iterator<Item = &'a Value>) -> Result<(), String> {
    let mut bytes = 0;
    let mut open: Vec<(&Value, usize)> = schemas.map(|schema| (schema, 1)).collect();
    while let Some((value, depth)) = open.pop() {
        if depth > MOST_DEPTH {
            return Err(format!("it is more than {MOST_DEPTH} levels deep"));
        }
        // What each costs as text, roughly.
        bytes += match value {
            Value::String(text) => text.len() + 3,
            _ => 4,
        };
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(entries) => {
                for (key, item) in entries {
                    bytes += key.len() + 4;
                    check_entry(key, item)?;
                    open.push((item, depth + 1));
                }
            }
            _ => {}
        }
        if bytes > MOST_BYTES {
            return Err(format!("it has more than {MOST_BYTES} bytes"));
        }
    }
    Ok(())
}

fn check_entry(key: &str, value: &Value) -> Result<(), String> {
    let largest = match key {
        "minLength" | "minItems" | "minProperties" => LARGEST_LEAST,
        "maxLength" | "maxItems" | "maxProperties" => LARGEST_MOST,
        "$ref" | "$dynamicRef" if value.as_str().is_some_and(|place| !place.starts_with('#')) => {
            return Err(format!("{key} refers to another document, which is not fetched"));
        }
        // llguidance's own options could make it ignore what it does not know.
        "x-guidance" => return Err("x-guidance is not for requests".to_owned()),
        "pattern" => return value.as_str().map_or(Ok(()), check_text),
        _ => return Ok(()),
    };
    match value.as_f64() {
        Some(number) if number > largest => Err(format!("{key} is {number}, at most {largest} fits")),
        _ => Ok(()),
    }
}

/// What is known not to compile to what was meant.
fn check_schema(schema: &Value) -> Result<(), String> {
    if escapes_are_loose(schema) && has_quoted_literals(schema) {
        let reason = "a pattern with a class that leaves out quotes or backslashes, beside constants with such";
        return Err(format!("{reason}, is not supported"));
    }
    check_ends(schema)
}

fn has_quoted_literals(schema: &Value) -> bool {
    let is_quoted = |literal: &Value| literal.to_string().contains('\\');
    match schema {
        Value::Array(items) => items.iter().any(has_quoted_literals),
        Value::Object(entries) => {
            ["enum", "const"].iter().filter_map(|key| entries.get(*key)).any(is_quoted)
                || entries.values().any(has_quoted_literals)
        }
        _ => false,
    }
}

/// A schema that no finite text can match, because what it requires requires itself, would never come to an end.
fn check_ends(root: &Value) -> Result<(), String> {
    let mut places = HashSet::new();
    collect_references(root, &mut places);
    // The references known to have a finite match grow until nothing changes.
    let mut finite: HashSet<&str> = HashSet::new();
    for _ in 0..MOST_DEPTH {
        let target = |place: &str| if place == "#/" { Some(root) } else { root.pointer(place.strip_prefix('#')?) };
        // One that leads nowhere is the compiler's to refuse.
        let more: Vec<&str> = places
            .iter()
            .copied()
            .filter(|place| !finite.contains(place) && target(place).is_none_or(|schema| is_finite(schema, &finite)))
            .collect();
        if more.is_empty() {
            break;
        }
        finite.extend(more);
    }
    if is_finite(root, &finite) { Ok(()) } else { Err("what it requires requires itself without end".to_owned()) }
}

fn collect_references<'a>(value: &'a Value, places: &mut HashSet<&'a str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, places)),
        Value::Object(entries) => {
            places.extend(entries.get("$ref").and_then(Value::as_str));
            entries.values().for_each(|item| collect_references(item, places));
        }
        _ => {}
    }
}

/// Some finite text matches, given the references that one matches.
fn is_finite(schema: &Value, finite: &HashSet<&str>) -> bool {
    let entry = |key: &str| schema.get(key);
    let every =
        |key: &str| entry(key).and_then(Value::as_array).is_none_or(|all| all.iter().all(|one| is_finite(one, finite)));
    let any =
        |key: &str| entry(key).and_then(Value::as_array).is_none_or(|all| all.iter().any(|one| is_finite(one, finite)));
    let required = entry("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut required = required.filter_map(|name| entry("properties").and_then(|all| all.get(name)));
    let needs_items = entry("minItems").and_then(Value::as_u64).is_some_and(|least| least > 0);
    entry("$ref").and_then(Value::as_str).is_none_or(|place| finite.contains(place))
        && every("allOf")
        && any("anyOf")
        && any("oneOf")
        && required.all(|schema| is_finite(schema, finite))
        && (!needs_items || entry("items").is_none_or(|items| is_finite(items, finite)))
}

use serde_json::json;

use super::*;

fn parser(dialect: Dialect) -> ToolParser {
    let tools = ["get_weather", "roll"].map(|name| ToolSpec {
        name: name.to_owned(),
        description: String::new(),
        parameters: json!({"type": "object"}),
    });
    ToolParser::new(dialect, &tools.each_ref())
}

/// The text, and the calls as names and arguments, of a reply in the given pieces.
fn parsed<'a>(dialect: Dialect, pieces: impl Iterator<Item = &'a str>) -> (String, Vec<(String, String)>) {
    let mut parser = parser(dialect);
    let mut all: Vec<Parsed> = pieces.map(|piece| parser.push(piece)).collect();
    all.push(parser.finish());
    let text = all.iter().map(|parsed| parsed.text.as_str()).collect();
    let calls = all.into_iter().flat_map(|parsed| parsed.calls);
    (text, calls.map(|call| (call.name, call.arguments)).collect())
}

/// At every place to split in two, and letter by letter.
fn expect(dialect: Dialect, reply: &str, text: &str, calls: &[(&str, &str)]) {
    let expected: Vec<(String, String)> =
        calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned())).collect();
    let expected = (text.to_owned(), expected);
    for (at, _) in reply.char_indices() {
        let (one, other) = reply.split_at(at);
        assert_eq!(parsed(dialect, [one, other].into_iter()), expected, "{dialect:?}: {one:?} and {other:?}");
    }
    let letters = reply.char_indices().map(|(at, letter)| &reply[at..at + letter.len_utf8()]);
    assert_eq!(parsed(dialect, letters), expected, "{dialect:?}: {reply:?} letter by letter");
}

const ROLL: (&str, &str) = ("roll", "{}");
const WEATHER: (&str, &str) = ("get_weather", r#"{"city":"Łódź </tool_call> } ]","days":2}"#);
const WEATHER_JSON: &str = r#"{"city": "Łódź </tool_call> } ]", "days": 2}"#;

#[test]
fn hermes_calls_are_found_at_every_split() {
    for dialect in [Dialect::Hermes, Dialect::Generic] {
        let weather =
            format!("<tool_call>\n{{\"name\": \"get_weather\", \"arguments\": {WEATHER_JSON}}}\n</tool_call>");
        let roll = "<tool_call>{\"name\": \"roll\", \"arguments\": {}}</tool_call>";
        expect(dialect, &weather, "", &[WEATHER]);
        expect(dialect, &format!("Let me see.\n{weather}\n{roll}\n"), "Let me see.\n", &[WEATHER, ROLL]);
        expect(dialect, &format!("{roll} Done < now."), "Done < now.", &[ROLL]);
        expect(dialect, "<tool_call>\n{\"name\": \"roll\"}", "", &[ROLL]);
        expect(dialect, "<tool_call>\n{\"name\": \"roll\", \"arguments\": \"{}\"}\n</tool_", "", &[ROLL]);
        expect(dialect, &format!("<tool_call>{{\"name\": \"roll\"}}\n{roll}"), "", &[ROLL, ROLL]);
    }
}

#[test]
fn llama_calls_are_found_at_every_split() {
    let weather = format!("{{\"name\": \"get_weather\", \"parameters\": {WEATHER_JSON}}}");
    let roll = r#"{"type": "function", "name": "roll", "parameters": {}}"#;
    expect(Dialect::Llama, &weather, "", &[WEATHER]);
    expect(Dialect::Llama, &format!("<|python_tag|>{weather}; {roll}"), "", &[WEATHER, ROLL]);
    expect(Dialect::Llama, &format!("I look. <|python_tag|>\n{roll}\n"), "I look. ", &[ROLL]);
    let answers =
        [r#"{"city": "Łódź"}"#, r#"{"name": "Bob"}"#, "So: {\"name\": \"roll\", \"parameters\": {}}", "{ no", "{"];
    for answer in answers {
        expect(Dialect::Llama, answer, answer, &[]);
    }
}

#[test]
fn mistral_calls_are_found_at_every_split() {
    let weather = format!("{{\"name\": \"get_weather\", \"arguments\": {WEATHER_JSON}, \"id\": \"abc123DEF\"}}");
    let roll = r#"{"name": "roll", "arguments": {}}"#;
    for dialect in [Dialect::Mistral, Dialect::MistralArguments] {
        expect(dialect, &format!("[TOOL_CALLS] [{weather}, {roll}]"), "", &[WEATHER, ROLL]);
        expect(dialect, &format!("Yes. [TOOL_CALLS]{roll} and"), "Yes. and", &[ROLL]);
        let new = format!("[TOOL_CALLS]get_weather[ARGS]{WEATHER_JSON}[TOOL_CALLS]roll[CALL_ID]a1[ARGS]{{}}");
        expect(dialect, &new, "", &[WEATHER, ROLL]);
        let unknown = r#"{"name":"other","arguments":{}}"#;
        expect(dialect, &format!("[TOOL_CALLS][{unknown}, {roll}]"), unknown, &[ROLL]);
    }
}

#[test]
fn what_is_no_call_is_text_as_it_stands() {
    let broken = [
        "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"roll\", \"arguments\": [1]}\n</tool_call> and more",
        "<tool_call>\n{\"name\": \"roll\", \"arguments\": {oops}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"roll\", \"argu",
        "<tool_call> roll a die",
        "<tool_call",
        "a <tool_call> b </tool_call> c",
        "[TOOL_CALLS]",
        "[TOOL_CALLS] [1, 2",
        "[TOOL_CALLS][{\"name\": \"other\"}]",
        "[TOOL_CALLS]other[ARGS]{}",
        "[TOOL_CALLS]roll[ARGS]{oops}",
        "[TOOL_CALLS]roll, please",
        "[TOOL_CALLS]roll[ARG",
        "<|python_tag|>print(1)",
        "<|python_tag|>{\"name\": \"other\", \"parameters\": {}}",
        "{\"name\": \"roll\", \"parameters\": ",
        "{\"name\": \"roll\", \"parameters\": 1}",
        "żółw < [TOOL <|py",
    ];
    for dialect in [Dialect::Hermes, Dialect::Llama, Dialect::Mistral, Dialect::MistralArguments, Dialect::Generic] {
        for reply in broken {
            expect(dialect, reply, reply, &[]);
        }
    }
}

#[test]
fn text_before_a_call_streams() {
    let mut hermes = parser(Dialect::Hermes);
    assert_eq!(hermes.push("Let me ").text, "Let me ");
    assert_eq!(hermes.push("see <to").text, "see ");
    assert_eq!(hermes.push("morrow").text, "<tomorrow");
    assert_eq!(hermes.push("<tool_call>{\"name\": \"roll\"}").text, "");
    let call = hermes.push("</tool_call>").calls.remove(0);
    assert!(call.id.len() == 9 && call.id.chars().all(|letter| letter.is_ascii_alphanumeric()), "{}", call.id);
    let mut llama = parser(Dialect::Llama);
    assert_eq!(llama.push("{\"answer").text, "{\"answer", "an object with another key is no call");
    let long = "x".repeat(LONGEST_CALL);
    let mut endless = parser(Dialect::Hermes);
    let told = endless.push(&format!("<tool_call>{{\"name\": \"{long}")).text.len();
    assert!(told > LONGEST_CALL, "what is held back is bounded");
}

#[test]
fn ids_fit_mistrals_templates() {
    assert_eq!(short_id("abc123DEF"), "abc123DEF");
    let (one, other) = (short_id("call_1"), short_id("call_2"));
    assert!(one != other && one == short_id("call_1") && one.len() == 9, "{one} {other}");
}

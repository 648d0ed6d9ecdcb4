use std::collections::HashMap;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::*;
use crate::testing;

/// templates.json.
#[derive(Deserialize)]
struct Fixture {
    templates: HashMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    messages: Vec<ChatMessage>,
    generate: bool,
    thinking: bool,
    /// None: the template refuses.
    text: Option<String>,
}

/// Noon on 26 July 2024.
fn clock() -> SystemTime {
    UNIX_EPOCH + Duration::from_hours(478_332)
}

fn template(source: &str) -> Result<ChatTemplate, String> {
    ChatTemplate::with_clock(Some(source), "<s>".to_owned(), "</s>".to_owned(), clock)
}

fn render(source: &str) -> Result<String, String> {
    template(source)?.render(&template_messages(&[ChatMessage::new(Role::User, "Hi")]), &[], true, false)
}

#[test]
fn renderings_equal_those_of_transformers() {
    let fixture = fs::read(testing::fixture("chat/templates.json")).unwrap();
    let fixture: Fixture = serde_json::from_slice(&fixture).unwrap();
    for case in &fixture.cases {
        let template = template(&fixture.templates[&case.template]).unwrap();
        let rendered = template.render(&template_messages(&case.messages), &[], case.generate, case.thinking);
        assert_eq!(rendered.clone().ok(), case.text, "{}, {:?}: {rendered:?}", case.template, case.messages);
    }
    assert!(fixture.cases.len() > 200);
}

/// tools.json.
#[derive(Deserialize)]
struct ToolFixture {
    /// Those that templates.json lacks.
    templates: HashMap<String, String>,
    tools: Vec<ToolSpec>,
    cases: Vec<ToolCase>,
}

#[derive(Deserialize)]
struct ToolCase {
    template: String,
    messages: Vec<ChatMessage>,
    dialect: String,
    text: Option<String>,
}

#[test]
fn renderings_with_tools_equal_those_of_transformers() {
    let read = |name: &str| fs::read(testing::fixture(name)).unwrap();
    let known: Fixture = serde_json::from_slice(&read("chat/templates.json")).unwrap();
    let fixture: ToolFixture = serde_json::from_slice(&read("chat/tools.json")).unwrap();
    let tools = template_tools(&fixture.tools);
    let mut refused = 0;
    for case in &fixture.cases {
        let source = fixture.templates.get(&case.template).unwrap_or_else(|| &known.templates[&case.template]);
        let template = template(source).unwrap();
        assert_eq!(format!("{:?}", template.dialect), case.dialect, "{}", case.template);
        let rendered = template.render(&template_messages(&case.messages), &tools, true, false);
        assert_eq!(rendered.clone().ok(), case.text, "{}, {:?}: {rendered:?}", case.template, case.messages);
        refused += usize::from(case.text.is_none());
    }
    assert!(fixture.cases.len() - refused >= 25, "{refused} of {} are refused", fixture.cases.len());
}

#[test]
fn without_a_template_it_is_chatml() {
    let template = ChatTemplate::new(None, String::new(), String::new()).unwrap();
    let messages = template_messages(&[ChatMessage::new(Role::User, "Hi")]);
    assert_eq!(
        template.render(&messages, &[], true, false).unwrap(),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn json_looks_like_pythons() {
    let json = render("{{ {'a': [1, 2.5, none, true], 'ż': {'b': '<\"'}} | tojson }}").unwrap();
    assert_eq!(json, r#"{"a": [1, 2.5, null, true], "ż": {"b": "<\""}}"#);
    assert_eq!(render("{{ {'a': [1]} | tojson(indent=2) }}").unwrap(), "{\n  \"a\": [\n    1\n  ]\n}");
}

#[test]
fn refusals_and_endless_templates_are_errors() {
    assert_eq!(render("{{ raise_exception('no system role') }}").unwrap_err(), "no system role");
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{{ b }}{% endfor %}{% endfor %}";
    assert!(render(endless).is_err());
    assert!(template("{% for %}").is_err());
}

#[test]
fn the_date_is_told() {
    assert_eq!(
        render("{{ strftime_now('%d %b %Y, %A %B %m %y %H:%M:%S %%') }}").unwrap(),
        "26 Jul 2024, Friday July 07 24 12:00:00 %"
    );
    let at = |days: u32| strftime("%Y-%m-%d", UNIX_EPOCH + Duration::from_hours(24) * days);
    for (days, date) in [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_820, "2027-01-02")] {
        assert_eq!(at(days), date);
    }
}

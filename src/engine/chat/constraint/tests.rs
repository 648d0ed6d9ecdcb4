use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};

use super::super::tokenizer::tests::smollm;
use super::super::tools::ToolParser;
use super::*;
use crate::provider::{ChatMessage, OutputShape, Role, ToolSpec};

/// Tokens of a drawn reply at most.
const MOST_TOKENS: usize = 600;

/// A vocabulary, its factory, and the tokens that can end what is open.
struct Bench {
    tokenizer: Tokenizer,
    factory: ConstraintFactory,
    closing: Vec<u32>,
}

impl Bench {
    fn new(dialect: Dialect) -> Self {
        let tokenizer = smollm();
        let factory = ConstraintFactory::new(&tokenizer, dialect).unwrap();
        let closes = |id: &u32| {
            let bytes = tokenizer.shown(*id).unwrap();
            tokenizer.is_end(*id) || bytes.len() <= 3 && bytes.iter().any(|byte| b"\"}],:".contains(byte))
        };
        let closing = (0..tokenizer.len() as u32).filter(closes).collect();
        Self { tokenizer, factory, closing }
    }

    fn constraint(&self, request: &ChatRequest) -> Result<Option<Constraint>, ProviderError> {
        Constraint::new(&self.factory, &self.tokenizer, request, false)
    }

    /// A reply drawn from random logits. None: it did not come to its end.
    fn draw(&self, request: &ChatRequest, random: &mut StdRng) -> Result<Option<String>, ProviderError> {
        let mut constraint = self.constraint(request)?.expect("a constraint");
        let mut text = Vec::new();
        for step in 0..MOST_TOKENS {
            // As a model does, mostly ends what it has begun; more so the longer the reply.
            let bonus = 4.0 + step as f32 / 20.0;
            let mut logits: Vec<f32> = (0..self.tokenizer.len()).map(|_| random.random_range(0.0..8.0)).collect();
            self.closing.iter().for_each(|id| logits[*id as usize] += bonus);
            constraint.mask(&mut logits)?;
            for marker in self.factory.markers.iter() {
                assert!(logits[*marker as usize] == f32::NEG_INFINITY, "the marker {marker} is allowed");
            }
            let best = (0..).zip(&logits).max_by(|one, other| one.1.total_cmp(other.1)).unwrap();
            assert!(best.1.is_finite());
            let token: u32 = best.0;
            if self.tokenizer.is_end(token) {
                return Ok(Some(String::from_utf8(text).expect("whole characters")));
            }
            let shown = self.tokenizer.shown(token).unwrap();
            text.extend_from_slice(shown);
            if constraint.accept(token, shown)? == Progress::Complete {
                return Ok(Some(String::from_utf8(text).expect("whole characters")));
            }
        }
        Ok(None)
    }
}

fn shaped(shape: OutputShape) -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::new(Role::User, "Go.")], shape: Some(shape), ..ChatRequest::default() }
}

fn tools() -> Vec<ToolSpec> {
    let weather = json!({
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 20},
            "unit": {"$ref": "#/$defs/unit"},
        },
        "required": ["city"],
        "additionalProperties": false,
        "$defs": {"unit": {"enum": ["C", "F"]}},
    });
    let dice = json!({"type": "object", "properties": {"sides": {"type": "integer", "minimum": 2, "maximum": 20}},
                      "required": ["sides"], "additionalProperties": false});
    [("get_weather", weather), ("roll-dice", dice)]
        .map(|(name, parameters)| ToolSpec { name: name.to_owned(), description: String::new(), parameters })
        .to_vec()
}

/// A random schema that llguidance knows all words of.
fn schema(random: &mut StdRng, depth: usize) -> Value {
    let kinds = if depth == 0 { 6 } else { 10 };
    match random.random_range(0..kinds) {
        0 => json!({"type": "boolean"}),
        1 => {
            let (least, more) = (random.random_range(-50..50), random.random_range(0..100));
            let kind = ["integer", "number"].choose(random).unwrap();
            json!({"type": kind, "minimum": least, "maximum": least + more})
        }
        2 => {
            let (least, more) = (random.random_range(0..4), random.random_range(0..12));
            json!({"type": "string", "minLength": least, "maxLength": least + more})
        }
        3 => {
            let patterns = ["^[a-z]{2,5}$", "^(yes|no)$", "^\\d{3}-\\d{2}$", "^a.b$", "x+"];
            let pattern = patterns.choose(random).unwrap();
            json!({"type": "string", "pattern": pattern})
        }
        4 => {
            let values =
                [json!("a"), json!("ż\"\\\n"), json!(1), json!(-2.5), json!(null), json!(true), json!([1, {}])];
            let count = random.random_range(1..4);
            let values: Vec<&Value> = values.iter().choose_multiple(random, count);
            json!({"enum": values})
        }
        5 => match random.random_range(0..5) {
            0 => json!({"const": {"k": [1, "two", null]}}),
            1 => json!({"type": "null"}),
            2 => json!({"type": ["string", "null"], "maxLength": 5}),
            3 => {
                // Not those with a time: any minute may have a leap second in RFC 3339, and none but midnight's here.
                let format = ["date", "uuid", "ipv4"].choose(random).unwrap();
                json!({"type": "string", "format": format})
            }
            _ => {
                let step = random.random_range(2..9);
                json!({"type": "integer", "multipleOf": step, "minimum": 0, "maximum": 100_000})
            }
        },
        6 => {
            let least = random.random_range(0..3);
            let most = least + random.random_range(0..3);
            let items = schema(random, depth - 1);
            json!({"type": "array", "items": items, "minItems": least, "maxItems": most})
        }
        7 => {
            let options: Vec<Value> = (0..random.random_range(1..4)).map(|_| schema(random, depth - 1)).collect();
            json!({"anyOf": options})
        }
        _ => object(random, depth),
    }
}

fn object(random: &mut StdRng, depth: usize) -> Value {
    let names = ["a", "b c", "ż", "d\"e", "name", "value", "f/g", "h~i"];
    let count = random.random_range(0..5);
    let names: Vec<&str> = names.into_iter().choose_multiple(random, count);
    let entries: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), schema(random, depth.saturating_sub(1)))).collect();
    let required: Vec<&&str> = names.iter().filter(|_| random.random_bool(0.6)).collect();
    let mut object = json!({"type": "object", "properties": entries, "required": required});
    match random.random_range(0..3) {
        0 => object["additionalProperties"] = json!(false),
        1 => object["additionalProperties"] = json!({"type": "integer"}),
        _ => {}
    }
    object
}

/// Some with definitions, one of them recursive.
fn root_schema(random: &mut StdRng) -> Value {
    let mut root = if random.random_bool(0.7) { object(random, 3) } else { schema(random, 3) };
    if random.random_bool(0.25) && root.get("properties").is_some() {
        let leaf = schema(random, 1);
        root["$defs"] = json!({
            "leaf": leaf,
            "tree": {"type": "object", "properties": {"next": {"$ref": "#/$defs/tree"}, "leaf": {"$ref": "#/$defs/leaf"}},
                     "additionalProperties": false},
        });
        root["properties"]["tree"] = json!({"$ref": "#/$defs/tree"});
    }
    root
}

#[test]
fn every_completed_output_of_five_hundred_random_schemas_validates() {
    let bench = Bench::new(Dialect::Generic);
    let mut random = StdRng::seed_from_u64(20);
    let (mut completed, mut refused) = (0, Vec::new());
    for _ in 0..500 {
        let schema = root_schema(&mut random);
        match bench.draw(&shaped(OutputShape::JsonSchema(schema.clone())), &mut random) {
            Ok(Some(text)) => {
                let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
                let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
                assert!(validator.is_valid(&value), "{schema}\nallowed {text}");
                completed += 1;
            }
            Ok(None) => {}
            Err(error) => refused.push(format!("{schema}: {error}")),
        }
    }
    assert!(refused.len() <= 10, "{}", refused.join("\n"));
    assert!(completed >= 450, "only {completed} came to an end");
}

fn hostile_schemas() -> Vec<(&'static str, Value)> {
    let nested = |levels: usize| (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"items": inner}));
    let words: Vec<String> = (0..200_000).map(|number| format!("word number {number}")).collect();
    let doubling = (0..40).map(|level| {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        let either = |name: String| json!({"anyOf": [next, {"type": "object", "properties": {name: next}}]});
        (format!("d{level}"), json!({"allOf": [either(format!("p{level}")), either(format!("q{level}"))]}))
    });
    let mut definitions: Map<String, Value> = doubling.collect();
    definitions.insert("d40".to_owned(), json!({"type": "object"}));
    let wide: Map<String, Value> =
        (0..20_000).map(|number| (format!("key{number}"), json!({"type": "string"}))).collect();
    let option = |name: String| json!({"properties": {name: {"type": "string"}}});
    let level = |level: usize| (0..8).map(|place| option(format!("k{level}{place}"))).collect::<Vec<_>>();
    let all_of: Vec<Value> = (0..12).map(|number| json!({"anyOf": level(number)})).collect();
    vec![
        ("deep nesting", nested(500)),
        ("a huge enum", json!({"enum": words})),
        ("exponential alternations", json!({"allOf": all_of})),
        ("doubling definitions", json!({"$ref": "#/$defs/d0", "$defs": definitions})),
        ("an enormous minLength", json!({"type": "string", "minLength": 1_000_000_000})),
        ("an enormous minItems", json!({"type": "array", "minItems": 4_000_000_000_u64})),
        ("an enormous maxItems", json!({"type": "array", "items": {"type": "object"}, "maxItems": 1e15})),
        ("an enormous maxLength", json!({"type": "string", "maxLength": u64::MAX})),
        ("a reference to itself", json!({"$ref": "#"})),
        (
            "a ring of references",
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}),
        ),
        ("endless recursion", json!({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]})),
        ("a remote reference", json!({"$ref": "http://169.254.169.254/latest/meta-data"})),
        ("a reference to a file", json!({"properties": {"a": {"$ref": "file:///etc/passwd"}}})),
        ("a dangling reference", json!({"$ref": "#/$defs/missing"})),
        ("an unknown type", json!({"type": "colour"})),
        ("a number for a type", json!({"type": 7})),
        ("a schema that is no object", json!([1, 2, 3])),
        ("what nothing matches", json!({"type": "object", "properties": {"a": false}, "required": ["a"]})),
        ("an empty enum", json!({"enum": []})),
        ("bounds the wrong way round", json!({"type": "integer", "minimum": 5, "maximum": 4})),
        ("a lookahead bomb", json!({"type": "string", "pattern": "^(?=(a+)+$)(?!.*b)(a|aa)*$"})),
        ("a huge repetition", json!({"type": "string", "pattern": "(x{1,1000000000}y){1,1000000000}"})),
        ("twenty thousand properties", json!({"type": "object", "properties": wide})),
        ("llguidance's own options", json!({"type": "object", "x-guidance": {"lenient": true}})),
        ("an unknown word", json!({"type": "array", "uniqueItems": true, "contains": {"type": "null"}})),
    ]
}

/// How long the refusal took, or that there was none.
fn refusal(bench: &Bench, shape: OutputShape) -> Result<Duration, String> {
    let started = Instant::now();
    let outcome = bench
        .constraint(&shaped(shape))
        .and_then(|constraint| constraint.expect("a constraint").mask(&mut vec![0.0; bench.tokenizer.len()]));
    match outcome {
        Err(ProviderError::InvalidRequest { field: "shape", .. }) => Ok(started.elapsed()),
        other => Err(format!("{other:?} after {:?}", started.elapsed())),
    }
}

#[test]
fn hostile_schemas_are_refused_in_time() {
    let bench = Bench::new(Dialect::Generic);
    let schemas = hostile_schemas();
    assert!(schemas.len() >= 20);
    let mut failures = Vec::new();
    for (name, schema) in schemas {
        match refusal(&bench, OutputShape::JsonSchema(schema)) {
            Ok(took) if took < COMPILE_TIME + Duration::from_millis(50) => {}
            other => failures.push(format!("{name}: {other:?}")),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert_eq!(bench.factory.compiling.load(Ordering::Acquire), 0, "a compiler is still at work");
}

#[test]
fn hostile_grammars_are_refused_in_time() {
    let bench = Bench::new(Dialect::Generic);
    let deep = format!("start: {}\"a\"{}", "(".repeat(50_000), ")".repeat(50_000));
    for lark in [
        "",
        "begin: \"a\"",
        "start: start",
        "start: missing",
        "start: <|im_start|>",
        "start: <[1]>",
        "start: <[4000000000]>",
        "start: /(/",
        "start: \"a\"{1000000000}",
        &deep,
        &"start: /a/\n".repeat(100_000),
    ] {
        let took = refusal(&bench, OutputShape::Grammar(lark.to_owned()));
        assert!(took.as_ref().is_ok_and(|took| *took < COMPILE_TIME), "{lark:.60}: {took:?}");
    }
    for regex in ["(", "(a{0,500}){0,500}){0,500}", "(a{1,1000000000}){1,1000000000}", "(?=a)b", "\\p{Nothing}"] {
        let took = refusal(&bench, OutputShape::Regex(regex.to_owned()));
        assert!(took.as_ref().is_ok_and(|took| *took < COMPILE_TIME), "{regex}: {took:?}");
    }
}

#[test]
fn what_is_hard_to_match_costs_little_at_each_step() {
    let bench = Bench::new(Dialect::Generic);
    let mut random = StdRng::seed_from_u64(5);
    let optional: Map<String, Value> =
        (0..300).map(|number| (format!("key{number}"), json!({"type": "string"}))).collect();
    let powers: Vec<Value> = (2..60).map(|n| json!({"type": "string", "pattern": format!("^(a{{{n}}})*$")})).collect();
    for shape in [
        OutputShape::JsonSchema(json!({"type": "string", "pattern": "^((a{0,500}){0,500}){0,500}$"})),
        OutputShape::JsonSchema(json!({"allOf": powers})),
        OutputShape::Regex("((a{0,400}){0,400}){0,400}".to_owned()),
        OutputShape::Regex("(x+x+)+y".to_owned()),
        OutputShape::Regex("(.*a.{12}|.*b.{13})".to_owned()),
        OutputShape::Grammar("start: a\na: \"x\" | a a | a a a".to_owned()),
        OutputShape::JsonSchema(json!({"type": "object", "properties": optional})),
        OutputShape::JsonSchema(
            json!({"type": "array", "items": {"type": "string", "maxLength": 1000}, "maxItems": 1000}),
        ),
    ] {
        let name = format!("{shape:?}");
        let started = Instant::now();
        let (mut steps, mut longest) = (0, Duration::ZERO);
        let mut constraint = bench.constraint(&shaped(shape)).unwrap().unwrap();
        let end = loop {
            let mut logits: Vec<f32> = (0..bench.tokenizer.len()).map(|_| random.random()).collect();
            let step = Instant::now();
            if let Err(error) = constraint.mask(&mut logits) {
                break error.to_string();
            }
            let token = (0..).zip(&logits).max_by(|one, other| one.1.total_cmp(other.1)).unwrap().0;
            if steps == 60 || bench.tokenizer.is_end(token) {
                break "an end".to_owned();
            }
            constraint.accept(token, bench.tokenizer.shown(token).unwrap()).unwrap();
            longest = longest.max(step.elapsed());
            steps += 1;
        };
        assert!(longest < COMPILE_TIME, "{name:.60}: {longest:?} for one of {steps} steps, {end}");
        eprintln!("{name:.60}: {steps} steps to {end}, longest {longest:?}, in all {:?}", started.elapsed());
    }
}

#[test]
fn shapes_hold() {
    let bench = Bench::new(Dialect::Generic);
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..5 {
        if let Some(text) = bench.draw(&shaped(OutputShape::Json), &mut random).unwrap() {
            assert!(serde_json::from_str::<Map<String, Value>>(&text).is_ok(), "{text}");
        }
        let regex = shaped(OutputShape::Regex("[A-Z]{3}-(one|two)/\"x\"".to_owned()));
        let text = bench.draw(&regex, &mut random).unwrap().unwrap();
        assert!(text.len() == 11 && (text.ends_with("one/\"x\"") || text.ends_with("two/\"x\"")), "{text}");
        let lark = "start: greeting \" \" NAME \"!\"\ngreeting: \"hello\" | \"good\" \" \" \"day\"\nNAME: /[a-c]{2,4}/";
        let text = bench.draw(&shaped(OutputShape::Grammar(lark.to_owned())), &mut random).unwrap().unwrap();
        let name =
            text.strip_prefix("hello ").or(text.strip_prefix("good day ")).and_then(|rest| rest.strip_suffix('!'));
        assert!(name.is_some_and(|name| name.bytes().all(|letter| (b'a'..=b'c').contains(&letter))), "{text}");
    }
}

#[test]
fn a_class_that_leaves_quotes_out_keeps_them_out() {
    let bench = Bench::new(Dialect::Generic);
    let mut random = StdRng::seed_from_u64(6);
    let schema = json!({"type": "string", "pattern": "^[^\"\\\\]{0,30}$"});
    for _ in 0..20 {
        let shape = OutputShape::JsonSchema(schema.clone());
        let Some(text) = bench.draw(&shaped(shape), &mut random).unwrap() else { continue };
        let value: Value = serde_json::from_str(&text).unwrap();
        assert!(jsonschema::is_valid(&schema, &value), "{text}");
    }
    let with_constant = json!({"anyOf": [schema, {"const": "a \"quote\""}]});
    refusal(&bench, OutputShape::JsonSchema(with_constant)).unwrap();
}

#[test]
fn required_calls_come_in_each_familys_form() {
    let mut random = StdRng::seed_from_u64(4);
    for dialect in [Dialect::Hermes, Dialect::Llama, Dialect::Mistral, Dialect::MistralArguments, Dialect::Generic] {
        let bench = Bench::new(dialect);
        for choice in [ToolChoice::Required, ToolChoice::Named("roll-dice".to_owned())] {
            let request = ChatRequest { tools: tools(), tool_choice: choice.clone(), ..ChatRequest::default() };
            for _ in 0..4 {
                let Some(text) = bench.draw(&request, &mut random).unwrap() else { continue };
                let mut parser = ToolParser::new(dialect, &request.tools.iter().collect::<Vec<_>>());
                let mut parsed = parser.push(&text);
                let last = parser.finish();
                parsed.calls.extend(last.calls);
                assert_eq!((parsed.text + &last.text).trim(), "", "{dialect:?}: {text}");
                assert!(!parsed.calls.is_empty(), "{dialect:?}: {text}");
                for call in parsed.calls {
                    let tool = request.tools.iter().find(|tool| tool.name == call.name).unwrap();
                    let arguments: Value = serde_json::from_str(&call.arguments).unwrap();
                    assert!(jsonschema::is_valid(&tool.parameters, &arguments), "{dialect:?}: {text}");
                    assert!(choice == ToolChoice::Required || call.name == "roll-dice", "{text}");
                }
            }
        }
    }
}

/// Feeds `text` token by token. The first that is not allowed is an error.
fn follow(bench: &Bench, constraint: &mut Constraint, text: &str) -> Result<Progress, String> {
    let mut progress = Progress::More;
    for token in bench.tokenizer.encode_text(text).unwrap() {
        let mut logits = vec![0.0; bench.tokenizer.len()];
        constraint.mask(&mut logits).map_err(|error| error.to_string())?;
        let shown = bench.tokenizer.shown(token).unwrap();
        if logits[token as usize] != 0.0 {
            return Err(format!("not allowed: {:?}", String::from_utf8_lossy(shown)));
        }
        progress = constraint.accept(token, shown).map_err(|error| error.to_string())?;
    }
    Ok(progress)
}

fn can_end(bench: &Bench, constraint: &mut Constraint) -> bool {
    let mut logits = vec![0.0; bench.tokenizer.len()];
    constraint.mask(&mut logits).is_ok() && logits[bench.tokenizer.ends()[0] as usize] == 0.0
}

#[test]
fn a_family_without_tools_may_speak_or_call() {
    let bench = Bench::new(Dialect::Generic);
    let request = ChatRequest { tools: tools(), ..ChatRequest::default() };
    let new = || bench.constraint(&request).unwrap().unwrap();
    let mut speaks = new();
    follow(&bench, &mut speaks, "It is < 5 and {\"so\": on} <tool>.\nYes").unwrap();
    assert!(can_end(&bench, &mut speaks));
    let mut calls = new();
    let call = "<tool_call>\n{\"name\": \"roll-dice\", \"arguments\": {\"sides\": 6}}\n</tool_call>";
    follow(&bench, &mut calls, &format!("Let me see.\n{call}")).unwrap();
    assert!(can_end(&bench, &mut calls));
    let mut calls_twice = new();
    follow(&bench, &mut calls_twice, &format!("{call}\n{call}")).unwrap();
    let wrong = "<tool_call>\n{\"name\": \"roll-dice\", \"arguments\": {\"sides\": 21}}";
    assert!(follow(&bench, &mut new(), wrong).is_err());
    assert!(follow(&bench, &mut new(), "<tool_call>\n{\"name\": \"other").is_err());
    let mut unfinished = new();
    follow(&bench, &mut unfinished, "<tool_call>\n{\"name\"").unwrap();
    assert!(!can_end(&bench, &mut unfinished));
}

#[test]
fn choices_decide_what_is_held() {
    let hermes = Bench::new(Dialect::Hermes);
    let request = |choice: ToolChoice, shape: Option<OutputShape>| ChatRequest {
        tools: tools(),
        tool_choice: choice,
        shape,
        ..ChatRequest::default()
    };
    let constraint = |request: &ChatRequest| hermes.constraint(request).unwrap();
    assert!(constraint(&ChatRequest::default()).is_none());
    assert!(constraint(&request(ToolChoice::Auto, None)).is_none(), "a family that was taught calls is trusted");
    assert!(constraint(&request(ToolChoice::None, None)).is_none(), "there is no marker to ban");
    let object = Some(OutputShape::JsonSchema(json!({"type": "object", "properties": {"ok": {"type": "boolean"}},
                                                     "required": ["ok"], "additionalProperties": false})));
    let mut shape_only = constraint(&request(ToolChoice::None, object.clone())).unwrap();
    assert_eq!(follow(&hermes, &mut shape_only, "{\"ok\": true}"), Ok(Progress::Complete));
    let mut either = constraint(&request(ToolChoice::Auto, object.clone())).unwrap();
    follow(&hermes, &mut either, "{\"ok\": true}").unwrap();
    let mut either = constraint(&request(ToolChoice::Auto, object.clone())).unwrap();
    follow(&hermes, &mut either, "<tool_call>\n{\"name\": \"roll-dice\", \"arguments\": {\"sides\": 6}}\n</tool_call>")
        .unwrap();
    let mut either = constraint(&request(ToolChoice::Auto, object)).unwrap();
    assert!(follow(&hermes, &mut either, "Hello").is_err());
    for (request, field) in [
        (request(ToolChoice::Named("other".to_owned()), None), "tool_choice"),
        (ChatRequest { tool_choice: ToolChoice::Required, ..ChatRequest::default() }, "tool_choice"),
        (
            ChatRequest {
                tools: vec![ToolSpec { name: "a b".to_owned(), ..tools().remove(0) }],
                ..ChatRequest::default()
            },
            "tools",
        ),
        (
            ChatRequest {
                tools: vec![ToolSpec { parameters: json!(1), ..tools().remove(0) }],
                ..ChatRequest::default()
            },
            "tools",
        ),
    ] {
        let error = hermes.constraint(&request).err();
        assert!(
            matches!(&error, Some(ProviderError::InvalidRequest { field: named, .. }) if *named == field),
            "{error:?}"
        );
    }
}

#[test]
fn thoughts_before_the_answer_are_free() {
    let bench = Bench::new(Dialect::Hermes);
    let request = shaped(OutputShape::Regex("[0-9]+".to_owned()));
    let mut constraint = Constraint::new(&bench.factory, &bench.tokenizer, &request, true).unwrap().unwrap();
    follow(&bench, &mut constraint, "Let me count: two and two.</think>").unwrap();
    assert!(follow(&bench, &mut constraint, "four").is_err());
    let mut constraint = Constraint::new(&bench.factory, &bench.tokenizer, &request, true).unwrap().unwrap();
    follow(&bench, &mut constraint, "Hm.\n</think>").unwrap();
    follow(&bench, &mut constraint, "44").unwrap();
    assert!(can_end(&bench, &mut constraint));
}

#[test]
fn too_many_compilers_are_an_overload() {
    let bench = Bench::new(Dialect::Generic);
    let busy: Vec<_> = (0..MOST_COMPILING).map(|_| Compiling::begin(&bench.factory.compiling).unwrap()).collect();
    let refused = bench.constraint(&shaped(OutputShape::Json)).err();
    assert!(matches!(refused, Some(ProviderError::Overloaded { .. })), "{refused:?}");
    drop(busy);
    let mut constraint = bench.constraint(&shaped(OutputShape::Json)).unwrap().unwrap();
    while !constraint.is_ready() {
        thread::sleep(Duration::from_millis(1));
    }
    constraint.mask(&mut vec![0.0; bench.tokenizer.len()]).unwrap();
}

//! Ten thousand frames that no client should send: every one is answered as the contract says, and none closes.
//!
//! Seeded, so that what fails once fails again.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::SinkExt;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::fixture::{Client, of, server_with, usually};

const SOCKETS: u64 = 4;
const BATCHES: u64 = 50;
const FRAMES_PER_BATCH: u64 = 50;

/// docs/PROTOCOL.md has them.
const CODES: [&str; 20] = [
    "bad_json",
    "unknown_type",
    "bad_field",
    "bad_audio",
    "unsupported_rate",
    "too_large",
    "rate_limited",
    "conversation_not_found",
    "character_not_found",
    "item_not_found",
    "model_unavailable",
    "voice_unavailable",
    "language_unsupported",
    "session_limit_reached",
    "provider_failed",
    "budget_exceeded",
    "content_filtered",
    "out_of_memory",
    "storage_full",
    "internal",
];

/// What is owed for a frame.
#[derive(Clone, Debug, PartialEq)]
enum Due {
    /// An error with this `ref`.
    To(String),
    /// An error that cannot name its frame.
    Error,
    /// Whatever the session makes of it.
    Anything,
}

/// What a field holds, and so what it cannot.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Count,
    Number,
    Switch,
    Choice,
    List,
    Vad,
    /// What is set for single characters.
    Single,
}

impl Kind {
    fn wrong(self) -> Vec<Value> {
        let never = [json!([[]]), json!({"a": [1]})];
        let more = match self {
            Self::Text => vec![json!(true), json!(7), json!(-1.5e300), json!([])],
            Self::Count => vec![json!("1"), json!(-1), json!(1.5), json!(1e300), json!(true), json!("")],
            Self::Number => vec![json!("1"), json!(1e300), json!(-3), json!(false)],
            Self::Switch => vec![json!(1), json!("true"), json!(0.0)],
            Self::Choice => vec![json!(""), json!("nonsense"), json!(7), json!("\u{0}"), json!(true)],
            Self::List => vec![json!("x"), json!(7), json!([1, 2]), json!([null])],
            Self::Single => vec![
                json!(7),
                json!(null),
                json!({"mira-001": 7}),
                json!({"mira-001": null}),
                json!({"mira-001": {"temperature": "high"}}),
                json!({"mira-001": {"vad": null}}),
                json!({"mira-001": {"characters": {}}}),
            ],
            Self::Vad => vec![
                json!(7),
                json!("server"),
                json!({"threshold": "high"}),
                json!({"threshold": 7}),
                json!({"silence_ms": -1}),
                json!({"mode": "psychic"}),
                json!({"volume": 1}),
            ],
        };
        [never.as_slice(), &more].concat()
    }
}

/// A field's name, what it holds, and a value that is right.
type Field = (&'static str, Kind, Value);

/// Every message: its type, how many fields it must have, and its fields, those first.
fn messages() -> Vec<(&'static str, usize, Vec<Field>)> {
    use Kind::{Choice, Count, List, Number, Single, Switch, Text, Vad};
    let sound = STANDARD.encode([0; 640]);
    let settings = vec![
        ("model", Text, json!("somebody")),
        ("temperature", Number, json!(0.5)),
        ("top_p", Number, json!(0.9)),
        ("top_k", Count, json!(5)),
        ("max_tokens", Count, json!(20)),
        ("seed", Count, json!(7)),
        ("stop", List, json!(["x"])),
        ("system_prompt", Text, json!("Be brief.")),
        ("summarize_history", Switch, json!(false)),
        ("stt_model", Text, json!("somebody")),
        ("languages", List, json!([])),
        ("tts_model", Text, json!(null)),
        ("speed", Number, json!(1.5)),
        ("output", Choice, json!("text")),
        ("audio_format", Choice, json!("opus")),
        ("lead_ms", Count, json!(400)),
        ("vad", Vad, json!({"silence_ms": 400})),
        ("turn_taking", Choice, json!("all")),
    ];
    let regenerate = [vec![("item_id", Text, json!("nothing"))], settings.clone()].concat();
    let settings = [settings, vec![("characters", Single, json!({}))]].concat();
    vec![
        (
            "audio_chunk",
            2,
            vec![
                ("audio_data", Text, json!(sound)),
                ("sample_rate", Count, json!(16_000)),
                ("format", Choice, json!("pcm")),
                ("channels", Count, json!(1)),
            ],
        ),
        (
            "text_message",
            1,
            vec![
                ("text", Text, json!("Hello, you")),
                ("client_message_id", Text, json!("m")),
                ("output", Choice, json!("text")),
                ("character_ids", List, json!([])),
            ],
        ),
        ("characters", 1, vec![("character_ids", List, json!(["mira-001"]))]),
        ("next_speaker", 1, vec![("character_id", Text, json!("mira-001"))]),
        ("commit", 0, vec![]),
        ("cancel_input", 0, vec![]),
        ("interrupt", 0, vec![("item_id", Text, json!("nothing")), ("played_ms", Count, json!(5))]),
        ("playback_ack", 2, vec![("item_id", Text, json!("nothing")), ("played_ms", Count, json!(5))]),
        ("regenerate", 1, regenerate),
        ("settings", 0, settings),
        ("ping", 0, vec![]),
        ("resume", 0, vec![]),
    ]
}

struct Storm {
    random: StdRng,
    is_binary: bool,
}

impl Storm {
    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from.choose(&mut self.random).unwrap().clone()
    }

    /// A message that is right.
    fn message(&mut self, reference: &str) -> Value {
        let (kind, _, fields) = self.pick(&messages());
        let mut message = json!({"type": kind, "ref": reference});
        for (name, _, value) in fields {
            message[name] = value;
        }
        message
    }

    fn frame(&mut self, reference: String) -> (Message, Due) {
        let owed = Due::To(reference.clone());
        match self.random.random_range(0..10) {
            0..=3 => self.wrong_field(reference),
            4 => {
                let message = self.message(&reference);
                (Message::text(message.to_string()), Due::Anything)
            }
            5 => {
                let mut message = self.message(&reference);
                let kinds = [json!("sing"), json!(""), json!(7), json!(null), json!([]), json!("Ping"), json!("ping ")];
                message["type"] = self.pick(&kinds);
                (Message::text(message.to_string()), owed)
            }
            6 => {
                let text = self.message(&reference).to_string();
                let length = self.random.random_range(0..text.len());
                let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= length).last().unwrap();
                (Message::text(text[..cut].to_owned()), Due::Error)
            }
            7 => self.odd_text(&reference),
            _ => self.bytes(),
        }
    }

    fn wrong_field(&mut self, reference: String) -> (Message, Due) {
        let with_fields: Vec<_> = messages().into_iter().filter(|(_, _, fields)| !fields.is_empty()).collect();
        let (kind, required, fields) = self.pick(&with_fields);
        let mut message = json!({"type": kind, "ref": reference});
        for (name, _, value) in &fields {
            message[*name] = value.clone();
        }
        let missing = required > 0 && self.random.random_bool(0.2);
        if missing {
            let (name, ..) = self.pick(&fields[..required]);
            message[name] = self.pick(&[Value::Null, json!({"not": "this"})]);
        } else if matches!(kind, "settings" | "regenerate") && self.random.random_bool(0.1) {
            message["volume"] = json!(11);
        } else {
            let (name, kind, _) = self.pick(&fields);
            message[name] = self.pick(&kind.wrong());
        }
        (Message::text(message.to_string()), Due::To(reference))
    }

    fn odd_text(&mut self, reference: &str) -> (Message, Due) {
        let depth = self.random.random_range(1..20_000);
        let nested = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let text = match self.random.random_range(0..6) {
            0 => nested,
            1 => format!(r#"{{"type": "ping", "x": {nested}}}"#),
            2 => format!(r#"{{"type": "playback_ack", "item_id": "i", "played_ms": 1e{depth}}}"#),
            3 => format!(
                r#"{{"type": "interrupt", "ref": "{reference}", "played_ms": {}}}"#,
                "9".repeat(depth % 400 + 1)
            ),
            4 => (0..depth % 200).map(|_| self.random.random::<char>()).collect(),
            _ => {
                // One character of a message becomes another.
                let mut characters: Vec<char> = self.message(reference).to_string().chars().collect();
                let at = self.random.random_range(0..characters.len());
                characters[at] = self.random.random();
                characters.into_iter().collect()
            }
        };
        let is_object = serde_json::from_str::<Value>(&text).is_ok_and(|value| value.is_object());
        (Message::text(text), if is_object { Due::Anything } else { Due::Error })
    }

    fn bytes(&mut self) -> (Message, Due) {
        let length = self.random.random_range(0..2_000);
        let mut frame: Vec<u8> = (0..length).map(|_| self.random.random()).collect();
        if frame.len() > 1 && self.random.random_bool(0.8) {
            frame[0] = 1;
            frame[1] = self.random.random_range(0..4);
        }
        let due = match frame.get(..2) {
            _ if !self.is_binary || frame.len() < 16 => Due::Error,
            Some([1, 0]) if frame.len() % 2 == 1 => Due::Error,
            Some([1, format]) if *format > 1 => Due::Error,
            _ => Due::Anything,
        };
        (Message::binary(frame), due)
    }
}

/// Sends a batch, and sees that all of it is answered.
async fn batch(client: &mut Client, storm: &mut Storm, number: u64) {
    let mut sent = BTreeMap::new();
    let mut nameless = Vec::new();
    for frame in 0..FRAMES_PER_BATCH {
        let reference = format!("{number}.{frame}");
        let (message, due) = storm.frame(reference);
        match due {
            Due::To(reference) => drop(sent.insert(reference, message.clone())),
            Due::Error => nameless.push(message.clone()),
            Due::Anything => {}
        }
        client.socket.feed(message).await.unwrap();
    }
    let end = format!("end of {number}");
    client.send(json!({"type": "ping", "ref": end})).await;
    let mut answers: Vec<Value> = Vec::new();
    // Frames of sound may be among them.
    while answers.last().is_none_or(|answer| answer["type"] != "pong" || answer["ref"] != end) {
        match client.frame().await.expect("an open socket").unwrap() {
            Message::Text(text) => answers.push(serde_json::from_str(&text).unwrap()),
            Message::Close(close) => panic!("closed in batch {number}: {close:?}"),
            _ => {}
        }
    }
    let errors = of(&answers, "error");
    for error in &errors {
        assert!(CODES.contains(&error["code"].as_str().unwrap()), "{error}");
        assert!(error["message"].is_string() && error["retryable"].is_boolean() && error["seq"].is_u64(), "{error}");
    }
    let told: BTreeSet<_> = errors.iter().filter_map(|error| error["ref"].as_str()).collect();
    for (reference, message) in &sent {
        assert!(told.contains(reference.as_str()), "no error for {message:?}");
    }
    let without = errors.iter().filter(|error| error.get("ref").is_none()).count();
    assert!(without >= nameless.len(), "{without} errors for {nameless:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_odd_frames_are_answered_and_none_closes() {
    const { assert!(SOCKETS * BATCHES * FRAMES_PER_BATCH == 10_000) }
    let server = server_with(|state| usually(state, "hello there", "Still here.")).await;
    let storms = (0..SOCKETS).map(async |seed| {
        let is_binary = seed % 2 == 1;
        let mut client = server.connect(if is_binary { "?protocol=binary" } else { "" }).await;
        let mut storm = Storm { random: StdRng::seed_from_u64(seed), is_binary };
        for number in 0..BATCHES {
            batch(&mut client, &mut storm, number).await;
        }
    });
    join_all(storms).await;
    let mut client = server.started().await;
    client.say("hello").await;
    let told = client.until("turn_complete").await;
    assert_eq!(of(&told, "text_done")[0]["text"], "Still here.", "{told:?}");
}

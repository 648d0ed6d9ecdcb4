use std::time::Duration;

use axum::extract::ws::Message;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{AudioChunk, ClientMessage, Encoder, Notice, Protocol, Refusal, Resume, read, read_frame, text};
use crate::audio::wav::WireFormat;
use crate::audio::{Samples, Speech};
use crate::provider::{ProviderError, Role, Usage, Word, WordMark};
use crate::session::event::{
    AudioPiece, Complaint, Input, Output, Participant, ServedBy, Timings, Told, Transcription, Turn, TurnReport,
};
use crate::session::record::MessageStatus;
use crate::session::settings::{AudioFormat, OutputKind, Settings, SettingsPatch};

fn message(value: &Value) -> ClientMessage {
    read(&value.to_string()).unwrap().message
}

#[test]
fn every_message_of_the_protocol_is_read() {
    let audio =
        json!({"type": "audio_chunk", "audio_data": "AAEC", "format": "pcm", "sample_rate": 44100, "channels": 2});
    let chunk = AudioChunk { data: vec![0, 1, 2], format: WireFormat::Pcm, sample_rate: 44_100, channels: 2 };
    assert_eq!(message(&audio), ClientMessage::Audio(chunk));
    let opus = json!({"type": "audio_chunk", "audio_data": "AAEC", "format": "opus"});
    assert_eq!(message(&opus), ClientMessage::Packet(vec![0, 1, 2]));
    let wav = json!({"type": "audio_chunk", "audio_data": "", "format": "wav"});
    let chunk = AudioChunk { data: vec![], format: WireFormat::Wav, sample_rate: 0, channels: 1 };
    assert_eq!(message(&wav), ClientMessage::Audio(chunk));

    let text = json!({"type": "text_message", "text": " hi ", "client_message_id": "c", "output": "text",
                      "attachments": [], "new_field": {}});
    let input = Input::Text {
        text: " hi ".into(),
        client_message_id: Some("c".into()),
        terms: SettingsPatch { output: Some(OutputKind::Text), ..SettingsPatch::default() },
        character_ids: Vec::new(),
    };
    assert_eq!(message(&text), ClientMessage::Session(input));
    let plain = [
        (json!({"type": "commit"}), Input::Commit),
        (json!({"type": "cancel_input"}), Input::CancelInput),
        (json!({"type": "interrupt"}), Input::Interrupt { item_id: None, played_ms: None }),
        (
            json!({"type": "interrupt", "item_id": "i", "played_ms": 250}),
            Input::Interrupt { item_id: Some("i".into()), played_ms: Some(250) },
        ),
        (
            json!({"type": "playback_ack", "item_id": "i", "played_ms": 0}),
            Input::PlaybackAck { item_id: "i".into(), played_ms: 0 },
        ),
        (
            json!({"type": "regenerate", "item_id": "i", "temperature": 0.5, "model": "m"}),
            Input::Regenerate {
                item_id: "i".into(),
                terms: SettingsPatch {
                    temperature: Some(0.5),
                    model: Some(Some("m".into())),
                    ..SettingsPatch::default()
                },
            },
        ),
        (
            json!({"type": "settings", "ref": "x", "vad": null, "top_k": 3}),
            Input::Settings(SettingsPatch { vad: Some(None), top_k: Some(3), ..SettingsPatch::default() }),
        ),
    ];
    for (value, input) in plain {
        assert_eq!(message(&value), ClientMessage::Session(input), "{value}");
    }
    let models = json!({"type": "settings", "model": "m", "stt_model": null, "tts_model": "t",
                        "characters": {"mira-001": {"model": "n", "speed": 1.5}}});
    let own = SettingsPatch { model: Some(Some("n".into())), speed: Some(1.5), ..SettingsPatch::default() };
    let input = Input::Settings(SettingsPatch {
        model: Some(Some("m".into())),
        stt_model: Some(None),
        tts_model: Some(Some("t".into())),
        characters: Some([("mira-001".to_owned(), own)].into()),
        ..SettingsPatch::default()
    });
    assert_eq!(message(&models), ClientMessage::Session(input));
    let resume = json!({"type": "resume", "session_id": "s", "resume_token": "t", "last_seq": 3});
    let wanted = Resume { session_id: "s".into(), token: "t".into(), last_seq: 3 };
    assert_eq!(message(&resume), ClientMessage::Resume(wanted));
    let ping = read(r#"{"ref": "r", "type": "ping"}"#).unwrap();
    assert_eq!((ping.message, ping.reference.as_deref()), (ClientMessage::Ping, Some("r")));
}

#[test]
fn a_refusal_names_the_field_and_keeps_the_ref() {
    let cases = [
        (json!({"type": "audio_chunk", "sample_rate": 16000}), "bad_field", "audio_data"),
        (json!({"type": "audio_chunk", "audio_data": "AAAA"}), "bad_field", "sample_rate"),
        (json!({"type": "audio_chunk", "audio_data": "AAAA", "sample_rate": -1}), "bad_field", "sample_rate"),
        (json!({"type": "audio_chunk", "audio_data": "AAAA", "sample_rate": u64::MAX}), "bad_field", "sample_rate"),
        (json!({"type": "audio_chunk", "audio_data": "AAAA", "format": "mp3"}), "bad_field", "format"),
        (json!({"type": "audio_chunk", "audio_data": "A", "format": "wav"}), "bad_audio", "base64"),
        (json!({"type": "text_message", "text": "x", "output": "song"}), "bad_field", "output"),
        (json!({"type": "text_message", "text": "x", "client_message_id": ""}), "bad_field", "client_message_id"),
        (json!({"type": "text_message", "text": "x", "attachments": [{}]}), "bad_field", "attachments"),
        (json!({"type": "text_message", "text": "é".repeat(100_001)}), "bad_field", "text"),
        (json!({"type": "text_message", "text": "x", "character_ids": "all"}), "bad_field", "character_ids"),
        (json!({"type": "playback_ack", "item_id": "i"}), "bad_field", "played_ms"),
        (json!({"type": "interrupt", "played_ms": "now"}), "bad_field", "played_ms"),
        (json!({"type": "settings", "vad": {"silence_ms": "long"}}), "bad_field", "vad.silence_ms"),
        (json!({"type": "settings", "volume": 11}), "bad_field", "volume"),
        (json!({"type": "settings", "model": ["m"]}), "bad_field", "model"),
        (json!({"type": "settings", "stt_model": ""}), "bad_field", "stt_model"),
        (json!({"type": "settings", "tts_model": "a b"}), "bad_field", "tts_model"),
        (json!({"type": "settings", "characters": []}), "bad_field", "characters"),
        (json!({"type": "settings", "characters": {"x": {"vad": null}}}), "bad_field", "characters.x.vad"),
        (json!({"type": "regenerate", "item_id": "i", "characters": {}}), "bad_field", "characters"),
        (json!({"type": "characters", "character_ids": []}), "bad_field", "character_ids"),
    ];
    for (mut value, code, named) in cases {
        value["ref"] = json!("mine");
        let refusal = read(&value.to_string()).unwrap_err();
        assert_eq!((refusal.code, refusal.reference.as_deref()), (code, Some("mine")), "{value}: {refusal:?}");
        assert!(refusal.message.contains(named), "{value}: {refusal:?}");
    }
    assert_eq!(read(r#"{"type": "ping", "ref": 7}"#).unwrap_err().code, "bad_field");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read(&deep).unwrap_err().code, "bad_json");
}

#[test]
fn little_of_what_a_client_sent_is_repeated_to_it() {
    let long = "ä".repeat(100_000);
    let cases = [
        json!({"type": long}),
        json!({"type": "ping", "ref": long}),
        json!({"type": "settings", long.as_str(): 1}),
        json!({"type": "settings", "vad": {long.as_str(): 1}}),
        json!({"type": "settings", "languages": [long]}),
        json!({"type": "settings", "turn_taking": long}),
        json!({"type": "regenerate", "item_id": long}),
        json!({"type": "regenerate", "item_id": "i", "model": long}),
        json!({"type": "interrupt", "item_id": long}),
        json!({"type": "playback_ack", "item_id": long, "played_ms": 1}),
        json!({"type": "next_speaker", "character_id": long}),
        json!({"type": "characters", "character_ids": [long]}),
        json!({"type": "text_message", "text": "x", "character_ids": [long]}),
        json!({"type": "text_message", "text": "x", "client_message_id": long}),
        json!({"type": "audio_chunk", "audio_data": long, "sample_rate": 16_000}),
        json!({"type": "audio_chunk", "audio_data": "", "format": long}),
        json!(long),
    ];
    for value in cases {
        let refusal = read(&value.to_string()).unwrap_err();
        let told = refusal.message.len() + refusal.reference.map_or(0, |reference| reference.len());
        assert!(told < 1_000, "{told} bytes: {}", refusal.message);
    }
    let kept = "r".repeat(128);
    assert_eq!(read(&json!({"type": "ping", "ref": kept}).to_string()).unwrap().reference, Some(kept));
}

#[test]
fn characters_are_named_once_each_and_are_not_too_many() {
    let named = |kind: &str, ids: &[&str]| {
        let message = read(&json!({"type": kind, "text": "x", "character_ids": ids}).to_string())?.message;
        let ClientMessage::Session(Input::Text { character_ids, .. } | Input::Characters { character_ids }) = message
        else {
            panic!("{message:?}")
        };
        Ok::<_, Refusal>(character_ids)
    };
    for kind in ["text_message", "characters"] {
        assert_eq!(named(kind, &["b", "a", "b"]).unwrap(), ["b", "a"]);
        let refusal = named(kind, &["a"; 9]).unwrap_err();
        assert_eq!(
            (refusal.code, refusal.message.as_str()),
            ("bad_field", "character_ids: must name at most 8 characters")
        );
    }
    assert!(named("text_message", &[]).unwrap().is_empty(), "as the text and the settings say");
    assert_eq!(named("characters", &[]).unwrap_err().code, "bad_field");
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC*") {
        let _ = read(&text);
    }
}

fn encoder() -> Encoder {
    Encoder::new(Protocol::Json)
}

/// The one text frame.
fn text_of(messages: &[Message]) -> String {
    let [Message::Text(text)] = messages else { panic!("{messages:?}") };
    text.to_string()
}

fn written(output: Output) -> Value {
    let text = text_of(&encoder().encode(&Notice::Told(output.into()), Some(1)).unwrap());
    assert!(text.starts_with(r#"{"type":"#), "the type comes first: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn messages_are_written_as_the_protocol_says() {
    let heard = Output::Transcription(Transcription {
        item_id: "i".into(),
        is_final: false,
        text: "he".into(),
        stable_chars: 1,
        at: Samples(8_000),
        language: None,
        words: vec![],
    });
    assert_eq!(
        written(heard),
        json!({"type": "transcription_chunk", "is_final": false, "text": "he", "stable_chars": 1, "timestamp": 0.5,
               "item_id": "i", "language": null, "seq": 1})
    );
    let last = Output::Transcription(Transcription {
        item_id: "i".into(),
        is_final: true,
        text: "hey".into(),
        stable_chars: 3,
        at: Samples(16_000),
        language: Some("en".into()),
        words: vec![Word { text: "hey".into(), start: Duration::from_millis(20), end: Duration::from_millis(400) }],
    });
    assert_eq!(written(last)["words"], json!([{"text": "hey", "start_ms": 20, "end_ms": 400}]));
    assert_eq!(
        written(Output::SpeechStarted { at: Samples(1_600) }),
        json!({"type": "speech_started", "timestamp": 0.1, "seq": 1})
    );
    let saved = Output::MessageSaved {
        message_id: "m".into(),
        client_message_id: None,
        role: Role::User,
        status: MessageStatus::Completed,
    };
    assert_eq!(
        written(saved),
        json!({"type": "message_saved", "message_id": "m", "client_message_id": null, "role": "user",
               "status": "completed", "seq": 1})
    );
    let chunk = Output::TextChunk {
        turn: Turn(3),
        character_id: "c".into(),
        item_id: "i".into(),
        sequence_number: 9,
        text: "Hi".into(),
    };
    assert_eq!(
        written(chunk),
        json!({"type": "text_chunk", "character_id": "c", "text": "Hi", "sequence_number": 9, "item_id": "i", "turn": 3,
               "seq": 1})
    );
    assert_eq!(written(Output::SpeakerChanged { character_id: None })["character_id"], Value::Null);
    let interrupted = Output::Interrupted {
        turn: Turn(1),
        item_id: "i".into(),
        heard_text: "One".into(),
        heard: Duration::from_micros(1_234_567),
    };
    assert_eq!(written(interrupted)["heard_ms"], 1_234);
    let applied = written(Output::SettingsApplied(Box::default()));
    assert_eq!(applied["type"], "settings_applied");
    assert_eq!(applied["output"], json!(serde_json::to_value(Settings::default()).unwrap()["output"]));
}

fn piece() -> AudioPiece {
    AudioPiece {
        turn: Turn(2),
        character_id: "c".into(),
        item_id: "i".into(),
        sequence_number: 4,
        pts: Duration::from_millis(40),
        audio: Speech::new(vec![0.0, 1.0, -1.0]),
        words: vec![WordMark { text: "a".into(), start: Duration::ZERO, end: Duration::from_millis(9) }],
        last: false,
        format: AudioFormat::Pcm,
    }
}

#[test]
fn audio_is_written_with_its_words_and_without_a_number() {
    let piece = piece();
    assert_eq!(
        written(Output::Audio(piece.clone())),
        json!({"type": "audio_chunk", "character_id": "c", "audio_data": "AAD/fwGA", "sequence_number": 4,
               "format": "pcm", "sample_rate": 24000, "item_id": "i", "turn": 2, "pts_ms": 40,
               "words": [{"text": "a", "start_ms": 0, "end_ms": 9}]})
    );
    let wav = written(Output::Audio(AudioPiece { format: AudioFormat::Wav, ..piece }));
    assert_eq!(wav["format"], "wav");
    assert!(wav["audio_data"].as_str().unwrap().starts_with("UklGR"), "RIFF");
}

#[test]
fn in_binary_the_words_go_before_the_sound() {
    let protocol = Protocol::Binary { rate: 16_000, channels: 1 };
    let mut encoder = Encoder::new(protocol);
    let who = |id: &str, index| Participant { id: id.into(), name: id.into(), voice: None, index };
    let characters = Output::Characters(vec![who("b", 0), who("c", 1)]);
    text_of(&encoder.encode(&Notice::Told(characters.into()), Some(1)).unwrap());
    let mut say = |piece: AudioPiece| encoder.encode(&Notice::Told(Output::Audio(piece).into()), None).unwrap();
    let mut frame = vec![2, 0, 1, 0, 2, 0, 0, 0, 4, 0, 0, 0, 40, 0, 0, 0];
    frame.extend([0, 0, 0xff, 0x7f, 1, 0x80]);
    for format in [AudioFormat::Pcm, AudioFormat::Wav] {
        let sequence_number = if format == AudioFormat::Pcm { 4 } else { 5 };
        frame[8] = sequence_number as u8;
        let messages = say(AudioPiece { sequence_number, format, ..piece() });
        let [Message::Text(words), Message::Binary(sound)] = messages.as_slice() else { panic!("{messages:?}") };
        let words: Value = serde_json::from_str(words).unwrap();
        assert_eq!(
            words,
            json!({"type": "audio_chunk", "character_id": "c", "sequence_number": sequence_number, "format": "pcm",
                   "sample_rate": 24000, "item_id": "i", "turn": 2, "pts_ms": 40,
                   "words": [{"text": "a", "start_ms": 0, "end_ms": 9}]})
        );
        assert_eq!(sound.as_ref(), frame);
    }
    let later = say(AudioPiece { sequence_number: 5, words: vec![], ..piece() });
    assert!(matches!(later.as_slice(), [Message::Binary(_)]), "{later:?}");
    // A fifth of a second is ten packets.
    let audio = Speech::new(vec![0.1; 4_800]);
    let messages = say(AudioPiece { turn: Turn(3), sequence_number: 6, audio, format: AudioFormat::Opus, ..piece() });
    let header = |message: &Message| match message {
        Message::Binary(frame) => (frame[1], frame[4], frame[8], frame[12]),
        other => panic!("{other:?}"),
    };
    let headers: Vec<_> = messages[1..].iter().map(header).collect();
    assert_eq!(headers, (0..10).map(|index| (1, 3, 6, 40 + 20 * index)).collect::<Vec<_>>());
    if cfg!(feature = "mp3") {
        let audio = Speech::new(vec![0.1; 4_800]);
        let format = AudioFormat::Mp3;
        let text = text_of(&say(AudioPiece { sequence_number: 7, audio, last: true, format, ..piece() }));
        assert!(text.contains(r#""audio_data":""#), "it has no number for frames: {text}");
    }
}

#[test]
fn binary_frames_are_read_where_they_were_asked_for() {
    let binary = Protocol::Binary { rate: 44_100, channels: 2 };
    let frame = |kind: u8, format: u8| [[kind, format].as_slice(), &[0; 14], &[5, 6, 7, 8]].concat();
    let pcm = AudioChunk { data: vec![5, 6, 7, 8], format: WireFormat::Pcm, sample_rate: 44_100, channels: 2 };
    assert_eq!(read_frame(&frame(1, 0), binary), Ok(Some(ClientMessage::Audio(pcm))));
    assert_eq!(read_frame(&frame(1, 1), binary), Ok(Some(ClientMessage::Packet(vec![5, 6, 7, 8]))));
    assert_eq!(read_frame(&frame(2, 0), binary), Ok(None), "what only the server sends");
    assert_eq!(read_frame(&frame(7, 9), binary), Ok(None));
    assert_eq!(read_frame(&frame(1, 2), binary).unwrap_err().code, "bad_field");
    assert_eq!(read_frame(&frame(1, 0)[..15], binary).unwrap_err().code, "bad_audio");
    assert_eq!(read_frame(&[], binary).unwrap_err().code, "bad_audio");
    assert_eq!(read_frame(&frame(1, 0), Protocol::Json).unwrap_err().code, "unknown_type");
}

#[test]
fn the_end_of_a_turn_reports() {
    let report = TurnReport {
        turn: Turn(1),
        character_id: "c".into(),
        item_id: "i".into(),
        sequence_number: 2,
        timings: Timings { endpoint_ms: Some(300), total_ms: Some(900), ..Timings::default() },
        served_by: ServedBy { stt: Some("whisper-base".into()), ..ServedBy::default() },
        usage: Usage { prompt_tokens: 10, completion_tokens: 5, ..Usage::default() },
    };
    assert_eq!(
        written(Output::TurnComplete(Box::new(report))),
        json!({"type": "turn_complete", "character_id": "c", "sequence_number": 2, "item_id": "i", "turn": 1,
               "timings": {"endpoint_ms": 300, "stt_ms": null, "llm_first_token_ms": null,
                           "tts_first_audio_ms": null, "total_ms": 900},
               "served_by": {"stt": "whisper-base", "llm": null, "tts": null},
               "usage": {"prompt_tokens": 10, "cached_tokens": 0, "completion_tokens": 5}, "seq": 1})
    );
}

#[test]
fn all_that_is_journalled_has_a_number() {
    let complaint = Complaint::of(&ProviderError::Failed { what: "speech".into() }, Some("i".into()));
    let numbered = [
        Notice::Refused(Refusal::new("bad_json", "no")),
        Notice::Told(Told { output: Output::Error(complaint), reference: Some("r".into()) }),
        Notice::ServerDraining,
        Notice::SessionReplaced,
    ];
    assert!(numbered.iter().all(Notice::is_numbered));
    let bare = [
        Notice::Pong { reference: None },
        Notice::Resumed { from_seq: 4, reference: None },
        Notice::Told(Output::Audio(piece()).into()),
        Notice::Told(Output::Duck { item_id: "i".into() }.into()),
    ];
    assert!(!bare.iter().any(Notice::is_numbered));
    let resync = text(&Notice::ResyncRequired { reference: None }, Some(4), "").unwrap();
    assert_eq!(resync, r#"{"type":"resync_required","from_seq":4,"seq":4}"#);
    let resumed = text(&bare[1], None, "").unwrap();
    assert_eq!(resumed, r#"{"type":"resumed","from_seq":4}"#);
}

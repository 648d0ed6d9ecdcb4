//! Sound in binary frames and in Opus, over real sockets with scripted engines.

use futures::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error as SocketError, Message};

use super::fixture::{Client, Server, data_of, of, server, server_with, usually};
use crate::audio::{PacketDecoder, PacketEncoder, Samples, Speech};

/// One frame of the server's, taken apart.
#[derive(Debug)]
struct Sound {
    format: u8,
    character: u16,
    turn: u32,
    sequence_number: u32,
    pts_ms: u32,
    bytes: Vec<u8>,
}

fn sound_of(frame: &[u8]) -> Sound {
    let long = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
    assert_eq!(frame[0], 2, "speech");
    Sound {
        format: frame[1],
        character: u16::from_le_bytes([frame[2], frame[3]]),
        turn: long(4),
        sequence_number: long(8),
        pts_ms: long(12),
        bytes: frame[16..].to_vec(),
    }
}

/// What comes up to the end of a turn: JSON, frames, and for each frame how much JSON came before it.
async fn a_turn(client: &mut Client) -> (Vec<Value>, Vec<(usize, Sound)>) {
    let (mut messages, mut sounds) = (Vec::<Value>::new(), Vec::new());
    while messages.last().is_none_or(|message| message["type"] != "turn_complete") {
        match client.frame().await.unwrap().unwrap() {
            Message::Text(text) => messages.push(serde_json::from_str(&text).unwrap()),
            Message::Binary(frame) => sounds.push((messages.len(), sound_of(&frame))),
            _ => {}
        }
    }
    (messages, sounds)
}

fn microphone(format: u8, sound: &[u8]) -> Message {
    let header: [u8; 16] = [1, format, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    Message::binary([&header, sound].concat())
}

async fn in_binary(server: &Server, query: &str) -> Client {
    let mut client = server.connect(&format!("?protocol=binary{query}")).await;
    assert_eq!(client.next().await["type"], "session_started");
    client
}

#[tokio::test]
async fn speech_comes_in_frames_with_its_words_before_them() {
    let server = server().await;
    server.will_say("One two three four five. Six seven eight nine ten.");
    let mut client = in_binary(&server, "").await;
    client.say("hello").await;
    let (messages, sounds) = a_turn(&mut client).await;
    let chunks = of(&messages, "audio_chunk");
    assert!(chunks.iter().all(|chunk| chunk.get("audio_data").is_none()), "{chunks:?}");
    let words: Vec<_> = chunks.iter().flat_map(|chunk| chunk["words"].as_array().unwrap()).collect();
    assert_eq!(words.len(), 10, "every word once");
    let mut pts_ms = 0;
    for (before, sound) in &sounds {
        let told = of(&messages[..*before], "audio_chunk");
        let chunk = told.iter().rev().find(|chunk| chunk["sequence_number"] == sound.sequence_number).unwrap();
        assert_eq!((&chunk["turn"], &chunk["format"]), (&json!(sound.turn), &json!("pcm")));
        assert_eq!((sound.format, sound.character, sound.pts_ms), (0, 0, pts_ms));
        pts_ms += sound.bytes.len() as u32 / 48;
    }
    assert!(pts_ms > 2_000, "{pts_ms}");
    assert_eq!(messages.last().unwrap()["sequence_number"], sounds.last().unwrap().1.sequence_number);
}

#[tokio::test]
async fn opus_is_packets_of_20_ms_and_nothing_is_cut_off() {
    let server = server().await;
    for protocol in ["json", "binary"] {
        server.will_say("One two three four five. Six seven eight nine ten.");
        let mut client = server.connect(&format!("?protocol={protocol}")).await;
        client.next().await;
        client.send(json!({"type": "settings", "audio_format": "opus"})).await;
        assert_eq!(client.until("settings_applied").await.pop().unwrap()["audio_format"], "opus");
        client.say("hello").await;
        let (messages, sounds) = a_turn(&mut client).await;
        let chunks = of(&messages, "audio_chunk");
        let packets: Vec<(u64, Vec<u8>)> = if protocol == "json" {
            let packet = |chunk: &&Value| (chunk["pts_ms"].as_u64().unwrap(), data_of(chunk));
            chunks.iter().map(packet).collect()
        } else {
            assert!(sounds.iter().all(|(_, sound)| sound.format == 1));
            sounds.into_iter().map(|(_, sound)| (u64::from(sound.pts_ms), sound.bytes)).collect()
        };
        assert!(chunks.iter().all(|chunk| chunk["format"] == "opus"));
        let mut decoder = PacketDecoder::new().unwrap();
        for (index, (pts_ms, packet)) in packets.iter().enumerate() {
            assert_eq!(*pts_ms, 20 * index as u64, "{protocol}");
            assert_eq!(decoder.decode(packet).unwrap().len(), 960);
        }
        // 24 and 25 characters of 60 ms, each with the silence that pushes its end out of the encoder.
        assert_eq!(packets.len(), (24 + 25) * 3 + 2, "{protocol}");
    }
}

#[tokio::test]
async fn the_microphone_is_heard_in_every_packing() {
    let server = server_with(|state| usually(state, "hello there", "Hi.")).await;
    let step = std::f32::consts::TAU * 440.0 / 24_000.0;
    let mut wave = Speech::new((0..24_000).map(|n| (n as f32 * step).sin() * 0.5).collect());
    wave.extend(&Speech::silence(Samples::from_millis(1_000)));
    let packets = PacketEncoder::new().unwrap().push(&wave).unwrap();
    let stereo: Vec<u8> = wave.to_i16().flat_map(|sample| [sample, sample]).flat_map(i16::to_le_bytes).collect();
    for (query, frames) in [
        ("&input_rate=24000&input_channels=2", stereo.chunks(1_920).map(|part| microphone(0, part)).collect()),
        ("", packets.iter().map(|packet| microphone(1, packet)).collect::<Vec<_>>()),
    ] {
        let mut client = in_binary(&server, query).await;
        for frame in frames {
            client.socket.send(frame).await.unwrap();
        }
        let (messages, _) = a_turn(&mut client).await;
        assert_eq!(of(&messages, "speech_started").len(), 1, "{query}");
        assert_eq!(of(&messages, "transcription_chunk").last().unwrap()["text"], "hello there", "{query}");
    }
}

#[tokio::test]
async fn odd_frames_are_answered_or_dropped_and_none_closes() {
    let server = server().await;
    let mut client = in_binary(&server, "").await;
    let odd = [
        (Message::binary(vec![]), Some("bad_audio")),
        (Message::binary(vec![1, 0, 0]), Some("bad_audio")),
        (microphone(0, &[1, 2, 3]), Some("bad_audio")),
        (microphone(1, &[]), Some("bad_audio")),
        (microphone(1, &[0xff; 40]), Some("bad_audio")),
        (microphone(2, &[0; 40]), Some("bad_field")),
        (Message::binary(vec![9; 40]), None),
        (Message::binary(vec![2; 40]), None),
    ];
    for (frame, code) in odd {
        client.socket.send(frame.clone()).await.unwrap();
        client.send(json!({"type": "ping"})).await;
        let answers = client.until("pong").await;
        let codes: Vec<_> = of(&answers, "error").iter().map(|error| error["code"].as_str().unwrap()).collect();
        assert_eq!(codes, code.into_iter().collect::<Vec<_>>(), "{frame:?}");
    }
}

#[tokio::test]
async fn what_the_address_says_wrongly_is_refused() {
    let server = server().await;
    for query in ["input_rate=7999", "input_rate=48001", "input_channels=3", "input_channels=0", "input_rate=x"] {
        let path = format!("ws://{}/ws?protocol=binary&{query}", server.address);
        let refusal = connect_async(path).await.unwrap_err();
        let SocketError::Http(answer) = refusal else { panic!("{refusal}") };
        assert_eq!(answer.status(), 400, "{query}");
        assert!(String::from_utf8_lossy(answer.body().as_ref().unwrap()).contains("bad_query"), "{query}");
    }
}

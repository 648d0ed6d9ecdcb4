//! What a real recogniser hears of sound in every packing, to the server and from it.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use candle_core::Device;
use futures::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::fixture::{Server, data_of, server_with};
use crate::audio::{
    Limits, MIC_HZ, Mic, PacketDecoder, PacketEncoder, Pcm, SPEECH_HZ, Speech, decode_bytes, packets, resample, wav,
};
use crate::engine::precedence::Precedence;
use crate::engine::stt::WhisperEngine;
use crate::provider::fake::FakeChat;
use crate::provider::{
    Flow, SpeakRequest, SpeechChunk, SpeechSynthesizer, SpeechToText, SttOptions, Transcript, VoiceInfo, WordMark,
};
use crate::testing::{fixture, model};

const WORDS: &str = "go forward ten meters";

fn clip() -> Mic {
    Mic::from_s16le(&std::fs::read(fixture("goforward.s16")).unwrap())
}

fn plain(text: &str) -> String {
    let letters: String = text.to_lowercase().chars().filter(|c| c.is_alphanumeric() || c.is_whitespace()).collect();
    letters.trim().replace("10", "ten")
}

/// Says the clip, whatever it is asked to say, in chunks that are no whole packets.
struct Parrot(Speech);

impl SpeechSynthesizer for Parrot {
    fn speak(&self, _: SpeakRequest) -> Flow<SpeechChunk> {
        let pieces: Vec<Speech> = self.0.as_slice().chunks(5_555).map(|part| Speech::new(part.to_vec())).collect();
        let count = pieces.len();
        let chunk = move |(index, audio)| {
            let time = Duration::ZERO;
            let word = WordMark { text: format!("word{index}"), start: time, end: time };
            Ok(SpeechChunk { audio, words: vec![word], last: index + 1 == count, served_by: "parrot".into() })
        };
        stream::iter(pieces.into_iter().enumerate().map(chunk)).boxed()
    }

    fn voices(&self) -> Vec<VoiceInfo> {
        Vec::new()
    }
}

async fn house() -> (Server, Arc<WhisperEngine>) {
    let directory = model("whisper-tiny.en");
    let engine = WhisperEngine::load("whisper-tiny.en", &directory, &Device::Cpu, None, Precedence::default());
    let engine = Arc::new(engine.unwrap());
    let stt = Arc::clone(&engine);
    let server = server_with(|state| {
        // Whoever leaves may still have asked for a title.
        state.parts.chat = Arc::new(FakeChat { usual: Some("Yes."), ..FakeChat::default() });
        state.parts.stt = stt;
        state.parts.speech = Arc::new(Parrot(resample(clip().as_slice(), MIC_HZ).unwrap()));
    })
    .await;
    (server, engine)
}

fn in_json(data: &[u8], format: &str) -> Message {
    let data = STANDARD.encode(data);
    let chunk = json!({"type": "audio_chunk", "audio_data": data, "format": format, "sample_rate": MIC_HZ});
    Message::text(chunk.to_string())
}

fn in_frame(format: u8, data: &[u8]) -> Message {
    Message::binary([&[1, format], [0; 14].as_slice(), data].concat())
}

/// The clip in frames of 20 ms, for a query and in a packing.
fn sent() -> Vec<(&'static str, Vec<Message>)> {
    let clip = clip();
    let parts: Vec<Mic> = clip.as_slice().chunks(320).map(|part| Mic::new(part.to_vec())).collect();
    let wide: Pcm<44_100> = resample(clip.as_slice(), MIC_HZ).unwrap();
    let stereo: Vec<u8> = wide.to_i16().flat_map(|sample| [sample, sample]).flat_map(i16::to_le_bytes).collect();
    let speech: Speech = resample(clip.as_slice(), MIC_HZ).unwrap();
    let mut encoder = PacketEncoder::new().unwrap();
    let packets = [encoder.push(&speech).unwrap(), vec![encoder.pad().unwrap()]].concat();
    vec![
        ("", parts.iter().map(|part| in_json(&part.to_s16le(), "pcm")).collect()),
        ("", parts.iter().map(|part| in_json(&wav::encode(part), "wav")).collect()),
        ("", packets.iter().map(|packet| in_json(packet, "opus")).collect()),
        ("?protocol=binary", parts.iter().map(|part| in_frame(0, &part.to_s16le())).collect()),
        (
            "?protocol=binary&input_rate=44100&input_channels=2",
            stereo.chunks(882 * 4).map(|part| in_frame(0, part)).collect(),
        ),
        ("?protocol=binary", packets.iter().map(|packet| in_frame(1, packet)).collect()),
    ]
}

#[tokio::test]
async fn a_clip_is_heard_alike_in_every_packing() {
    let (server, _) = house().await;
    for (number, (query, frames)) in sent().into_iter().enumerate() {
        let mut client = server.connect(query).await;
        client.next().await;
        client.send(json!({"type": "settings", "vad": null, "output": "text"})).await;
        for frame in frames {
            client.socket.send(frame).await.unwrap();
        }
        client.send(json!({"type": "commit"})).await;
        let mut heard = client.until("transcription_chunk").await.pop().unwrap();
        while heard["is_final"] != true {
            heard = client.until("transcription_chunk").await.pop().unwrap();
        }
        assert_eq!(plain(heard["text"].as_str().unwrap()), WORDS, "packing {number}: {heard}");
    }
}

/// One reply's sound, and its captions.
async fn reply(server: &Server, protocol: &str, format: &str) -> (Vec<Vec<u8>>, usize) {
    let mut client = server.connect(&format!("?protocol={protocol}")).await;
    client.send(json!({"type": "settings", "audio_format": format})).await;
    client.until("settings_applied").await;
    client.say("speak").await;
    let (mut sound, mut captions) = (Vec::new(), 0);
    loop {
        match client.frame().await.unwrap().unwrap() {
            Message::Binary(frame) => sound.push(frame[16..].to_vec()),
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "turn_complete" {
                    return (sound, captions);
                }
                if message["type"] == "audio_chunk" {
                    captions += message["words"].as_array().unwrap().len();
                    if message.get("audio_data").is_some() {
                        sound.push(data_of(&message));
                    }
                }
            }
            _ => {}
        }
    }
}

fn unpacked(format: &str, sound: &[Vec<u8>]) -> Mic {
    match format {
        "opus" => {
            let mut decoder = PacketDecoder::new().unwrap();
            let samples: Vec<f32> = sound.iter().flat_map(|packet| decoder.decode(packet).unwrap().to_vec()).collect();
            resample(&samples, packets::PACKET_HZ).unwrap()
        }
        "mp3" => decode_bytes(sound.concat(), Limits::default()).unwrap(),
        "wav" => {
            let samples: Vec<u8> = sound.iter().flat_map(|file| file[wav::HEADER_BYTES..].to_vec()).collect();
            resample(Speech::from_s16le(&samples).as_slice(), SPEECH_HZ).unwrap()
        }
        _ => resample(Speech::from_s16le(&sound.concat()).as_slice(), SPEECH_HZ).unwrap(),
    }
}

#[tokio::test]
async fn a_reply_sounds_alike_in_every_packing() {
    let (server, engine) = house().await;
    let length = clip().duration();
    let mut formats = vec![
        ("json", "pcm"),
        ("json", "wav"),
        ("json", "opus"),
        ("binary", "pcm"),
        ("binary", "wav"),
        ("binary", "opus"),
    ];
    if cfg!(feature = "mp3") {
        formats.extend([("json", "mp3"), ("binary", "mp3")]);
    }
    for (protocol, format) in formats {
        let (sound, captions) = reply(&server, protocol, format).await;
        assert!(captions > 3, "{protocol} {format}: {captions} captions");
        // In binary frames WAV is bare.
        let packing = if protocol == "binary" && format == "wav" { "pcm" } else { format };
        let heard = unpacked(packing, &sound);
        let longer = heard.duration().saturating_sub(length);
        assert!(heard.duration() + Duration::from_millis(2) > length, "{protocol} {format}: cut off");
        assert!(longer < Duration::from_millis(150), "{protocol} {format}: {longer:?} longer");
        let items: Vec<_> = engine.transcribe(stream::iter([heard]).boxed(), SttOptions::default()).collect().await;
        let Some(Ok(Transcript::Final(transcript))) = items.into_iter().next_back() else { panic!("{format}") };
        assert_eq!(plain(&transcript.text), WORDS, "{protocol} {format}");
    }
}

use std::time::Duration;

use futures::StreamExt;

use super::*;
use crate::remote::fake::{FakeProvider, Play};

fn say(text: &str, voice: Option<&str>) -> SpeakRequest {
    SpeakRequest { text: text.to_owned(), voice: voice.map(str::to_owned), ..SpeakRequest::default() }
}

async fn chunks(speech: &RemoteSpeech, request: SpeakRequest) -> Vec<SpeechChunk> {
    speech.speak(request).map(|chunk| chunk.unwrap()).collect().await
}

#[tokio::test]
async fn sound_streams_as_it_comes() {
    // A ramp, so that a lost or doubled byte is heard; cut where no sample ends.
    let samples: Vec<i16> = (0..12_345).collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let (first, rest) = bytes.split_at(9_601);
    let play = Play::stream("audio/pcm").send(first).wait(Duration::from_millis(300)).send(rest).end();
    let fake = FakeProvider::start([play]).await;
    let speech = RemoteSpeech::new(fake.service(), "tts-1");
    let began = tokio::time::Instant::now();
    let mut flow = speech.speak(SpeakRequest { speed: 1.25, ..say("Hello there.", Some("nova")) });
    let first = flow.next().await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(300), "the first chunk waits for nothing");
    let mut chunks = vec![first];
    while let Some(chunk) = flow.next().await {
        chunks.push(chunk.unwrap());
    }
    let mut whole = Speech::default();
    chunks.iter().for_each(|chunk| whole.extend(&chunk.audio));
    assert_eq!(whole, Speech::from_s16le(&bytes));
    let (last, others) = chunks.split_last().unwrap();
    assert!(last.last && !last.audio.is_empty() && others.iter().all(|it| !it.last && it.audio.len().millis() == 100));
    assert_eq!(&*last.served_by, "fake/tts-1");
    let expected =
        json!({ "model": "tts-1", "input": "Hello there.", "voice": "nova", "response_format": "pcm", "speed": 1.25 });
    assert_eq!(fake.received()[0].json(), expected);
}

#[tokio::test]
async fn sound_of_whole_chunks_still_has_a_last_one() {
    let fake = FakeProvider::start([Play::stream("audio/pcm").send([1; CHUNK_BYTES * 2]).end()]).await;
    let chunks = chunks(&RemoteSpeech::new(fake.service(), "tts-1"), say("Hello.", None)).await;
    assert_eq!(chunks.len(), 2);
    assert!(chunks[1].last && chunks[1].audio.len().millis() == 100);
}

#[tokio::test]
async fn nothing_to_say_asks_nobody() {
    let fake = FakeProvider::start([Play::silence()]).await;
    let chunks = chunks(&RemoteSpeech::new(fake.service(), "tts-1"), say(" \n", None)).await;
    assert!(chunks.len() == 1 && chunks[0].last && chunks[0].audio.is_empty());
    assert_eq!(fake.connections(), 0);
}

#[tokio::test]
async fn a_voice_that_is_not_there_is_always_spoken_by_the_same() {
    let sound = Play::stream("audio/pcm").send([1; 100]).end();
    let fake = FakeProvider::start([sound]).await;
    let speech = RemoteSpeech::new(fake.service(), "tts-1");
    for voice in [None, Some("coral"), Some("af_heart"), Some("af_heart")] {
        chunks(&speech, say("Hello.", voice)).await;
    }
    let asked: Vec<_> = fake.received().iter().map(|it| it.json()["voice"].as_str().unwrap().to_owned()).collect();
    // Reckoned from the definition of FNV-1a by another program.
    assert_eq!(asked, ["alloy", "coral", "echo", "echo"]);
    let spread: std::collections::BTreeSet<_> = (0..100).map(|n| stand_in(&format!("voice-{n}")).to_owned()).collect();
    assert_eq!(spread.len(), 6);
    let strict = speech.with_voices(Arc::new(|name| VOICES.contains(&name).then(|| name.to_owned())));
    let items: Vec<_> = strict.speak(say("Hello.", Some("af_heart"))).collect().await;
    assert!(matches!(items.as_slice(), [Err(ProviderError::VoiceUnavailable { .. })]));
}

#[tokio::test]
async fn another_aichat_has_voices_of_its_own() {
    let fake = FakeProvider::start([Play::stream("audio/pcm;rate=24000").send([1; 100]).end()]).await;
    let service = fake.service_with(|settings| settings.dialect = Some(Dialect::Vllm));
    chunks(&RemoteSpeech::new(service, "tts-1"), say("Hello.", Some("af_heart"))).await;
    assert_eq!(fake.received()[0].json()["voice"], "af_heart");
}

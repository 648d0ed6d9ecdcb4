//! Whole sessions with scripted models, in paused time.

mod barge_in;
mod bounds;
mod company;
mod faults;
mod keeping;
mod link;
mod settings;

use std::sync::Mutex;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::event::{AudioPiece, Complaint, ErrorCode, Input, Transcription, TurnReport};
use super::record::{Character, Conversation, Message, MessageStatus, Recording};
use super::settings::{OutputKind, SettingsPatch};
use super::*;
use crate::audio::{MIC_HZ, Mic, Samples};
use crate::provider::fake::{FakeActivity, FakeChat, FakeHearing, FakeSpeech, FaultyActivity};
use crate::provider::{Caller, ProviderError, Role};

/// Conversations in memory, which take `delay` to be stored.
#[derive(Default)]
struct Memory {
    messages: Arc<Mutex<Vec<Message>>>,
    delay: Duration,
    is_broken: bool,
    title: Arc<Mutex<String>>,
    keeps_recordings: bool,
    recordings: Arc<Mutex<Vec<(String, Recording)>>>,
}

impl Memory {
    fn message(&self, role: Role) -> Message {
        self.messages.lock().unwrap().iter().rfind(|message| message.role == role).unwrap().clone()
    }
}

fn character(id: &str) -> Character {
    let name = if id.starts_with("max") { "Max" } else { "Olivia" };
    let name = if id.starts_with("zoe") { "Zoe" } else { name };
    Character {
        id: id.to_owned(),
        name: name.to_owned(),
        description: String::new(),
        system_prompt: format!("You are {name}."),
        personality: String::new(),
        voice: None,
        languages: Vec::new(),
        parameters: json!({"temperature": 0.1}),
        model: id.strip_suffix("-001").filter(|name| name.contains('/')).map(str::to_owned),
        talkativeness: 0.5,
        is_active: true,
    }
}

fn conversation(id: &str, character_ids: Vec<String>) -> Conversation {
    let now = String::new;
    Conversation {
        id: id.to_owned(),
        title: if id == "untitled" { now() } else { "A talk".to_owned() },
        character_ids,
        private: id.starts_with("private"),
        settings: serde_json::json!({}),
        created_at: now(),
        updated_at: now(),
    }
}

impl Records for Memory {
    fn create_conversation(&self, mut ids: Vec<String>) -> BoxFuture<'static, Result<Conversation, RecordError>> {
        if ids.is_empty() {
            ids.push("default-001".to_owned());
        }
        async { Ok(conversation("new", ids)) }.boxed()
    }

    fn open_conversation(
        &self,
        id: String,
        history: usize,
    ) -> BoxFuture<'static, Result<OpenConversation, RecordError>> {
        let all = self.messages.lock().unwrap();
        let messages = all[all.len().saturating_sub(history)..].to_vec();
        async move {
            if id != "known" && id != "untitled" && !id.starts_with("private") {
                return Err(RecordError::NotFound { what: "conversation", id });
            }
            let characters = vec![character("default-001")];
            Ok(OpenConversation {
                conversation: conversation(&id, vec!["default-001".to_owned()]),
                characters,
                messages,
            })
        }
        .boxed()
    }

    fn characters(&self, ids: Vec<String>) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        let known = |id: String| {
            if id.ends_with("001") { Ok(character(&id)) } else { Err(RecordError::NotFound { what: "character", id }) }
        };
        async move { ids.into_iter().map(known).collect() }.boxed()
    }

    fn set_characters(
        &self,
        _conversation_id: String,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<Vec<Character>, RecordError>> {
        self.characters(ids)
    }

    fn forget_message(&self, _conversation_id: String, id: String) -> BoxFuture<'static, Result<(), RecordError>> {
        self.messages.lock().unwrap().retain(|message| message.id != id);
        async { Ok(()) }.boxed()
    }

    fn title_conversation(
        &self,
        _id: String,
        title: String,
        instead_of: String,
    ) -> BoxFuture<'static, Result<bool, RecordError>> {
        let mut current = self.title.lock().unwrap();
        let is_so = *current == instead_of;
        if is_so {
            *current = title;
        }
        async move { Ok(is_so) }.boxed()
    }

    fn keeps_recordings(&self) -> bool {
        self.keeps_recordings
    }

    fn save_recording(&self, message_id: String, sound: Recording) -> BoxFuture<'static, Result<(), RecordError>> {
        self.recordings.lock().unwrap().push((message_id, sound));
        async { Ok(()) }.boxed()
    }

    fn save_message(&self, message: Message) -> BoxFuture<'static, Result<String, RecordError>> {
        let (messages, delay, is_broken) = (Arc::clone(&self.messages), self.delay, self.is_broken);
        async move {
            sleep(delay).await;
            if is_broken {
                return Err(RecordError::Failed);
            }
            let id = message.id.clone();
            let mut messages = messages.lock().unwrap();
            match messages.iter_mut().find(|it| it.id == id) {
                Some(old) => *old = message,
                None => messages.push(message),
            }
            Ok(id)
        }
        .boxed()
    }
}

/// A house of fakes.
struct House {
    stt: Arc<FakeHearing>,
    chat: Arc<FakeChat>,
    speech: Arc<FakeSpeech>,
    records: Arc<Memory>,
}

impl House {
    fn new(texts: &[&str]) -> Self {
        Self {
            stt: Arc::new(FakeHearing::new(texts)),
            chat: Arc::default(),
            speech: Arc::default(),
            records: Arc::default(),
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            stt: Arc::<FakeHearing>::clone(&self.stt),
            chat: Arc::<FakeChat>::clone(&self.chat),
            speech: Arc::<FakeSpeech>::clone(&self.speech),
            vad: Arc::new(FakeActivity),
            records: Arc::<Memory>::clone(&self.records),
        }
    }

    async fn open(&self) -> Client {
        self.open_with(opening()).await
    }

    async fn open_with(&self, opening: Opening) -> Client {
        let mut client = Client { handle: start(self.parts(), opening).await.unwrap(), start: Instant::now() };
        assert!(matches!(client.next().await, Output::SessionStarted(_)));
        client
    }
}

fn opening() -> Opening {
    Opening {
        conversation_id: None,
        character_ids: Vec::new(),
        guests: Vec::new(),
        settings: Settings::default(),
        paced: true,
        bounds: Bounds::default(),
        caller: Caller::default(),
    }
}

struct Client {
    handle: Handle,
    start: Instant,
}

impl Client {
    async fn ask(&self, input: Input) {
        self.handle.inbox.send(input.into()).await.unwrap();
    }

    async fn say(&self, text: &str) {
        self.ask(Input::Text {
            text: text.to_owned(),
            client_message_id: None,
            terms: SettingsPatch::default(),
            character_ids: Vec::new(),
        })
        .await;
    }

    async fn next(&mut self) -> Output {
        let told = timeout(Duration::from_mins(5), self.handle.outbox.recv()).await.expect("something is told");
        told.expect("the session goes on").output
    }

    /// Everything up to what `is_last` knows, and when it came.
    async fn until(&mut self, is_last: impl Fn(&Output) -> bool) -> Vec<(Duration, Output)> {
        let mut all = Vec::new();
        loop {
            let output = self.next().await;
            let last = is_last(&output);
            all.push((self.start.elapsed(), output));
            if last {
                return all;
            }
        }
    }

    /// Everything that is told in so much time.
    async fn for_a_while(&mut self, time: Duration) -> Vec<Output> {
        let end = Instant::now() + time;
        let mut all = Vec::new();
        while let Ok(Some(told)) = tokio::time::timeout_at(end, self.handle.outbox.recv()).await {
            all.push(told.output);
        }
        all
    }
}

fn is_complete(output: &Output) -> bool {
    matches!(output, Output::TurnComplete(_))
}

fn is_audio(output: &Output) -> bool {
    matches!(output, Output::Audio(_))
}

fn audio_of(all: &[(Duration, Output)]) -> Vec<AudioPiece> {
    all.iter().filter_map(|(_, it)| if let Output::Audio(piece) = it { Some(piece.clone()) } else { None }).collect()
}

fn report_of(all: &[(Duration, Output)]) -> TurnReport {
    let (_, Output::TurnComplete(report)) = all.last().unwrap() else { panic!("{:?}", all.last()) };
    (**report).clone()
}

fn microphone(loud_ms: u64, quiet_ms: u64) -> Vec<Input> {
    let length = |millis| Samples::<MIC_HZ>::from_millis(millis).as_usize();
    let mut samples = vec![0.5; length(loud_ms)];
    samples.resize(length(loud_ms + quiet_ms), 0.0);
    samples.chunks(1600).map(|chunk| Input::Audio(Mic::new(chunk.to_vec()))).collect()
}

/// Sends microphone audio in real time.
async fn speak(inbox: mpsc::Sender<Request>, chunks: Vec<Input>) {
    for chunk in chunks {
        sleep(Duration::from_millis(100)).await;
        // A test that has seen enough hangs up.
        let _ = inbox.send(chunk.into()).await;
    }
}

/// One turn of a written conversation.
async fn talk(house: &House, client: &mut Client, turn: usize) {
    house.chat.say(&format!("I think that turn {turn} is good."), Duration::from_millis(100), Duration::ZERO);
    client.say(&format!("This is what I say in turn {turn}. What do you think of it?")).await;
    client.until(is_complete).await;
}

/// A house whose model has a small window, and a client that asked for summaries.
async fn long_conversation(summarize_history: bool) -> (House, Client) {
    let mut house = House::new(&[]);
    house.chat = Arc::new(FakeChat { window: Some(256), ..FakeChat::default() });
    let mut client = house.open().await;
    let output = Some(OutputKind::Text);
    let patch = SettingsPatch { summarize_history: Some(summarize_history), output, ..SettingsPatch::default() };
    client.ask(Input::Settings(patch)).await;
    for turn in 1..=5 {
        talk(&house, &mut client, turn).await;
    }
    (house, client)
}

const FORTY_WORDS: &str = "Well, that is a long story, my friend. Once there was a small harbour in the north. \
                           Every ship that came in from the sea brought two letters. Nobody ever found out who had \
                           written all of them, and why.";

#[tokio::test(start_paused = true)]
async fn text_streams_while_the_first_clause_is_spoken() {
    let house = House::new(&[]);
    house.chat.say(FORTY_WORDS, Duration::from_millis(200), Duration::from_millis(40));
    let mut client = house.open().await;
    client.say("Tell me a story").await;
    let all = client.until(is_complete).await;

    let place = |wanted: &dyn Fn(&Output) -> bool| all.iter().position(|(_, it)| wanted(it)).unwrap();
    let last_text = all.iter().rposition(|(_, it)| matches!(it, Output::TextChunk { .. })).unwrap();
    assert!(place(&is_audio) < last_text, "audio begins before the text ends");
    let mut written = String::new();
    let mut numbers = Vec::new();
    let mut heard = 0;
    for (_, output) in &all {
        match output {
            Output::TextChunk { text, sequence_number, .. } => {
                written.push_str(text);
                numbers.push(*sequence_number);
            }
            Output::Audio(piece) => {
                assert!(numbers.contains(&piece.sequence_number), "text comes before its audio");
                assert!(piece.sequence_number >= heard, "audio in the order of sentences");
                heard = piece.sequence_number;
            }
            _ => {}
        }
    }
    assert_eq!(written, FORTY_WORDS);
    assert!(numbers.is_sorted());
    numbers.dedup();
    assert_eq!(numbers, (1..=heard).collect::<Vec<_>>(), "every sentence has its number and its audio");
    assert!(heard >= 4);

    let report = report_of(&all);
    assert_eq!(report.sequence_number, heard);
    assert!(report.timings.total_ms.unwrap() < 1000, "{:?}", report.timings);
    assert_eq!(report.timings.llm_first_token_ms, Some(240));
    assert_eq!(report.timings.endpoint_ms, None);
    assert!(house.speech.load.most() <= 2);
    let complete = house.records.message(Role::Assistant);
    assert_eq!((complete.content.as_str(), complete.heard_chars), (FORTY_WORDS, None));
}

#[tokio::test(start_paused = true)]
async fn a_spoken_question_is_answered_and_stored() {
    let house = House::new(&["What time is it?"]);
    house.chat.say("It is noon.", Duration::from_millis(100), Duration::from_millis(10));
    let mut client = house.open().await;
    let microphone = speak(client.handle.inbox.clone(), microphone(1500, 4000));
    let (all, ()) = tokio::join!(client.until(is_complete), microphone);
    let names: Vec<_> = all
        .iter()
        .filter_map(|(_, it)| match it {
            Output::SpeechStarted { .. } => Some("speech_started"),
            Output::SpeechStopped { .. } => Some("speech_stopped"),
            Output::Transcription(Transcription { is_final: true, .. }) => Some("final"),
            Output::SpeakerChanged { .. } => Some("speaker_changed"),
            Output::TextDone { .. } => Some("text_done"),
            Output::TurnComplete(_) => Some("turn_complete"),
            _ => None,
        })
        .collect();
    let expected = ["speech_started", "speech_stopped", "final", "speaker_changed", "text_done", "turn_complete"];
    assert_eq!(names, expected);
    let partial = all.iter().find_map(|(at, it)| match it {
        Output::Transcription(it) if it.text == "What" => Some(*at),
        _ => None,
    });
    assert!(partial.unwrap() < Duration::from_millis(900));
    let saved: Vec<_> = all
        .iter()
        .filter_map(|(_, it)| match it {
            Output::MessageSaved { role, status, .. } => Some((*role, *status)),
            _ => None,
        })
        .collect();
    assert_eq!(saved, [(Role::User, MessageStatus::Completed), (Role::Assistant, MessageStatus::Processing)]);

    let report = report_of(&all);
    let timings = report.timings;
    assert!((300..=400).contains(&timings.endpoint_ms.unwrap()), "{timings:?}");
    assert_eq!((timings.stt_ms, timings.tts_first_audio_ms), (Some(0), Some(80)), "the pause was transcribed");
    // The decision comes with the chunk that holds it, up to 100 ms after the samples that make it.
    let first_audio = all.iter().find(|(_, it)| is_audio(it)).unwrap().0.as_millis() as u64;
    assert!((first_audio - 1500).abs_diff(timings.total_ms.unwrap()) <= 100, "{first_audio} {timings:?}");
    let served_by = [report.served_by.stt, report.served_by.llm, report.served_by.tts].map(Option::unwrap);
    assert_eq!(served_by.each_ref().map(AsRef::as_ref), ["fake-ear", "fake-mind", "fake-voice"]);

    let asked = house.chat.asked.lock().unwrap()[0].clone();
    assert!(asked.messages[0].content.starts_with("You are Olivia.\n\n"));
    assert_eq!(asked.messages[1].content, "What time is it?");
    let prepared = house.chat.prepared.lock().unwrap().clone();
    assert_eq!(prepared.len(), 3, "at the start, at the onset and in the pause");
    assert_eq!(prepared[0].messages, asked.messages[..1]);
    assert_eq!(prepared[2].messages, asked.messages, "all that it is asked then");
    assert!((asked.sampling.temperature - 0.1).abs() < 1e-6, "the character's own");
    drop(client);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(house.records.message(Role::Assistant).status, MessageStatus::Completed);
    assert_eq!(house.records.message(Role::User).content, "What time is it?");
}

#[test]
fn of_a_characters_parameters_an_unknown_language_alone_is_ignored() {
    let known = ["en".to_owned()];
    let settings = |languages| {
        let parameters = json!({"languages": [languages], "temperature": 0.1});
        let base = Base { languages: known.to_vec(), ..Base::default() };
        base.player(Character { parameters, ..character("a") }).settings
    };
    assert_eq!(settings("xx"), Settings { temperature: 0.1, ..Settings::default() });
    assert_eq!(settings("en").languages, known);
}

#[tokio::test(start_paused = true)]
async fn a_written_reply_makes_no_sound_and_does_not_wait_for_any() {
    let house = House::new(&[]);
    house.chat.say(FORTY_WORDS, Duration::from_millis(10), Duration::from_millis(10));
    let mut client = house.open().await;
    let output = Some(OutputKind::Text);
    client
        .ask(Input::Text {
            text: "Write".to_owned(),
            client_message_id: None,
            terms: SettingsPatch { output, ..SettingsPatch::default() },
            character_ids: Vec::new(),
        })
        .await;
    let all = client.until(is_complete).await;
    assert!(all.last().unwrap().0 < Duration::from_secs(1));
    assert!(audio_of(&all).is_empty());
    assert_eq!(house.chat.asked.lock().unwrap()[0].messages[0].content, "You are Olivia.");
}

#[tokio::test(start_paused = true)]
async fn files_are_spoken_without_a_pace() {
    let house = House::new(&[]);
    house.chat.say(FORTY_WORDS, Duration::from_millis(10), Duration::from_millis(1));
    let handle = start(house.parts(), Opening { paced: false, ..opening() }).await.unwrap();
    let mut client = Client { handle, start: Instant::now() };
    client.say("Tell me a story").await;
    let all = client.until(is_complete).await;
    let audio: Duration = audio_of(&all).iter().map(|piece| piece.audio.duration()).sum();
    assert!(audio > Duration::from_secs(8), "{audio:?}");
    assert!(all.last().unwrap().0 < Duration::from_secs(3), "{:?}", all.last().unwrap().0);
}

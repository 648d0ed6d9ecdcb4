use super::*;
use crate::provider::VoiceEngine;
use crate::provider::fake::{FakeSpeech, MILLIS_PER_CHAR};
use crate::session::loopback::loopback;

struct Stage {
    sentences: mpsc::Sender<Sentence>,
    audio: mpsc::Receiver<AudioPiece>,
    events: mpsc::Receiver<Event>,
    fake: Arc<FakeSpeech>,
    task: tokio::task::JoinHandle<()>,
}

fn voicing(lead: Option<Duration>) -> Voicing {
    Voicing {
        turn: Turn(1),
        character_id: "c".to_owned(),
        item_id: "i".to_owned(),
        model: None,
        voice: None,
        language: None,
        speed: 1.0,
        seed: None,
        format: AudioFormat::Pcm,
        lead,
        keeps_audio: false,
        begins: Duration::ZERO,
        caller: Caller::default(),
    }
}

fn stage(fake: FakeSpeech, lead: Option<Duration>) -> Stage {
    let fake = Arc::new(fake);
    let voicing = voicing(lead);
    let (sentences, inbox) = mpsc::channel(INBOX);
    let (lane, audio) = mpsc::channel(4);
    let (turn, events) = mpsc::channel(1024);
    let speech: Arc<dyn SpeechSynthesizer> = Arc::<FakeSpeech>::clone(&fake);
    let task = tokio::spawn(speak(Voice::new(speech, loopback().0), voicing, None, inbox, lane, turn));
    Stage { sentences, audio, events, fake, task }
}

fn order(stage: &Stage, sequence_number: u64, text: &str) {
    let urgency = if sequence_number == 1 { Urgency::First } else { Urgency::Later };
    stage.sentences.try_send(Sentence { sequence_number, text: text.to_owned(), urgency }).unwrap();
}

const LEAD: Option<Duration> = Some(Duration::from_millis(300));

/// All pieces with the time each came at, and then what was reported.
async fn listen(mut stage: Stage) -> (Vec<(Duration, AudioPiece)>, Vec<Progress>) {
    drop(stage.sentences);
    let start = Instant::now();
    let mut pieces = Vec::new();
    while let Some(piece) = stage.audio.recv().await {
        pieces.push((start.elapsed(), piece));
    }
    let mut reports = Vec::new();
    while let Some(Event::Progress { turn: Turn(1), progress }) = stage.events.recv().await {
        reports.push(progress);
    }
    (pieces, reports)
}

fn spoken(text: &str) -> Duration {
    Duration::from_millis(MILLIS_PER_CHAR * text.len() as u64)
}

#[tokio::test(start_paused = true)]
async fn sentences_leave_whole_and_in_order_at_the_pace_of_their_playback() {
    let texts = ["Yes.", "This is a longer sentence.", "And so is this one, longer still.", "End."];
    let stage = stage(FakeSpeech::default(), LEAD);
    for (number, text) in (1..).zip(texts) {
        order(&stage, number, text);
    }
    let fake = Arc::clone(&stage.fake);
    let (pieces, reports) = listen(stage).await;
    assert_eq!(fake.load.most(), AT_ONCE);
    assert_eq!(fake.asked.lock().unwrap()[0].urgency, Urgency::First);

    let first = pieces[0].0;
    assert_eq!(first, Duration::from_millis(80));
    let mut pts = Duration::ZERO;
    let mut number = 1;
    for (at, piece) in &pieces {
        assert_eq!(piece.pts, pts, "no sample is missing");
        assert!(piece.sequence_number == number || piece.sequence_number == number + 1);
        number = piece.sequence_number;
        let length = piece.audio.duration();
        assert!((20..=100).contains(&length.as_millis()), "{length:?}");
        assert!(*at + Duration::from_millis(301) >= first + pts, "not more than the lead ahead: {at:?} {pts:?}");
        assert!(*at <= first + pts, "and never late: {at:?} {pts:?}");
        pts += length;
    }
    assert_eq!(pts, texts.map(spoken).iter().sum::<Duration>());
    let words: Vec<_> = pieces.iter().flat_map(|(_, piece)| &piece.words).map(|word| word.text.as_str()).collect();
    assert_eq!(words, texts.join(" ").split(' ').collect::<Vec<_>>());
    let longer = pieces.iter().find(|(_, piece)| piece.sequence_number == 2).unwrap();
    assert_eq!(longer.1.words[0].start, spoken(texts[0]));
    assert!(matches!(reports.last(), Some(Progress::Finished)));
    let ends = reports.iter().filter(|it| matches!(it, Progress::Sent(SentPiece { last: true, .. }))).count();
    assert_eq!(ends, texts.len());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_reported_when_all_is_played() {
    let mut stage = stage(FakeSpeech::default(), LEAD);
    order(&stage, 1, "A sentence.");
    let start = Instant::now();
    stage.sentences = mpsc::channel(1).0;
    while stage.audio.recv().await.is_some() {}
    assert_eq!(start.elapsed(), Duration::from_millis(80) + spoken("A sentence."));
}

#[tokio::test(start_paused = true)]
async fn without_a_pace_audio_leaves_as_it_is_made() {
    let stage = stage(FakeSpeech::default(), None);
    order(&stage, 1, &"long ".repeat(100));
    let start = Instant::now();
    let (pieces, _) = listen(stage).await;
    assert_eq!(pieces.iter().map(|(_, piece)| piece.audio.duration()).sum::<Duration>(), Duration::from_secs(30));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_sentence_that_fails_is_left_out_and_the_second_ends_the_speech() {
    let failed = ProviderError::Failed { what: "voice".to_owned() };
    let stage = stage(FakeSpeech { failures: vec![("bad", failed)], ..FakeSpeech::default() }, LEAD);
    for (number, text) in (1..).zip(["Good one.", "A bad one.", "Good two.", "panic!", "Never spoken."]) {
        order(&stage, number, text);
    }
    let fake = Arc::clone(&stage.fake);
    let (pieces, reports) = listen(stage).await;
    let mut numbers: Vec<_> = pieces.iter().map(|(_, piece)| piece.sequence_number).collect();
    numbers.dedup();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(reports.iter().filter(|it| matches!(it, Progress::Failed(_))).count(), 2);
    assert!(matches!(reports.last(), Some(Progress::Finished)));
    assert_eq!(fake.asked.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_voice_that_is_not_there_is_asked_for_once() {
    let missing = ProviderError::VoiceUnavailable { voice: "x".to_owned(), nearest: "y".to_owned() };
    let stage = stage(FakeSpeech { failures: vec![("o", missing)], ..FakeSpeech::default() }, LEAD);
    order(&stage, 1, "one");
    tokio::time::sleep(Duration::from_secs(1)).await;
    order(&stage, 2, "two");
    let fake = Arc::clone(&stage.fake);
    let (pieces, reports) = listen(stage).await;
    assert_eq!(pieces.len(), 0);
    assert_eq!(reports.len(), 2);
    assert_eq!(fake.asked.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_listener_bounds_what_is_made() {
    let stage = stage(FakeSpeech::default(), None);
    for number in 1..200 {
        order(&stage, number, "a sentence of thirty characters");
    }
    tokio::time::sleep(Duration::from_hours(1)).await;
    // Waiting for the listener, it takes nothing more.
    let asked = stage.fake.asked.lock().unwrap().len();
    assert!(asked <= 20, "{asked} sentences were made for nobody");
    // Its end takes back what is under way.
    stage.task.abort();
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(stage.fake.load.now(), 0);
}

#[tokio::test(start_paused = true)]
async fn voices_that_hear_themselves_are_asked_for_a_sentence_at_a_time() {
    let stage = stage(FakeSpeech { engine: VoiceEngine::Higgs, ..FakeSpeech::default() }, LEAD);
    let texts = ["This is a sentence.", "And so is this one, longer still.", "End."];
    for (number, text) in (1..).zip(texts) {
        order(&stage, number, text);
    }
    let fake = Arc::clone(&stage.fake);
    let (pieces, _) = listen(stage).await;
    assert_eq!(fake.load.most(), 1);
    // Each is ready long before the one before it is over.
    let length: Duration = pieces.iter().map(|(_, piece)| piece.audio.duration()).sum();
    assert_eq!(length, spoken(&texts.concat()));
    assert!(pieces.last().unwrap().0 < fake.first_delay + length);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_floor_makes_one_sentence_ready_and_is_silent() {
    let fake = Arc::new(FakeSpeech::default());
    let voice = Voice::new(Arc::<FakeSpeech>::clone(&fake), loopback().0);
    let (sentences, inbox) = mpsc::channel(INBOX);
    let (lane, mut audio) = mpsc::channel(64);
    let (turn, mut events) = mpsc::channel(64);
    let (give, floor) = oneshot::channel();
    let voicing = voicing(LEAD);
    let task = tokio::spawn(speak(voice, voicing, Some(floor), inbox, lane, turn));
    for (number, text) in (1..).zip(["One.", "Two.", "Three."]) {
        let sentence = Sentence { sequence_number: number, text: text.to_owned(), urgency: Urgency::Later };
        sentences.send(sentence).await.unwrap();
    }
    drop(sentences);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(fake.asked.lock().unwrap().len(), 1);
    assert!(audio.try_recv().is_err() && events.try_recv().is_err());
    let given = Instant::now();
    give.send(()).unwrap();
    audio.recv().await.unwrap();
    assert_eq!(given.elapsed(), Duration::ZERO, "the first sentence was ready");
    let mut numbers: Vec<u64> = vec![1];
    while let Some(piece) = audio.recv().await {
        numbers.push(piece.sequence_number);
    }
    numbers.dedup();
    assert_eq!(numbers, [1, 2, 3]);
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_floor_that_nobody_gives_any_more_is_not_taken() {
    let fake = Arc::new(FakeSpeech::default());
    let (sentences, inbox) = mpsc::channel(INBOX);
    let (lane, mut audio) = mpsc::channel(64);
    let (turn, mut events) = mpsc::channel(64);
    let (give, floor) = oneshot::channel();
    let task = tokio::spawn(speak(Voice::new(fake, loopback().0), voicing(LEAD), Some(floor), inbox, lane, turn));
    sentences.send(Sentence { sequence_number: 1, text: "One.".to_owned(), urgency: Urgency::Later }).await.unwrap();
    drop(sentences);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(give);
    task.await.unwrap();
    assert!(audio.recv().await.is_none() && events.recv().await.is_none(), "it says nothing, and not that it has");
}

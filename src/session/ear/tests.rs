use futures::stream;

use super::super::settings::{SettingsPatch, VadMode, VadPatch, VadSettings};
use super::*;
use crate::provider::fake::{FakeActivity, FakeHearing, FaultyActivity};
use crate::provider::task::Task;
use crate::provider::{Ending, Flow, SttOptions};

fn loud(millis: u64) -> Mic {
    Mic::new(vec![0.5; Samples::<MIC_HZ>::from_millis(millis).as_usize()])
}

fn quiet(millis: u64) -> Mic {
    Mic::silence(Samples::from_millis(millis))
}

fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn push_to_talk() -> Settings {
    Settings { vad: None, ..Settings::default() }
}

fn server() -> Settings {
    with(VadMode::Server)
}

fn semantic() -> Settings {
    with(VadMode::Semantic)
}

fn with(mode: VadMode) -> Settings {
    Settings { vad: Some(VadSettings { mode, ..VadSettings::default() }), ..Settings::default() }
}

/// Plays `inputs` to an ear, audio in 100 ms chunks as a microphone would, and answers what it told, and what it
/// told it about.
async fn hear(settings: Settings, texts: &[&str], inputs: Vec<Input>) -> (Vec<Heard>, Arc<FakeHearing>) {
    hear_by(Arc::new(FakeActivity), settings, texts, inputs).await
}

/// As [`hear`], by this recogniser.
async fn hear_with(stt: FakeHearing, inputs: Vec<Input>) -> (Vec<Heard>, Arc<FakeHearing>) {
    converse(Arc::new(FakeActivity), semantic(), stt, inputs).await
}

async fn hear_by(
    activity: Arc<dyn VoiceActivity>,
    settings: Settings,
    texts: &[&str],
    inputs: Vec<Input>,
) -> (Vec<Heard>, Arc<FakeHearing>) {
    converse(activity, settings, FakeHearing::new(texts), inputs).await
}

async fn converse<S: SpeechToText + 'static>(
    activity: Arc<dyn VoiceActivity>,
    settings: Settings,
    stt: S,
    inputs: Vec<Input>,
) -> (Vec<Heard>, Arc<S>) {
    let stt = Arc::new(stt);
    let ear = Ear::new(Arc::<S>::clone(&stt), activity, settings, Caller::default(), new_id, false);
    let (inbox, requests) = mpsc::channel(8);
    let (turn, mut events) = mpsc::channel(8);
    let task = tokio::spawn(ear.run(requests, turn));
    let client = async {
        for input in inputs {
            if let Input::Audio(audio) = &input {
                for chunk in audio.as_slice().chunks(1600) {
                    inbox.send(Input::Audio(Mic::new(chunk.to_vec())).into()).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            } else {
                inbox.send(input.into()).await.unwrap();
            }
        }
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(inbox);
    };
    let told = async {
        let mut told = Vec::new();
        while let Some(Event::Heard(heard)) = events.recv().await {
            told.push(heard);
        }
        told
    };
    let ((), told) = tokio::join!(client, told);
    task.await.unwrap();
    (told, stt)
}

fn names(told: &[Heard]) -> Vec<String> {
    let name = |heard: &Heard| match heard {
        Heard::Began { .. } => "began".to_owned(),
        Heard::Stopped { .. } => "stopped".to_owned(),
        Heard::Committed => "committed".to_owned(),
        Heard::Partial(it) => format!("partial {:?}", it.text),
        Heard::Drafted(it) => format!("drafted {:?}", it.text),
        Heard::Paused(it) => format!("paused {:?}", it.text),
        Heard::Final(it) => format!("final {:?}", it.transcription.text),
        Heard::Nothing { .. } => "nothing".to_owned(),
        Heard::Failed { error, .. } => format!("failed {error}"),
        Heard::Refused { complaint, .. } => format!("refused {}", complaint.code),
        Heard::Asked(request) => format!("asked {:?}", request.input),
    };
    told.iter().map(name).collect()
}

fn audio(parts: &[Mic]) -> Input {
    let mut all = Mic::default();
    for part in parts {
        all.extend(part);
    }
    Input::Audio(all)
}

#[tokio::test(start_paused = true)]
async fn an_utterance_from_before_its_onset_to_its_end_point() {
    let inputs = vec![audio(&[quiet(1000), loud(1200), quiet(1000)])];
    let (told, stt) = hear(semantic(), &["How are you?"], inputs).await;
    let (first, last) = (&names(&told)[..3], &names(&told)[4..]);
    assert_eq!(first, ["began", "partial \"How\"", "partial \"How are\""]);
    assert_eq!(last, ["paused \"How are you?\"", "stopped", "final \"How are you?\""]);

    let Heard::Began { item_id, at } = &told[0] else { panic!() };
    let prefix = Samples::<MIC_HZ>::from_millis(1000).saturating_sub(*at);
    assert!((250..=350).contains(&prefix.millis()), "{} ms of prefix", prefix.millis());
    let Heard::Stopped { at: stopped } = &told[5] else { panic!() };
    assert!(stopped.millis().abs_diff(2200) <= 32, "{}", stopped.millis());
    let Heard::Final(utterance) = &told[6] else { panic!() };
    assert_eq!(utterance.transcription.item_id, *item_id);
    assert!((200..=250).contains(&utterance.endpoint.as_millis()), "{:?}", utterance.endpoint);
    assert_eq!(utterance.stt, Duration::ZERO, "it was there before the end was decided");
    assert_eq!(utterance.served_by.as_ref(), "fake-ear");

    // Not a sample is lost or doubled.
    let heard = stt.heard.lock().unwrap()[0].clone();
    let expected = stopped.millis() + endpoint::HANG_OVER.millis() - at.millis();
    assert!(heard.len().millis().abs_diff(expected) <= 32, "{} for {expected}", heard.len().millis());
    assert_eq!(heard.as_slice().iter().filter(|sample| **sample > 0.0).count(), 19_200);
    assert!(stt.asked.lock().unwrap()[0].partials);
}

#[tokio::test(start_paused = true)]
async fn whoever_breaks_off_is_waited_for_and_heard_again_from_the_beginning() {
    let texts = ["I would like to go to the.", "I would like to go to the cinema."];
    let inputs = vec![audio(&[loud(600), quiet(700), loud(600), quiet(600)])];
    let (told, stt) = hear(semantic(), &texts, inputs.clone()).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("partial")).collect();
    let [first, whole] = texts.map(|text| format!("paused {text:?}"));
    let last = format!("final {:?}", texts[1]);
    assert_eq!(told, ["began", &first, &whole, "stopped", &last]);
    let heard = stt.heard.lock().unwrap().clone();
    let loudness = |heard: &Mic| heard.as_slice().iter().filter(|sample| **sample > 0.0).count();
    assert_eq!(heard.iter().map(loudness).collect::<Vec<_>>(), [9600, 19_200]);
    assert!(heard[1].len().millis() >= 1900, "its pause too");

    // By silence alone these are two.
    let (told, _) = hear(server(), &texts, inputs).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| it.starts_with("final")).collect();
    assert_eq!(told, texts.map(|text| format!("final {text:?}")));
}

#[tokio::test(start_paused = true)]
async fn what_is_made_of_a_pause_is_dropped_when_speech_goes_on() {
    let mut stt = FakeHearing::new(&["Early.", "The whole."]);
    stt.delay = Duration::from_millis(250);
    let (told, stt) = hear_with(stt, vec![audio(&[loud(600), quiet(200), loud(600), quiet(900)])]).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("partial")).collect();
    assert_eq!(told, ["began", "paused \"The whole.\"", "stopped", "final \"The whole.\""]);
    assert_eq!(stt.asked.lock().unwrap().len(), 2);
    assert_eq!(stt.heard.lock().unwrap().len(), 1, "the first request was dropped");

    // A failure too, but one at the end is told.
    for (pause, expected) in [(250, "final \"The whole.\""), (1500, "failed it ran out of memory")] {
        let stt = FakeHearing::new(&["The whole."]);
        stt.texts.lock().unwrap().push_front(Err(ProviderError::OutOfMemory { what: "it".to_owned() }));
        let inputs = vec![audio(&[loud(600), quiet(pause), loud(600), quiet(900)])];
        let (told, _) = hear_with(stt, inputs).await;
        assert!(names(&told).contains(&expected.to_owned()), "{:?}", names(&told));
        assert_eq!(names(&told).iter().any(|it| it.starts_with("failed")), pause > 1000);
    }
}

/// Has a first draft of all at once, and takes its time for the words.
struct Careful;

impl SpeechToText for Careful {
    fn transcribe(&self, audio: BoxStream<'static, Mic>, _: SttOptions) -> Flow<Transcript> {
        let written = |text: &str| FinalTranscript {
            text: text.to_owned(),
            language: "en".to_owned(),
            segments: Vec::new(),
            audio: Duration::from_secs(1),
            latency: Duration::ZERO,
            ending: Some(Ending { stop: 0.95, ..Ending::default() }),
            served_by: "careful".into(),
        };
        let draft = stream::once(async move {
            audio.for_each(|_| async {}).await;
            Ok(Transcript::Draft(written("We were at home with hour friends last night.")))
        });
        let last = stream::once(async move {
            tokio::time::sleep(Duration::from_millis(700)).await;
            Ok(Transcript::Final(written("We were at home with our friends last night.")))
        });
        draft.chain(last).boxed()
    }

    fn languages(&self) -> Vec<String> {
        vec!["en".to_owned()]
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_judged_by_its_draft_and_told_by_its_final() {
    let inputs = vec![audio(&[loud(900), quiet(1500)])];
    let (told, _) = converse(Arc::new(FakeActivity), semantic(), Careful, inputs).await;
    let [draft, last] = ["hour", "our"].map(|our| format!("We were at home with {our} friends last night."));
    assert_eq!(names(&told), ["began", &format!("drafted {draft:?}"), "stopped", &format!("final {last:?}")]);
    let Some(Heard::Final(utterance)) = told.last() else { panic!("{told:?}") };
    assert!((200..=250).contains(&utterance.endpoint.as_millis()), "{:?}", utterance.endpoint);
    assert!((400..=700).contains(&utterance.stt.as_millis()), "{:?}", utterance.stt);
}

#[tokio::test(start_paused = true)]
async fn whoever_never_goes_on_is_not_waited_for_without_end() {
    let (told, _) = hear(semantic(), &["I was thinking that"], vec![audio(&[loud(600), quiet(2000)])]).await;
    let Some(Heard::Final(utterance)) = told.last() else { panic!("{told:?}") };
    assert!((1200..=1250).contains(&utterance.endpoint.as_millis()), "{:?}", utterance.endpoint);
    // Nor is a recogniser that takes its time.
    let mut stt = FakeHearing::new(&["Late."]);
    stt.delay = Duration::from_secs(3);
    let (told, _) = hear_with(stt, vec![audio(&[loud(600), quiet(2000)])]).await;
    let Some(Heard::Final(utterance)) = told.last() else { panic!("{told:?}") };
    assert!((1200..=1250).contains(&utterance.endpoint.as_millis()), "{:?}", utterance.endpoint);
    assert!(utterance.stt > Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_long_utterance_is_not_heard_anew_after_each_pause() {
    let inputs = vec![audio(&[loud(29_000), quiet(250), loud(1000), quiet(1500)])];
    let (told, stt) = hear(semantic(), &["One two. Three."], inputs).await;
    assert_eq!(stt.asked.lock().unwrap().len(), 1);
    let Some(Heard::Final(utterance)) = told.last() else { panic!("{told:?}") };
    // The partials say as much as the final one.
    assert!((300..=350).contains(&utterance.endpoint.as_millis()), "{:?}", utterance.endpoint);
}

#[tokio::test(start_paused = true)]
async fn silence_and_what_is_no_speech_are_nothing() {
    let (told, _) = hear(semantic(), &[], vec![audio(&[quiet(10_000)])]).await;
    assert_eq!(names(&told), [""; 0]);
    let (told, _) = hear(semantic(), &[" ... "], vec![audio(&[loud(300), quiet(1500)])]).await;
    assert_eq!(names(&told), ["began", "stopped", "nothing"]);
}

#[tokio::test(start_paused = true)]
async fn the_second_utterance_does_not_wait_for_the_firsts_transcript() {
    let inputs = vec![audio(&[loud(200), quiet(400), loud(200), quiet(600)])];
    let stt_delay = Duration::from_secs(2);
    let mut stt = FakeHearing::new(&["First.", "Second."]);
    stt.delay = stt_delay;
    let ear = Ear::new(Arc::new(stt), Arc::new(FakeActivity), server(), Caller::default(), new_id, false);
    let (inbox, requests) = mpsc::channel(64);
    let (turn, mut events) = mpsc::channel(64);
    let task = Task::spawn("ear", ear.run(requests, turn));
    for input in inputs {
        inbox.send(input.into()).await.unwrap();
    }
    let mut told = Vec::new();
    while told.len() < 6 {
        let Some(Event::Heard(heard)) = events.recv().await else { panic!("{told:?}") };
        if !matches!(heard, Heard::Partial(_) | Heard::Drafted(_) | Heard::Paused(_)) {
            told.push(heard);
        }
    }
    assert_eq!(names(&told), ["began", "stopped", "began", "stopped", "final \"First.\"", "final \"Second.\""]);
    drop(task);
}

#[tokio::test(start_paused = true)]
async fn push_to_talk_ends_at_the_commit() {
    let inputs = vec![audio(&[quiet(400), loud(330)]), Input::Commit, Input::Commit];
    let (told, stt) = hear(push_to_talk(), &["Hello."], inputs).await;
    assert_eq!(names(&told), ["partial \"Hello.\"", "committed", "refused bad_audio", "final \"Hello.\""]);
    assert_eq!(stt.heard.lock().unwrap()[0].len().millis(), 730, "to the last sample");
}

#[tokio::test(start_paused = true)]
async fn a_commit_ends_an_utterance_before_its_silence() {
    let inputs = vec![Input::Commit, audio(&[loud(400)]), Input::Commit, audio(&[quiet(1000)])];
    let (told, _) = hear(semantic(), &["Hello."], inputs).await;
    assert_eq!(names(&told), ["refused bad_audio", "began", "committed", "stopped", "final \"Hello.\""]);
    let Heard::Final(utterance) = &told[4] else { panic!() };
    assert_eq!(utterance.endpoint, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_nothing_is_answered_and_push_to_talk_goes_on() {
    let commit = || Input::Commit;
    let inputs = vec![commit(), audio(&[loud(330)]), commit(), Input::Settings(SettingsPatch::default()), commit()];
    let (told, _) = hear(push_to_talk(), &["Hello."], inputs).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("asked")).collect();
    assert_eq!(told, ["refused bad_audio", "committed", "refused bad_audio", "final \"Hello.\""]);
    // A switch of mode commits too, but nobody asked for that.
    let vad = Input::Settings(SettingsPatch { vad: Some(Some(VadPatch::default())), ..SettingsPatch::default() });
    let (told, _) = hear(push_to_talk(), &[], vec![vad]).await;
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_language_that_nobody_understands_is_refused_by_name() {
    let patch = |codes: &[&str]| SettingsPatch {
        languages: Some(codes.iter().map(|code| (*code).to_owned()).collect()),
        ..SettingsPatch::default()
    };
    let inputs = vec![
        Input::Settings(patch(&["en", "xx"])),
        Input::Regenerate { item_id: "m1".to_owned(), terms: patch(&["yy"]) },
        audio(&[loud(400), quiet(600)]),
        Input::Settings(patch(&["de"])),
        audio(&[loud(400), quiet(600)]),
    ];
    let (told, stt) = hear(semantic(), &["One.", "Two."], inputs).await;
    for (heard, code) in told[..2].iter().zip(["xx", "yy"]) {
        let Heard::Refused { complaint, .. } = heard else { panic!("{heard:?}") };
        assert_eq!(complaint.code, ErrorCode::LanguageUnsupported);
        assert_eq!(complaint.message, format!("languages: \"{code}\" is not understood here; allowed are de, en"));
    }
    let asked: Vec<_> = stt.asked.lock().unwrap().iter().map(|options| options.languages.clone()).collect();
    assert_eq!(asked, [vec![], vec!["de".to_owned()]], "a refused patch changes nothing");
    assert_eq!(names(&told).iter().filter(|it| it.starts_with("asked")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_detector_that_panics_is_told_of_and_the_ear_listens_on() {
    // In the middle of an utterance.
    let inputs = vec![audio(&[quiet(320), loud(700), quiet(600), loud(700), quiet(600)])];
    let faulty = Arc::new(FaultyActivity::new(20..21));
    let (told, _) = hear_by(faulty, semantic(), &["One.", "Two."], inputs).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("pa")).collect();
    let once = ["began", "refused provider_failed", "stopped", "final \"One.\"", "began", "stopped", "final \"Two.\""];
    assert_eq!(told, once);
    // For good, in the middle of an utterance: that one ends, and push-to-talk is left.
    let talk = Input::Settings(SettingsPatch { vad: Some(None), ..SettingsPatch::default() });
    let inputs = vec![audio(&[loud(20_000)]), talk, audio(&[loud(300)]), Input::Commit];
    let faulty = Arc::new(FaultyActivity::new(20..usize::MAX));
    let (told, _) = hear_by(faulty, semantic(), &["One.", "Two."], inputs).await;
    let kept = |it: &String| !it.starts_with("pa") && !it.starts_with("asked");
    let told: Vec<_> = names(&told).into_iter().filter(kept).collect();
    let once = ["began", "refused provider_failed", "stopped", "final \"One.\"", "committed", "final \"Two.\""];
    assert_eq!(told, once);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_utterance_is_forgotten() {
    let inputs = vec![audio(&[loud(700)]), Input::CancelInput, audio(&[quiet(1000)]), Input::CancelInput];
    let (told, stt) = hear(semantic(), &["Never mind."], inputs).await;
    assert_eq!(names(&told), ["began", "partial \"Never\"", "stopped", "nothing"]);
    assert_eq!(stt.heard.lock().unwrap().len(), 0, "its transcription was dropped");
}

#[tokio::test(start_paused = true)]
async fn the_longest_utterance_is_cut() {
    let (told, stt) = hear(semantic(), &["One.", "Two."], vec![audio(&[loud(100_000), quiet(500)])]).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("pa")).collect();
    assert_eq!(told, ["began", "stopped", "final \"One.\"", "began", "stopped", "final \"Two.\""]);
    assert!(stt.heard.lock().unwrap()[0].duration() <= Duration::from_secs(90));
    let (told, stt) = hear(push_to_talk(), &["One.", "Two."], vec![audio(&[loud(100_000)]), Input::Commit]).await;
    let told: Vec<_> = names(&told).into_iter().filter(|it| !it.starts_with("pa")).collect();
    assert_eq!(told, ["committed", "final \"One.\"", "committed", "final \"Two.\""]);
    assert_eq!(stt.heard.lock().unwrap().iter().map(|it| it.len().millis()).sum::<u64>(), 100_000);
}

#[tokio::test(start_paused = true)]
async fn a_recogniser_that_fails_panics_or_sleeps_is_told_of_once() {
    let asleep = Duration::from_hours(1);
    let error = ProviderError::OutOfMemory { what: "it".to_owned() };
    for (text, delay, expected) in [
        (Err(error), Duration::ZERO, "failed it ran out of memory"),
        (Ok("late".to_owned()), asleep, "failed speech recognition did not answer within 30 s"),
    ] {
        let mut stt = FakeHearing::new(&[]);
        stt.texts.lock().unwrap().push_back(text);
        stt.delay = delay;
        let ear = Ear::new(Arc::new(stt), Arc::new(FakeActivity), server(), Caller::default(), new_id, false);
        let (inbox, requests) = mpsc::channel(8);
        let (turn, mut events) = mpsc::channel(8);
        let _task = Task::spawn("ear", ear.run(requests, turn));
        inbox.send(audio(&[loud(300), quiet(500)]).into()).await.unwrap();
        let mut told = Vec::new();
        while let Ok(Some(Event::Heard(heard))) = tokio::time::timeout(2 * LONGEST_SILENCE, events.recv()).await {
            if !matches!(heard, Heard::Partial(_) | Heard::Drafted(_) | Heard::Paused(_)) {
                told.push(heard);
            }
        }
        assert_eq!(names(&told), ["began", "stopped", expected]);
    }
    // Without a script the fake panics.
    let (told, _) = hear(semantic(), &[], vec![audio(&[loud(300), quiet(500)])]).await;
    assert_eq!(names(&told), ["began", "failed speech recognition failed", "stopped"]);
}

#[tokio::test(start_paused = true)]
async fn settings_count_from_where_they_stand() {
    let vad = |vad| Input::Settings(SettingsPatch { vad: Some(vad), ..SettingsPatch::default() });
    let slower = VadPatch { silence_ms: Some(1000), ..VadPatch::default() };
    let inputs = vec![
        vad(Some(slower)),
        audio(&[loud(300), quiet(500), loud(300), quiet(1100)]),
        vad(None),
        audio(&[loud(200)]),
        Input::Commit,
        vad(Some(VadPatch::default())),
        audio(&[loud(300), quiet(1100)]),
    ];
    let (told, _) = hear(semantic(), &["One.", "One.", "Two.", "Three."], inputs).await;
    let kept = |it: &String| !it.starts_with("pa") && !it.starts_with("asked");
    // The pause in the first one is transcribed too.
    let told_names: Vec<_> = names(&told).into_iter().filter(kept).collect();
    let expected =
        ["began", "stopped", "final \"One.\"", "committed", "began", "final \"Two.\"", "stopped", "final \"Three.\""];
    assert_eq!(told_names, expected);
    let last = told.iter().rev().find_map(|it| if let Heard::Began { at, .. } = it { Some(at.millis()) } else { None });
    assert!(last.unwrap().abs_diff(2400) <= 64, "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_the_ear_goes_on_in_order() {
    let interrupt = Input::Interrupt { item_id: None, played_ms: Some(3) };
    let text = Input::Text {
        text: "Hi".to_owned(),
        client_message_id: None,
        terms: SettingsPatch::default(),
        character_ids: Vec::new(),
    };
    let (told, _) = hear(semantic(), &[], vec![interrupt.clone(), text.clone()]).await;
    assert_eq!(names(&told), [format!("asked {interrupt:?}"), format!("asked {text:?}")]);
}

//! What a session keeps: history, summaries, titles, recordings.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_conversation_goes_on_where_it_was() {
    let house = House::new(&[]);
    let quick = Duration::from_millis(1);
    house.chat.say("Hello.", quick, quick);
    house.chat.say("Again.", quick, quick);
    let mut client = house.open().await;
    client.say("First").await;
    client.until(is_complete).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    let known = Opening { conversation_id: Some("known".to_owned()), ..opening() };
    let mut client = Client { handle: start(house.parts(), known).await.unwrap(), start: Instant::now() };
    client.say("Second").await;
    client.until(is_complete).await;
    let asked = house.chat.asked.lock().unwrap()[1].messages.clone();
    let contents: Vec<_> = asked[1..].iter().map(|it| it.content.as_str()).collect();
    assert_eq!(contents, ["First", "Hello.", "Second"]);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let house = House::new(&[]);
    let unknown = Opening { conversation_id: Some("gone".to_owned()), ..opening() };
    let error = start(house.parts(), unknown).await.err();
    assert_eq!(error, Some(StartError::ConversationNotFound("gone".to_owned())));
    let nobody = Opening { character_ids: vec!["nobody".to_owned()], ..opening() };
    let error = start(house.parts(), nobody).await.err();
    assert_eq!(error, Some(StartError::CharacterNotFound("nobody".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_long_conversation_is_summed_up_in_a_pause() {
    let (house, mut client) = long_conversation(true).await;
    house.chat.say("They talked about turns.", Duration::from_millis(500), Duration::from_millis(10));
    client.for_a_while(Duration::from_mins(1)).await;
    talk(&house, &mut client, 6).await;
    let asked = house.chat.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 7, "five replies, one summary, one reply");
    let told_of = &asked[5].messages[1].content;
    assert!(told_of.contains("in turn 1.") && told_of.contains("Olivia: I think that turn 1 is good."), "{told_of}");
    assert!(asked[5].sampling.temperature == 0.0 && asked[5].sampling.max_tokens <= 160);
    let messages = &asked[6].messages;
    assert_eq!(messages[0].content, "You are Olivia.\n\nEarlier in this conversation: They talked about turns.");
    assert!(messages.len() >= 6 && messages.len() < 12, "{messages:?}");
    assert!(messages[messages.len() - 3].content.contains("in turn 5."));
    assert_eq!(house.chat.prepared.lock().unwrap().last().unwrap().messages[0], messages[0]);
}

#[tokio::test(start_paused = true)]
async fn no_summary_is_asked_for_by_default() {
    let (house, mut client) = long_conversation(false).await;
    client.for_a_while(Duration::from_mins(1)).await;
    assert_eq!(house.chat.asked.lock().unwrap().len(), 5);
    assert!(!Settings::default().summarize_history);
}

#[tokio::test(start_paused = true)]
async fn a_turn_stops_the_summary() {
    let (house, mut client) = long_conversation(true).await;
    house.chat.say("This takes too long.", Duration::from_mins(1), Duration::ZERO);
    client.for_a_while(Duration::from_secs(10)).await;
    assert_eq!((house.chat.asked.lock().unwrap().len(), house.chat.load.now()), (6, 1));
    talk(&house, &mut client, 6).await;
    assert_eq!((house.chat.load.now(), house.chat.load.most()), (0, 1), "the model wrote one thing at a time");
    house.chat.say("They talked.", Duration::from_millis(500), Duration::ZERO);
    client.for_a_while(Duration::from_mins(1)).await;
    let asked = house.chat.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 8);
    assert_eq!(asked[6].messages[0].content, "You are Olivia.");
    assert!(asked[7].messages[1].content.contains("in turn 1."));
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_fails_is_tried_again_after_a_turn() {
    let (house, mut client) = long_conversation(true).await;
    house.chat.fail(ProviderError::Failed { what: "the language model".to_owned() });
    let told = client.for_a_while(Duration::from_mins(5)).await;
    assert!(!told.iter().any(|output| matches!(output, Output::Error(_))), "{told:?}");
    assert_eq!(house.chat.asked.lock().unwrap().len(), 6);
    talk(&house, &mut client, 6).await;
    // This one says nothing, which is a failure too.
    house.chat.say("", Duration::from_millis(5), Duration::ZERO);
    client.for_a_while(Duration::from_mins(5)).await;
    assert_eq!(house.chat.asked.lock().unwrap().len(), 8);
    talk(&house, &mut client, 7).await;
    assert_eq!(house.chat.asked.lock().unwrap()[8].messages[0].content, "You are Olivia.");
}

#[tokio::test(start_paused = true)]
async fn who_asks_and_which_model_is_meant_ride_with_every_request() {
    let house = House::new(&["Hello."]);
    let opening = Opening {
        conversation_id: Some("private-1".to_owned()),
        character_ids: vec!["openai/gpt-4o-001".to_owned()],
        ..opening()
    };
    let mut client = Client { handle: start(house.parts(), opening).await.unwrap(), start: Instant::now() };
    house.chat.say("Good morning.", Duration::from_millis(100), Duration::ZERO);
    tokio::spawn(speak(client.handle.inbox.clone(), microphone(1000, 1000)));
    let report = report_of(&client.until(is_complete).await);
    assert_eq!(report.served_by.llm.as_deref(), Some("fake-mind"));
    let caller = Caller { private: true, conversation_id: Some("private-1".into()), ..Caller::default() };
    let asked = house.chat.asked.lock().unwrap().clone();
    for request in asked.iter().chain(house.chat.prepared.lock().unwrap().iter()) {
        assert_eq!((&request.caller, request.model.as_deref()), (&caller, Some("openai/gpt-4o")));
    }
    assert!(!asked.is_empty());
    assert_eq!(house.stt.asked.lock().unwrap()[0].caller, caller);
    assert_eq!(house.speech.asked.lock().unwrap()[0].caller, caller);
    let stored = house.records.message(Role::Assistant);
    assert_eq!(stored.metadata["served_by"]["llm"], "fake-mind");
}

#[tokio::test(start_paused = true)]
async fn a_conversation_gets_its_title_in_a_pause() {
    let house = House::new(&[]);
    house.chat.say("Knead it well.", Duration::from_millis(10), Duration::from_millis(1));
    house.chat.say("\"Baking Bread\"", Duration::from_millis(300), Duration::from_millis(1));
    let untitled = Opening { conversation_id: Some("untitled".to_owned()), ..opening() };
    let mut client = Client { handle: start(house.parts(), untitled).await.unwrap(), start: Instant::now() };
    let Output::SessionStarted(started) = client.next().await else { panic!() };
    assert!(started.awaits_title);
    client.say("How do I bake bread?").await;
    let all = client.until(|it| matches!(it, Output::Titled { .. })).await;
    assert_eq!(*house.records.title.lock().unwrap(), "How do I bake bread?");
    assert!(all.iter().any(|(_, it)| is_complete(it)), "after the exchange");
    let all = client.until(|it| matches!(it, Output::Titled { is_final: true, .. })).await;
    assert!(matches!(&all.last().unwrap().1, Output::Titled { title, .. } if title == "Baking Bread"));
    assert_eq!(*house.records.title.lock().unwrap(), "Baking Bread");
    let asked = house.chat.asked.lock().unwrap().last().unwrap().clone();
    assert_eq!(asked.caller.conversation_id.as_deref(), Some("untitled"));
    assert!(!asked.caller.private);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_and_heard_is_recorded() {
    let mut house = House::new(&["Hello."]);
    house.records = Arc::new(Memory { keeps_recordings: true, ..Memory::default() });
    house.chat.say("Good morning.", Duration::from_millis(10), Duration::from_millis(1));
    let mut client = house.open().await;
    tokio::spawn(speak(client.handle.inbox.clone(), microphone(1000, 1000)));
    client.until(is_complete).await;
    drop(client);
    sleep(Duration::from_secs(1)).await;
    let recordings = house.records.recordings.lock().unwrap().clone();
    let [(said_id, Recording::Said(said)), (heard_id, Recording::Heard(heard))] = &recordings[..] else {
        panic!("{recordings:?}")
    };
    assert_eq!(*said_id, house.records.message(Role::User).id);
    assert_eq!(*heard_id, house.records.message(Role::Assistant).id);
    assert!((1000..=2000).contains(&said.duration().as_millis()), "{:?}", said.duration());
    assert_eq!(heard.duration().as_millis(), 60 * "Good morning.".len() as u128);
}

#[tokio::test(start_paused = true)]
async fn a_guest_takes_part_once() {
    let house = House::new(&[]);
    let known = Opening {
        conversation_id: Some("known".to_owned()),
        guests: vec!["guest-001".to_owned(), "default-001".to_owned()],
        ..opening()
    };
    let mut client = Client { handle: start(house.parts(), known).await.unwrap(), start: Instant::now() };
    let Output::SessionStarted(started) = client.next().await else { panic!() };
    let ids: Vec<_> = started.characters.iter().map(|character| character.id.as_str()).collect();
    assert_eq!(ids, ["default-001", "guest-001"]);
    let nobody = Opening { guests: vec!["nobody".to_owned()], ..opening() };
    let error = start(house.parts(), nobody).await.err();
    assert_eq!(error, Some(StartError::CharacterNotFound("nobody".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_does_not_listen_loses_the_session() {
    let house = House::new(&[]);
    house.chat.say(&FORTY_WORDS.repeat(20), Duration::from_millis(100), Duration::from_millis(10));
    let client = house.open().await;
    client.say("Tell me everything").await;
    sleep(Duration::from_secs(5)).await;
    let made = house.speech.asked.lock().unwrap().len();
    assert!(made <= 10, "{made} sentences were made for nobody");
    sleep(Duration::from_secs(20)).await;
    assert!(client.handle.inbox.is_closed());
    assert_eq!((house.chat.load.now(), house.speech.load.now()), (0, 0));
    assert_eq!(house.records.message(Role::Assistant).status, MessageStatus::Completed, "what there was is kept");
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handle_ends_every_task_and_keeps_what_was_said() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    let mut house = House::new(&[]);
    house.records = Arc::new(Memory { delay: Duration::from_millis(300), ..Memory::default() });
    house.chat.say(FORTY_WORDS, Duration::from_millis(100), Duration::from_millis(10));
    let mut client = house.open().await;
    client.say("Tell me a story").await;
    while !is_audio(&client.next().await) {}
    assert_eq!(tasks(), before + 4);
    drop(client);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(tasks(), before);
    assert_eq!((house.chat.load.now(), house.speech.load.now()), (0, 0));
    let kept = house.records.message(Role::Assistant);
    assert_eq!(kept.status, MessageStatus::Completed);
    assert!(kept.heard_chars.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_session_has_not_ended_before_all_is_stored() {
    let mut house = House::new(&[]);
    house.records = Arc::new(Memory { delay: Duration::from_secs(2), ..Memory::default() });
    house.chat.say("Hello.", Duration::from_millis(10), Duration::from_millis(10));
    let mut client = house.open().await;
    client.say("Hi").await;
    client.until(is_complete).await;
    assert!(house.records.messages.lock().unwrap().is_empty());
    let Handle { inbox, outbox, ending } = client.handle;
    drop((inbox, outbox));
    ending.stored().await;
    assert_eq!(house.records.message(Role::Assistant).content, "Hello.");
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_for_the_store() {
    let mut house = House::new(&[]);
    house.records = Arc::new(Memory { delay: Duration::from_secs(20), ..Memory::default() });
    house.chat.say("Hello.", Duration::from_millis(10), Duration::from_millis(10));
    let mut client = house.open().await;
    client.say("Hi").await;
    let all = client.until(is_complete).await;
    assert!(all.last().unwrap().0 < Duration::from_secs(2));
    assert!(!all.iter().any(|(_, it)| matches!(it, Output::MessageSaved { .. })));
    assert!(house.records.messages.lock().unwrap().is_empty());
    let saved = client.until(|it| matches!(it, Output::MessageSaved { role: Role::Assistant, .. })).await;
    assert_eq!(saved.iter().filter(|(_, it)| matches!(it, Output::MessageSaved { .. })).count(), 2);
}

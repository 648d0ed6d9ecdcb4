//! What a client sets, as the models are asked, in paused time.

use super::*;
use crate::provider::fake::UNKNOWN;

fn patch(value: &serde_json::Value) -> Input {
    Input::Settings(SettingsPatch::read(value).unwrap())
}

async fn set(client: &mut Client, value: &serde_json::Value) -> Settings {
    client.ask(patch(value)).await;
    let told = client.until(|it| matches!(it, Output::SettingsApplied(_) | Output::Error(_))).await;
    let Some((_, Output::SettingsApplied(applied))) = told.last() else { panic!("{told:?}") };
    applied.settings.clone()
}

async fn refused(client: &mut Client, value: &serde_json::Value) -> Complaint {
    client.ask(patch(value)).await;
    let told = client.until(|it| matches!(it, Output::SettingsApplied(_) | Output::Error(_))).await;
    let Some((_, Output::Error(complaint))) = told.last() else { panic!("{told:?}") };
    complaint.clone()
}

fn all_take_part(ids: &[&str]) -> Input {
    Input::Characters { character_ids: ids.iter().map(|id| (*id).to_owned()).collect() }
}

/// Says something that is heard.
async fn speak_up(client: &mut Client) {
    for chunk in microphone(1000, 1500) {
        client.ask(chunk).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_client_set_outlives_a_change_of_the_cast() {
    let house = House::new(&[]);
    let mut client = house.open().await;
    set(&mut client, &json!({"temperature": 0.7})).await;
    client.ask(all_take_part(&["default-001", "max-001"])).await;
    client.until(|it| matches!(it, Output::Characters(_))).await;
    for name in ["Olivia", "Max"] {
        house.chat.say("Yes.", Duration::ZERO, Duration::ZERO);
        client.say(&format!("{name}, are you there?")).await;
        client.until(is_complete).await;
    }
    let asked: Vec<f32> = house.chat.asked.lock().unwrap().iter().map(|asked| asked.sampling.temperature).collect();
    assert_eq!(asked, [0.7, 0.7], "their own is 0.1");
}

#[tokio::test(start_paused = true)]
async fn each_room_asks_the_model_that_was_set() {
    let house = House::new(&["Who is there?"]);
    let mut client = house.open().await;
    let models = json!({"model": "thinks", "stt_model": "hears", "tts_model": "speaks"});
    let settings = set(&mut client, &models).await;
    assert_eq!(
        [settings.model, settings.stt_model, settings.tts_model].map(Option::unwrap),
        ["thinks", "hears", "speaks"]
    );
    house.chat.say("It is me.", Duration::ZERO, Duration::ZERO);
    speak_up(&mut client).await;
    client.until(is_complete).await;
    assert_eq!(house.stt.asked.lock().unwrap()[0].model.as_deref(), Some("hears"));
    assert_eq!(house.chat.asked.lock().unwrap()[0].model.as_deref(), Some("thinks"));
    assert_eq!(house.chat.prepared.lock().unwrap().last().unwrap().model.as_deref(), Some("thinks"));
    assert_eq!(house.speech.asked.lock().unwrap()[0].model.as_deref(), Some("speaks"));
    let settings = set(&mut client, &json!({"model": null, "stt_model": null, "tts_model": null})).await;
    assert_eq!([settings.model, settings.stt_model, settings.tts_model], [None, None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_nobody_serves_is_told_at_once_and_nothing_is_applied() {
    let house = House::new(&["Who is there?"]);
    let mut client = house.open().await;
    for field in ["model", "stt_model", "tts_model"] {
        // Nothing of it: the ear would wait for a commit.
        let complaint = refused(&mut client, &json!({"vad": null, "temperature": 0.7, field: UNKNOWN})).await;
        assert_eq!((complaint.code, complaint.retryable), (ErrorCode::ModelUnavailable, false));
        let message = format!("{field}: there is no model \"nobody\": here are somebody, somebody-else");
        assert_eq!(complaint.message, message);
    }
    let complaint = refused(&mut client, &json!({"characters": {"default-001": {"tts_model": UNKNOWN}}})).await;
    assert!(complaint.message.starts_with("characters.default-001.tts_model: there is no model"), "{complaint:?}");
    house.chat.say("It is me.", Duration::ZERO, Duration::ZERO);
    speak_up(&mut client).await;
    client.until(is_complete).await;
    assert!((house.chat.asked.lock().unwrap()[0].sampling.temperature - 0.1).abs() < 1e-6);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_applied_of_what_names_a_stranger() {
    let house = House::new(&["Who is there?"]);
    let mut client = house.open().await;
    let wrong = json!({"vad": null, "characters": {"max-001": {"speed": 2}}});
    let complaint = refused(&mut client, &wrong).await;
    assert_eq!(complaint.code, ErrorCode::BadField);
    assert_eq!(complaint.message, "characters.max-001: does not take part in this conversation");
    house.chat.say("It is me.", Duration::ZERO, Duration::ZERO);
    speak_up(&mut client).await;
    client.until(is_complete).await;
    // Whoever is about to take part is none.
    client.ask(all_take_part(&["max-001"])).await;
    set(&mut client, &json!({"characters": {"max-001": {"speed": 2}}})).await;
    house.chat.say("Yes.", Duration::ZERO, Duration::ZERO);
    client.say("And you?").await;
    client.until(is_complete).await;
    assert!((house.speech.asked.lock().unwrap().last().unwrap().speed - 2.0).abs() < 1e-6);
    let complaint = refused(&mut client, &json!({"characters": {"default-001": {"speed": 2}}})).await;
    assert_eq!(complaint.message, "characters.default-001: does not take part in this conversation");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_goes_on_has_what_was_set_for_one() {
    let house = House::new(&[]);
    let settings = json!({"tts_model": "speaks", "characters": {"default-001": {"speed": 2, "model": "hers"}}});
    let settings = SettingsPatch::read(&settings).unwrap();
    let resumption = Resumption { session_id: "s".to_owned(), settings, ..Resumption::default() };
    let handle = resume(house.parts(), opening(), resumption).await.unwrap();
    let mut client = Client { handle, start: Instant::now() };
    let Output::SessionStarted(started) = client.next().await else { panic!() };
    assert_eq!(started.settings.tts_model.as_deref(), Some("speaks"));
    assert_eq!(started.settings.characters["default-001"].speed, Some(2.0));
    house.chat.say("Yes.", Duration::ZERO, Duration::ZERO);
    client.say("Hello.").await;
    client.until(is_complete).await;
    assert_eq!(house.chat.asked.lock().unwrap()[0].model.as_deref(), Some("hers"));
    let spoken = house.speech.asked.lock().unwrap().pop().unwrap();
    assert_eq!((spoken.model.as_deref(), spoken.speed), (Some("speaks"), 2.0));
}

//! How much one session may hold.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_utterance_ends_where_the_settings_say() {
    let talk = Some(SettingsPatch { vad: Some(None), ..SettingsPatch::default() });
    for patch in [None, talk] {
        let house = House::new(&["One.", "Two."]);
        let bounds = Bounds { utterance: Duration::from_secs(10), ..Bounds::default() };
        let handle = start(house.parts(), Opening { bounds, ..opening() }).await.unwrap();
        let mut client = Client { handle, start: Instant::now() };
        let by_voice = patch.is_none();
        if let Some(patch) = patch {
            client.ask(Input::Settings(patch)).await;
        }
        let inbox = client.handle.inbox.clone();
        tokio::spawn(async move {
            speak(inbox.clone(), microphone(13_000, 1_000)).await;
            if !by_voice {
                let _ = inbox.send(Input::Commit.into()).await;
            }
        });
        let text = |output: &Output| match output {
            Output::Transcription(heard) if heard.is_final => Some(heard.text.clone()),
            _ => None,
        };
        let all = client.until(|output| text(output).as_deref() == Some("Two.")).await;
        assert_eq!(all.iter().filter_map(|(_, output)| text(output)).collect::<Vec<_>>(), ["One.", "Two."]);
        let heard = house.stt.heard.lock().unwrap()[0].duration();
        assert!(heard >= Duration::from_millis(9_900) && heard <= Duration::from_millis(10_100), "{heard:?}");
    }
}

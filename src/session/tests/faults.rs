//! What goes wrong is told, and the session goes on.

use super::*;

#[tokio::test(start_paused = true)]
async fn faults_are_told_and_the_session_goes_on() {
    let mut house = House::new(&[]);
    let overloaded = ProviderError::Overloaded { what: "speech".to_owned(), retry_after: Duration::from_secs(3) };
    house.speech = Arc::new(FakeSpeech { failures: vec![("bad", overloaded)], ..FakeSpeech::default() });
    house.records = Arc::new(Memory { is_broken: true, ..Memory::default() });
    let mut client = house.open().await;
    house.chat.fail(ProviderError::Unavailable { what: "the model".to_owned(), remedy: "pull it".to_owned() });
    house.chat.say("This is bad, very bad. This is bad as well, and it is the end.", Duration::ZERO, Duration::ZERO);
    let quick = Duration::from_millis(10);
    for _ in 0..3 {
        client.say("Hello").await;
        let all = client.until(is_complete).await;
        let errors: Vec<Complaint> = all
            .into_iter()
            .filter_map(|(_, it)| if let Output::Error(complaint) = it { Some(complaint) } else { None })
            .filter(|complaint| complaint.code != ErrorCode::Internal)
            .collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
    // The third had no script: the model panicked. The fourth is fine, but for the store.
    house.chat.say("Fine.", quick, quick);
    client.say("And now?").await;
    let all = client.until(is_complete).await;
    assert!(!audio_of(&all).is_empty());
    assert!(all.iter().any(|(_, it)| matches!(it, Output::Error(Complaint { code: ErrorCode::Internal, .. }))));
}

#[tokio::test(start_paused = true)]
async fn a_session_outlives_its_voice_activity_detector() {
    let house = House::new(&[]);
    let quick = Duration::from_millis(10);
    house.chat.say("Fine.", quick, quick);
    let parts = Parts { vad: Arc::new(FaultyActivity::new(0..usize::MAX)), ..house.parts() };
    let mut client = Client { handle: start(parts, opening()).await.unwrap(), start: Instant::now() };
    for chunk in microphone(2000, 500) {
        client.ask(chunk).await;
    }
    let all = client.for_a_while(Duration::from_secs(1)).await;
    let errors: Vec<_> = all.iter().filter(|it| matches!(it, Output::Error(_))).collect();
    let [Output::Error(complaint)] = errors[..] else { panic!("{errors:?}") };
    assert_eq!((complaint.code, complaint.retryable), (ErrorCode::ProviderFailed, true));
    assert_eq!(complaint.message, "voice activity detection failed");
    client.say("Are you there?").await;
    assert!(!audio_of(&client.until(is_complete).await).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_repeats_the_requests_reference() {
    let house = House::new(&[]);
    let mut client = house.open().await;
    let languages = SettingsPatch { languages: Some(vec!["xx".to_owned()]), ..SettingsPatch::default() };
    for (input, code) in
        [(Input::Commit, ErrorCode::BadAudio), (Input::Settings(languages), ErrorCode::LanguageUnsupported)]
    {
        let reference = Some(code.to_string());
        client.handle.inbox.send(Request { input, reference: reference.clone() }).await.unwrap();
        let told = timeout(Duration::from_secs(9), client.handle.outbox.recv()).await.unwrap().unwrap();
        assert_eq!(told.reference, reference);
        assert!(matches!(&told.output, Output::Error(complaint) if complaint.code == code), "{told:?}");
    }
}

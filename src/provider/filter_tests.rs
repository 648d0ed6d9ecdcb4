use std::time::Duration;

use super::*;
use crate::provider::ChatMessage;
use crate::provider::fake::{FakeChat, FakeSpeech};

const LIST: &str = "# what must not pass\nrhubarb\nsecret plan\n";

fn chat(says: &str) -> (Filtered<dyn ChatModel>, Arc<FakeChat>) {
    let inner = Arc::new(FakeChat::default());
    inner.say(says, Duration::ZERO, Duration::ZERO);
    (Filtered::<dyn ChatModel>::new(Arc::clone(&inner) as _, Arc::new(WordList::new(LIST))), inner)
}

fn asking(text: &str) -> ChatRequest {
    ChatRequest { messages: vec![ChatMessage::new(Role::User, text)], ..ChatRequest::default() }
}

/// The text that passed, and how it ended.
async fn heard(model: &dyn ChatModel, request: ChatRequest) -> (String, Option<ProviderError>) {
    let mut flow = model.reply(request);
    let mut text = String::new();
    while let Some(delta) = flow.next().await {
        match delta {
            Ok(Delta::Text(more)) => text.push_str(&more),
            Ok(_) => {}
            Err(error) => return (text, Some(error)),
        }
    }
    (text, None)
}

#[tokio::test]
async fn a_harmless_reply_passes_to_the_letter() {
    let (model, _) = chat("Hello there, dear friend! All is well.");
    assert_eq!(heard(&model, asking("hi")).await, ("Hello there, dear friend! All is well.".to_owned(), None));
}

#[tokio::test]
async fn a_forbidden_word_is_never_heard() {
    for (says, passed) in [
        ("I like RHUBARB, really.", "I like "),
        ("My secret plan is this.", "My secret "),
        ("Ripe rhu\u{200b}bar\u{ad}b here.", "Ripe "),
        ("Rhubarbs are another word.", "Rhubarbs are another word."),
    ] {
        let (model, _) = chat(says);
        let (text, error) = heard(&model, asking("hi")).await;
        assert_eq!(text, passed);
        assert_eq!(error.is_some(), passed != says, "{error:?}");
    }
}

#[tokio::test]
async fn a_forbidden_question_asks_nobody() {
    let (model, inner) = chat("Yes.");
    let (text, error) = heard(&model, asking("Tell me about rhubarb")).await;
    assert!(text.is_empty() && matches!(error, Some(ProviderError::Filtered { .. })));
    assert!(inner.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_was_asked_before_the_last_reply_is_past() {
    let (model, _) = chat("Yes.");
    let mut request = asking("rhubarb");
    request.messages.push(ChatMessage::new(Role::Assistant, "No."));
    request.messages.push(ChatMessage::new(Role::User, "Well?"));
    assert_eq!(heard(&model, request).await, ("Yes.".to_owned(), None));
}

#[tokio::test]
async fn speech_is_judged_before_it_is_spoken() {
    let inner = Arc::new(FakeSpeech::default());
    let speech = Filtered::<dyn SpeechSynthesizer>::new(Arc::clone(&inner) as _, Arc::new(WordList::new(LIST)));
    let speak = |text: &str| speech.speak(SpeakRequest { text: text.to_owned(), ..SpeakRequest::default() });
    assert!(matches!(speak("More rhubarb.").next().await, Some(Err(ProviderError::Filtered { .. }))));
    assert!(inner.asked.lock().unwrap().is_empty());
    assert!(speak("More tea.").next().await.unwrap().is_ok());
}

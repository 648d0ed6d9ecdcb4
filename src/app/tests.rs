//! Chains from settings, with a scripted service elsewhere and, where a name says so, real weights.

use std::path::Path;

use futures::StreamExt;

use super::*;
use crate::config::{ConfigError, Flags};
use crate::engine::chat::tiny;
use crate::engine::speech::higgs::HiggsChoice;
use crate::provider::{
    Caller, ChatMessage, ChatRequest, Delta, ProviderError, ProviderReport, ProviderState, Role, Sampling, SttOptions,
};
use crate::remote::fake::{FakeProvider, Play};
use crate::testing;

/// The settings of the smallest profile, with models in `models_dir` and a service at `base_url`.
fn config(models_dir: &Path, base_url: Option<&str>) -> Config {
    let flags = Flags {
        models_dir: Some(models_dir.to_owned()),
        profile: Some("starter".to_owned()),
        device: Some("cpu".to_owned()),
        openai_base_url: base_url.map(str::to_owned),
        ..Flags::default()
    };
    let (mut config, _) = Config::read(&flags);
    config.openai.key = None;
    config.openrouter = config::Service::default();
    config
}

fn weights() -> std::path::PathBuf {
    testing::model("smollm2-135m-instruct").parent().unwrap().to_owned()
}

fn question(model: Option<&str>) -> ChatRequest {
    ChatRequest {
        messages: vec![ChatMessage::new(Role::User, "Say hello.")],
        sampling: Sampling { max_tokens: 4, ..Sampling::default() },
        model: model.map(str::to_owned),
        ..ChatRequest::default()
    }
}

/// Who answered.
async fn served_by(chat: &dyn ChatModel, request: ChatRequest) -> Result<String, ProviderError> {
    let mut flow = chat.reply(request);
    let mut by = String::new();
    while let Some(delta) = flow.next().await {
        if let Delta::Begin { served_by } = delta? {
            by = served_by.to_string();
        }
    }
    Ok(by)
}

/// Where nobody listens.
const DEAD: &str = "http://127.0.0.1:9/v1";

#[tokio::test]
async fn a_server_without_models_works_elsewhere_alone() {
    let folder = tempfile::tempdir().unwrap();
    let service = FakeProvider::start([Play::chat(&["Hello."])]).await;
    let mut config = config(folder.path(), Some(&service.base_url()));
    config.llm.first = Some("openai/gpt-4o-mini".to_owned());
    config.stt.fallback = vec!["openai/whisper-1".to_owned()];
    config.tts.fallback = vec!["openai/tts-1".to_owned()];
    let app = App::new(config).unwrap();
    let (hearing, chat) = (app.speech_to_text().await.unwrap(), app.chat_model().await.unwrap());
    app.speech_synthesizer().await.unwrap();
    app.voice_activity().unwrap();
    assert_eq!(served_by(&*chat, question(None)).await.unwrap(), "openai/gpt-4o-mini");
    let roster = app.roster();
    let shown = |report: &ProviderReport| (report.name.clone(), report.state == ProviderState::Ready);
    let providers: Vec<_> = roster.providers().iter().map(shown).collect();
    let expected = [("whisper-base", false), ("openai/whisper-1", true), ("openai/gpt-4o-mini", true)];
    assert_eq!(providers[..3], expected.map(|(name, ready)| (name.to_owned(), ready)));
    let missing = serde_json::to_string(&roster.providers()[0]).unwrap();
    assert!(missing.contains("\"state\":\"missing\"") && missing.contains("aichat pull whisper-base"), "{missing}");
    let models: Vec<_> = roster.models().into_iter().map(|card| card.name).collect();
    assert_eq!(models, ["openai/whisper-1", "openai/gpt-4o-mini", "openai/tts-1"]);
    // A private utterance goes nowhere, and is told both reasons.
    let caller = Caller { private: true, ..Caller::default() };
    let options = SttOptions { caller, ..SttOptions::default() };
    let error = hearing.transcribe(futures::stream::empty().boxed(), options).next().await.unwrap().unwrap_err();
    let error = error.to_string();
    assert!(error.contains("aichat pull whisper-base") && error.contains("private"), "{error}");
}

#[tokio::test]
async fn where_nothing_is_here_and_nobody_is_named_the_error_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let app = App::new(config(folder.path(), None)).unwrap();
    let error = app.chat_model().await.err().unwrap().to_string();
    assert!(error.contains("aichat pull smollm2-135m-instruct"), "{error}");
    assert!(error.contains("LLM_FALLBACK=openai/gpt-4o-mini with OPENAI_API_KEY"), "{error}");
}

#[tokio::test]
async fn real_remote_down_is_stood_in_for_by_the_local_model_and_names_choose() {
    let mut config = config(&weights(), Some(DEAD));
    config.llm.first = Some("openai/gpt-4o-mini".to_owned());
    let app = App::new(config).unwrap();
    let chat = app.chat_model().await.unwrap();
    assert_eq!(served_by(&*chat, question(None)).await.unwrap(), "smollm2-135m-instruct");
    assert_eq!(served_by(&*chat, question(Some("smollm2-135m-instruct"))).await.unwrap(), "smollm2-135m-instruct");
    for name in ["qwen3-8b", "kokoro-82m", "anthropic/claude-3.5-sonnet", "/etc/passwd", "../x.gguf", "banana"] {
        let error = served_by(&*chat, question(Some(name))).await.unwrap_err();
        assert!(matches!(error, ProviderError::UnknownModel { .. }), "{name}: {error}");
        assert!(error.to_string().contains("smollm2-135m-instruct"), "{name}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_speech_model_takes_what_the_others_leave() {
    let (at, service) = (tempfile::tempdir().unwrap(), FakeProvider::start([]).await);
    let mut config = config(at.path(), Some(&service.base_url()));
    config.database_url = format!("sqlite://{}", at.path().join("aichat.db").display());
    let file = at.path().join("model.gguf");
    std::fs::write(&file, tiny("llama")).unwrap();
    config.llm.first = Some(file.display().to_string());
    config.stt.first = Some("openai/whisper-1".to_owned());
    config.tts.first = Some(HIGGS.to_owned());
    let (model, codec) = (testing::fixture("higgs_lm/wide"), testing::fixture("higgs_codec/transformers"));
    (config.higgs.model, config.higgs.tokenizer) = (Some(model.clone()), Some(codec.clone()));
    let app = App::new(config).unwrap();
    let choices = HiggsChoice::all(&model, &codec, app.device, app.config.max_concurrent_tts).unwrap();
    let (chat, smallest) = (app.need_beside_speech().unwrap(), choices.last().unwrap().bytes);
    assert!(choices[0].bytes < chat + smallest, "there is room for the best, were it alone");
    app.loader.ledger.set_budget(&app.device.to_string(), chat + smallest);
    app.parts(&app.store().await.unwrap()).await.unwrap();
    let booked = app.loader.ledger.snapshot().remove(0).entries;
    assert_eq!(booked, [(app.llm_model(), chat), (HIGGS.to_owned(), smallest)]);
}

#[tokio::test]
async fn real_two_characters_on_two_models_are_answered_by_each() {
    let service = FakeProvider::start([Play::chat(&["Hello."])]).await;
    let app = App::new(config(&weights(), Some(&service.base_url()))).unwrap();
    let chat = app.chat_model().await.unwrap();
    let (one, two) =
        tokio::join!(served_by(&*chat, question(Some("openai/gpt-4o"))), served_by(&*chat, question(None)));
    assert_eq!((one.unwrap().as_str(), two.unwrap().as_str()), ("openai/gpt-4o", "smollm2-135m-instruct"));
}

#[test]
fn settings_that_name_nothing_are_told_each_on_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), None);
    config.profile = "huge".to_owned();
    config.stt.first = Some("base.en".to_owned());
    config.llm.first = Some("anthropic/claude-3.5-sonnet".to_owned());
    config.llm.fallback = vec!["openai/".to_owned(), "kokoro-82m".to_owned()];
    config.tts.first = Some("./voice.gguf".to_owned());
    let lines = faults(&config, &[]);
    let starts = [
        "PROFILE=huge: there is no such profile; write auto or one of starter",
        "LLM_MODEL=anthropic/claude-3.5-sonnet: that model is openrouter's; write OPENROUTER_API_KEY too",
        "LLM_FALLBACK=openai/: write the model's name",
        "LLM_FALLBACK=kokoro-82m: that is a Speech model; write one of smollm2-135m-instruct",
        "TTS_MODEL=./voice.gguf: a file can only be the language model",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
    }
    let told = [ConfigError::Secret { name: "OPENROUTER_API_KEY", reason: "a placeholder".to_owned() }];
    assert!(!faults(&config, &told).iter().any(|line| line.contains("OPENROUTER_API_KEY")), "that was told");
}

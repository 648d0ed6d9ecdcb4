use std::collections::BTreeMap;

use clap::{CommandFactory, Parser};
use secrecy::ExposeSecret;

use super::*;

/// The block as its document has it.
const BLOCK: &str = r#"
# API Keys
OPENROUTER_API_KEY=your_openrouter_key_here

# Supabase
SUPABASE_URL=https://jslevsbvapopncjehhva.supabase.co
SUPABASE_ANON_KEY=eyJhbGci...

# Server
HOST=0.0.0.0
PORT=8000

# Models
STT_MODEL=base.en
LLM_MODEL=anthropic/claude-3.5-sonnet
HIGGS_MODEL_PATH=bosonai/higgs-audio-v2-generation-3B-base
HIGGS_TOKENIZER_PATH=bosonai/higgs-audio-v2-tokenizer

# Device
DEVICE=cuda  # or "cpu"
MAX_CONCURRENT_TTS=3
"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

/// What these lines of a `.env` come to, in an environment that says nothing else.
fn read(lines: &str) -> (Config, Vec<String>, Vec<ConfigError>) {
    let variables: BTreeMap<String, String> =
        dotenvy::from_read_iter(lines.as_bytes()).collect::<Result<_, _>>().unwrap();
    let mut arguments = vec!["aichat".to_owned()];
    for argument in Line::command().get_arguments() {
        let Some(value) = argument.get_env().and_then(|name| variables.get(name.to_str().unwrap())) else { continue };
        arguments.extend([format!("--{}", argument.get_long().unwrap()), value.clone()]);
    }
    let flags = Line::parse_from(arguments).flags;
    let (config, wrong) = Config::read_with(&flags, Path::new("absent.toml"), |name| variables.get(name).cloned());
    let text = wrong.iter().chain(&config.listening_fault(&wrong)).map(ToString::to_string).collect();
    (config, text, wrong)
}

#[test]
fn a_pasted_block_is_told_all_that_is_wrong_with_it() {
    let (config, lines, wrong) = read(BLOCK);
    let [key, host] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(key.starts_with("OPENROUTER_API_KEY: that is an example's placeholder"), "{key}");
    assert!(key.contains("write a key") && !key.contains("your_openrouter"), "{key}");
    assert!(host.starts_with("HOST=0.0.0.0: others could reach") && host.contains("AICHAT_API_KEY=SECRET"), "{host}");
    assert_eq!(wrong[0].name(), Some("OPENROUTER_API_KEY"));
    assert_eq!((config.device.as_str(), config.max_concurrent_tts), ("cuda", 3), "a comment is no part of a value");
    assert_eq!(config.llm.first.as_deref(), Some("anthropic/claude-3.5-sonnet"));
    // The hub's names bring nobody a model of 11 GB.
    assert_eq!(config.higgs, Higgs { is_named: true, ..Higgs::default() });
    assert_eq!(config.tts.first, None);
}

#[test]
fn a_folder_with_higgs_chooses_it_unless_another_is_named() {
    let (config, lines, _) = read("HIGGS_MODEL_PATH=/srv/higgs\nHIGGS_TOKENIZER_PATH=/srv/codec\n");
    assert!(lines.is_empty(), "{lines:#?}");
    let folders = Higgs { model: Some("/srv/higgs".into()), tokenizer: Some("/srv/codec".into()), is_named: false };
    assert_eq!((config.higgs, config.tts.first.as_deref()), (folders, Some("higgs-audio-v2")));
    let (config, ..) = read("HIGGS_MODEL_PATH=/srv/higgs\nTTS_MODEL=kokoro-82m\n");
    assert_eq!(config.tts.first.as_deref(), Some("kokoro-82m"));
    // The hub's names are no folders, the later one neither.
    for name in ["bosonai/higgs-audio-v2-generation-3B-base", "bosonai/higgs-tts-2-3b-base"] {
        let (config, ..) = read(&format!("HIGGS_MODEL_PATH={name}\n"));
        assert_eq!(config.higgs, Higgs { model: None, tokenizer: None, is_named: true }, "{name}");
    }
}

#[test]
fn a_pasted_block_with_keys_is_right() {
    let mended = BLOCK.replace("your_openrouter_key_here", "sk-or-v1-0123456789abcdef");
    let (config, lines, _) = read(&format!("{mended}\nAICHAT_API_KEY=3f1c2b9a77d04e55\n"));
    assert!(lines.is_empty(), "{lines:#?}");
    assert_eq!(config.openrouter.key.unwrap().expose_secret(), "sk-or-v1-0123456789abcdef");
    assert_eq!(config.listen, "0.0.0.0:8000".parse().unwrap());
    assert!(!config.openai.is_configured());
}

#[test]
fn names_that_mean_nothing_here_are_told_from_ours() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".env");
    std::fs::write(&file, BLOCK).unwrap();
    assert_eq!(environment::unknown_in(&file), ["SUPABASE_URL", "SUPABASE_ANON_KEY"]);
    assert!(environment::unknown_in(&folder.path().join("absent")).is_empty());
}

#[test]
fn keys_are_in_no_debug_and_in_no_error() {
    let secrets = [
        ("OPENAI_API_KEY", "sk-canary-openai-1"),
        ("OPENROUTER_API_KEY", "sk-canary-openrouter-2"),
        ("AICHAT_API_KEY", "canary-own-3"),
        ("HF_TOKEN", "hf_canary_4"),
    ];
    let lines = secrets.iter().map(|(name, secret)| format!("{name}={secret}\n")).collect::<Vec<_>>().concat();
    let (config, wrong, _) = read(&lines);
    assert!(wrong.is_empty() && config.api_key.is_some() && config.hub.token.is_some());
    let text = format!("{config:?}");
    assert!(!text.contains("canary"), "{text}");
    // One that is wrong is not repeated either.
    let lines = secrets[..3].iter().map(|(name, secret)| format!("{name}='{secret} é'\n")).collect::<Vec<_>>().concat();
    let (config, wrong, _) = read(&lines);
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(!format!("{wrong:?}{config:?}").contains("canary") && config.openai.key.is_none());
}

#[test]
fn a_key_in_a_broken_file_is_not_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aichat.toml");
    for text in [
        "openai_api_key = \"sk-canary\nport = 1",
        "port = \"x\"\nopenai_api_key = \"sk-canary\"",
        "api_kee = \"sk-canary\"",
    ] {
        std::fs::write(&file, text).unwrap();
        let (_, wrong) = Config::read_with(&Flags::default(), &file, |_| None);
        let [error] = wrong.as_slice() else { panic!("{wrong:?}") };
        let error = error.to_string();
        assert!(error.contains("aichat.toml: line ") && !error.contains("canary"), "{error}");
    }
}

#[test]
fn a_line_that_cannot_be_read_is_named_without_its_value() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(".env");
    for (text, place) in [
        ("PORT=1\nOPENAI_API_KEY=sk-canary with spaces\n", "line 2, OPENAI_API_KEY, cannot be read"),
        ("sk-canary\n", "line 1 cannot be read"),
    ] {
        std::fs::write(&file, text).unwrap();
        let Err(dotenvy::Error::LineParse(part, _)) =
            dotenvy::from_path_iter(&file).unwrap().collect::<Result<Vec<_>, _>>()
        else {
            panic!("{text} can be read")
        };
        let error = environment::unreadable(&file, &part).to_string();
        assert!(error.contains(place) && !error.contains("canary"), "{error}");
    }
}

#[test]
fn lists_and_files_are_read() {
    let (config, wrong, _) = read("LLM_FALLBACK='openai/gpt-4o-mini, anthropic/claude-3.5-sonnet,'\nSTT_FALLBACK=\n");
    assert!(wrong.is_empty());
    assert_eq!(config.llm.fallback, ["openai/gpt-4o-mini", "anthropic/claude-3.5-sonnet"]);
    assert!(config.stt.fallback.is_empty() && config.llm.first.is_none());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aichat.toml");
    let text = "tts_fallback = [\"openai/tts-1\"]\nopenai_base_url = \"127.0.0.1:1\"\nmax_concurrent_tts = 0\nopenai_api_key = \"sk-1\"";
    std::fs::write(&file, text).unwrap();
    let (config, wrong) = Config::read_with(&Flags::default(), &file, |_| None);
    assert_eq!(config.tts.fallback, ["openai/tts-1"]);
    assert_eq!(config.openai.key.unwrap().expose_secret(), "sk-1");
    let lines: Vec<_> = wrong.iter().map(ToString::to_string).collect();
    let lines = lines.join("\n");
    assert!(
        lines.contains("MAX_CONCURRENT_TTS=0: must be") && lines.contains("OPENAI_BASE_URL=127.0.0.1:1: must begin")
    );
}

#[test]
fn who_may_come_in_is_checked() {
    let (config, lines, _) = read(
        "ALLOWED_ORIGINS='https://a.example, *'\nALLOWED_HOSTS='Chat.example.org, [::1]'\nTLS_CERT=a.pem\nTLS_KEY=b.pem\n",
    );
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(config.allowed_origins, ["https://a.example", "*"]);
    assert_eq!(config.allowed_hosts, ["Chat.example.org", "[::1]"]);
    assert_eq!((config.tls.certificate, config.tls.key), (Some("a.pem".into()), Some("b.pem".into())));
    assert_eq!(config.rate_limit_per_minute, 6000);
    for (setting, begins) in [
        ("TLS_CERT=a.pem", "TLS_CERT=a.pem: write TLS_KEY"),
        ("TLS_KEY=b.pem", "TLS_KEY=b.pem: write TLS_CERT"),
        ("ALLOWED_HOSTS=https://chat.example.org", "ALLOWED_HOSTS=https://chat.example.org: must be names"),
        ("ALLOWED_ORIGINS=chat.example.org", "ALLOWED_ORIGINS=chat.example.org: must be origins"),
        ("ALLOWED_ORIGINS=https://a.example/", "ALLOWED_ORIGINS=https://a.example/: must be origins"),
    ] {
        let (config, lines, _) = read(&format!("{setting}\n"));
        assert!(lines.len() == 1 && lines[0].starts_with(begins), "{lines:?}");
        assert!(config.tls.certificate.is_none() && config.tls.key.is_none());
        assert!(config.allowed_hosts.is_empty() && config.allowed_origins.is_empty());
    }
}

#[test]
fn limits_are_settings() {
    let (config, lines, _) = read("");
    assert!(lines.is_empty());
    assert_eq!(config.limits, SocketLimits::default());
    let (config, lines, _) = read("MAX_SESSIONS=2\nSESSION_QUEUE=0\nMICROPHONE_SPEED=1.5\nPING_SECONDS=5\n");
    assert!(lines.is_empty(), "{lines:?}");
    let ping_every = Duration::from_secs(5);
    let expected = SocketLimits { sessions: 2, queue: 0, microphone_speed: 1.5, ping_every, ..SocketLimits::default() };
    assert_eq!(config.limits, expected);
    for (setting, begins) in [
        ("MAX_SESSIONS=0", "MAX_SESSIONS=0: must be from 1 to 10000"),
        ("MICROPHONE_SPEED=nan", "MICROPHONE_SPEED=NaN: must be from 1 to 100"),
        ("MAX_UTTERANCE_SECONDS=1000", "MAX_UTTERANCE_SECONDS=1000: must be from 5 to 90"),
        ("PING_SECONDS=60", "SILENT_SECONDS=45: must be more than PING_SECONDS"),
    ] {
        let (config, lines, _) = read(&format!("{setting}\n"));
        assert!(lines.len() == 1 && lines[0].starts_with(begins), "{lines:?}");
        assert_eq!(config.limits, SocketLimits::default());
    }
}

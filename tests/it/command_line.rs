//! The commands, as a person runs them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const CLIPS: &str = "/usr/share/pocketsphinx/test/data";

fn aichat(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aichat")).args(arguments).current_dir(folder).output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// One error line, exit code 1, no panic.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && !text.contains("panicked"), "{text}");
    text
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["serve", "pull", "models", "transcribe", "speak", "chat", "talk", "keys", "doctor"] {
        let help = stdout(&aichat(folder.path(), &[command, "--help"]));
        assert!(help.contains("Example"), "{command}: {help}");
    }
}

#[test]
fn a_wrong_setting_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = complaint(&aichat(folder.path(), &["doctor", "--device", "tpu"]));
    assert!(text.contains("DEVICE") || text.contains("device"), "{text}");
    std::fs::write(folder.path().join("aichat.toml"), "prot = 1").unwrap();
    let text = complaint(&aichat(folder.path(), &["models"]));
    assert!(text.contains("aichat.toml") && text.contains("prot"), "{text}");
}

/// Every setting there is, set to nothing.
const EMPTY: [&str; 51] = [
    "HOST",
    "PORT",
    "DATABASE_URL",
    "DATA_DIR",
    "MODELS_DIR",
    "PROFILE",
    "DEVICE",
    "STT_MODEL",
    "LLM_MODEL",
    "TTS_MODEL",
    "EMBEDDING_MODEL",
    "STT_FALLBACK",
    "LLM_FALLBACK",
    "TTS_FALLBACK",
    "EMBEDDING_FALLBACK",
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENROUTER_API_KEY",
    "OPENROUTER_BASE_URL",
    "HIGGS_MODEL_PATH",
    "HIGGS_TOKENIZER_PATH",
    "MAX_CONCURRENT_TTS",
    "MODEL_IDLE_UNLOAD_MINUTES",
    "BUDGET_REQUEST_USD",
    "BUDGET_DAY_USD",
    "BUDGET_MONTH_USD",
    "PRICES",
    "CONTENT_FILTER_WORDS",
    "MODERATION_MODEL",
    "AICHAT_API_KEY",
    "ALLOWED_ORIGINS",
    "ALLOWED_HOSTS",
    "RATE_LIMIT_PER_MINUTE",
    "TLS_CERT",
    "TLS_KEY",
    "MAX_SESSIONS",
    "SESSION_QUEUE",
    "MAX_SESSIONS_PER_KEY",
    "MAX_MESSAGE_BYTES",
    "OUTBOUND_FRAMES",
    "MICROPHONE_SPEED",
    "MICROPHONE_BURST_SECONDS",
    "MAX_UTTERANCE_SECONDS",
    "PING_SECONDS",
    "SILENT_SECONDS",
    "SESSION_GRACE_SECONDS",
    "LOG",
    "LOG_FORMAT",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
];

#[test]
fn a_setting_that_is_empty_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aichat"));
        command.args(arguments).current_dir(folder.path()).envs(EMPTY.map(|name| (name, "")));
        command.env("XDG_CACHE_HOME", folder.path().join("cache")).output().unwrap()
    };
    stdout(&run(&["models"]));
    let looked_in = complaint(&run(&["chat", "hello", "--profile", "starter"]));
    assert!(looked_in.contains("cache/aichat/models"), "{looked_in}");
    std::fs::write(folder.path().join(".env"), EMPTY.map(|name| format!("{name}=\n")).concat()).unwrap();
    stdout(&run(&["models"]));
    // An empty variable does not hide what `.env` says, whatever characters are in it.
    let odd = r#"od"d $HOME \ #é"#;
    std::fs::write(folder.path().join(".env"), format!("MODELS_DIR='{odd}'\n")).unwrap();
    let looked_in = complaint(&run(&["chat", "hello", "--profile", "starter"]));
    assert!(looked_in.contains(odd), "{looked_in}");
    std::fs::write(folder.path().join(".env"), "PORT=many\n").unwrap();
    let text = String::from_utf8(run(&["models"]).stderr).unwrap();
    assert!(text.contains("'many'") && text.contains("--port"), "{text}");
}

#[test]
fn a_pasted_block_of_settings_gets_one_line_for_each_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let block = "OPENROUTER_API_KEY=your_openrouter_key_here\nSUPABASE_URL=https://x.supabase.co\n\
                 SUPABASE_ANON_KEY=eyJhbGci...\nHOST=0.0.0.0\nPORT=8000\nSTT_MODEL=base.en\n\
                 LLM_MODEL=anthropic/claude-3.5-sonnet\nHIGGS_MODEL_PATH=bosonai/higgs-audio-v2-generation-3B-base\n\
                 HIGGS_TOKENIZER_PATH=bosonai/higgs-audio-v2-tokenizer\nDEVICE=cuda  # or \"cpu\"\nMAX_CONCURRENT_TTS=3\n";
    std::fs::write(folder.path().join(".env"), block).unwrap();
    let text = complaint(&aichat(folder.path(), &["serve"]));
    let lines: Vec<_> = text.lines().collect();
    let expected: &[&str] = if cfg!(feature = "cuda") {
        &["error: 2 settings", "OPENROUTER_API_KEY: ", "HOST=0.0.0.0: "]
    } else {
        &["error: 3 settings", "OPENROUTER_API_KEY: ", "HOST=0.0.0.0: ", "DEVICE=cuda: "]
    };
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, start) in lines.iter().zip(expected) {
        assert!(line.starts_with(start) && (line.contains("write ") || line.contains("wrong")), "{line}");
    }
    assert!(!text.contains("eyJhbGci") && !text.contains("your_openrouter"), "{text}");
}

#[test]
fn a_server_without_any_model_says_all_that_is_missing_in_one_error() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--port", "0", "--models-dir", "nowhere", "--profile", "starter", "--log", "error"];
    let text = complaint(&aichat(folder.path(), &arguments));
    for part in ["aichat pull whisper-base", "aichat pull smollm2-135m-instruct", "aichat pull kokoro-82m"] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
    assert!(text.contains("STT_FALLBACK=openai/whisper-1 with OPENAI_API_KEY") && text.lines().count() == 3, "{text}");
}

#[test]
fn an_error_says_its_cause_once() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        &["transcribe", "absent.wav"][..],
        &["pull", "silero-vad", "--models-dir", "/dev/null/x"],
        &["models", "--log", "x=y=z"],
        &["doctor", "--database-url", "sqlite:///dev/null/x/y.db"],
    ] {
        let output = aichat(folder.path(), arguments);
        let all = [output.stdout.clone(), output.stderr.clone()].concat();
        let all = String::from_utf8(all).unwrap();
        complaint(&output);
        for line in all.lines().filter(|line| line.contains("absent.wav") || line.contains('x')) {
            let parts: Vec<_> = line.split(": ").collect();
            assert!(parts.windows(2).all(|pair| pair[0] != pair[1]), "{line}");
        }
    }
}

#[test]
fn a_language_model_that_is_cut_short_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.gguf"), b"GGUF").unwrap();
    let text = complaint(&aichat(folder.path(), &["chat", "hello", "--llm-model", "./model.gguf"]));
    assert!(text.contains("model.gguf") && text.contains("LLM_MODEL") && !text.contains("pull"), "{text}");
}

#[test]
fn the_hubs_address_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let command = env!("CARGO_BIN_EXE_aichat");
    let output = Command::new(command).arg("models").env("HF_ENDPOINT", "banana").current_dir(folder.path()).output();
    let text = complaint(&output.unwrap());
    assert!(text.contains("HF_ENDPOINT=banana: must begin with http"), "{text}");
}

#[test]
fn a_missing_model_says_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = complaint(&aichat(folder.path(), &["chat", "hello", "--models-dir", "nowhere"]));
    assert!(text.contains("aichat pull"), "{text}");
}

#[test]
fn files_that_are_no_sound_get_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("empty.wav"), "").unwrap();
    std::fs::write(at("text.wav"), "This is a text, not a sound. ".repeat(50)).unwrap();
    for (file, word) in
        [("absent.wav", "absent.wav"), ("empty.wav", "empty"), ("text.wav", "not an audio file"), (".", ".")]
    {
        for command in ["transcribe", "talk"] {
            let text = complaint(&aichat(folder.path(), &[command, file]));
            assert!(text.contains(word), "{command} {file}: {text}");
        }
    }
}

#[test]
fn real_talk_prints_transcript_reply_and_timings() {
    let folder = tempfile::tempdir().unwrap();
    let clip = format!("{CLIPS}/goforward.raw");
    let output = aichat(folder.path(), &["talk", &clip, "--json", "-o", "reply.wav"]);
    let turn: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(turn["transcript"].as_str().unwrap().to_lowercase().contains("forward"), "{turn}");
    assert!(!turn["reply"].as_str().unwrap().is_empty());
    assert!(turn["timings"]["total_ms"].is_u64() && turn["served_by"]["tts"].is_string(), "{turn}");
    assert!(std::fs::metadata(folder.path().join("reply.wav")).unwrap().len() > 10_000);
}

#[test]
fn real_speech_is_written_down_again() {
    let folder = tempfile::tempdir().unwrap();
    let said = "The garden gate was left open after the evening rain.";
    stdout(&aichat(folder.path(), &["speak", said, "-o", "said.wav", "--seed", "1"]));
    let text = stdout(&aichat(folder.path(), &["transcribe", "said.wav", "--language", "en"]));
    assert_eq!(text.trim(), said);
    let subtitles = stdout(&aichat(folder.path(), &["transcribe", "said.wav", "--format", "vtt"]));
    assert!(subtitles.starts_with("WEBVTT\n\n1\n00:00:00") && subtitles.contains("garden gate"), "{subtitles}");
    let json: Value =
        serde_json::from_str(&stdout(&aichat(folder.path(), &["transcribe", "said.wav", "--json"]))).unwrap();
    assert_eq!(json["segments"][0]["words"].as_array().unwrap().len(), said.split(' ').count());
}

#[test]
fn a_higgs_model_in_a_folder_speaks_in_the_voice_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let fixtures = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures");
    let settings = format!(
        "DEVICE=cpu\nTTS_MODEL=higgs-audio-v2\nHIGGS_MODEL_PATH={0}/higgs_lm/wide\nHIGGS_TOKENIZER_PATH={0}/higgs_codec/transformers\n",
        fixtures.display()
    );
    std::fs::write(folder.path().join(".env"), settings).unwrap();
    // What it says is noise: its weights are random.
    let sounds = ["clara", "james", "clara"].map(|voice| {
        stdout(&aichat(folder.path(), &["speak", "Good morning.", "--voice", voice, "-o", "said.wav", "--seed", "1"]));
        std::fs::read(folder.path().join("said.wav")).unwrap()
    });
    assert!(sounds[0].len() > 1_000 && sounds[0] != sounds[1] && sounds[0] == sounds[2]);
    let found = String::from_utf8(aichat(folder.path(), &["doctor"]).stdout).unwrap();
    let line = found.lines().find(|line| line.contains("higgs-audio-v2 would take")).unwrap();
    assert!(
        line.contains("at 4 bits, 1 at once, 2048 positions each") && line.contains("the other models take"),
        "{line}"
    );
    assert_eq!(line.matches("fit").count(), 1, "{line}");
}

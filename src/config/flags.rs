//! Settings as flags, environment and `aichat.toml` give them.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use super::ConfigError;
use super::environment::is_set;

/// Settings as flags and environment give them. Keys of services have no flag: a command line is for all to see.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub struct Flags {
    /// Address to listen on; another one than this machine's needs a key [default: 127.0.0.1]
    #[arg(long, env = "HOST", global = true, hide_env_values = true)]
    pub host: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 8000]
    #[arg(long, env = "PORT", global = true, hide_env_values = true)]
    pub port: Option<u16>,
    /// Database [default: sqlite://DATA_DIR/aichat.db]
    #[arg(long, env = "DATABASE_URL", global = true, hide_env_values = true)]
    pub database_url: Option<String>,
    /// Folder for the database and other state [default: data]
    #[arg(long, env = "DATA_DIR", global = true, hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// Folder with one folder per model [default: aichat/models in the user's cache folder]
    #[arg(long, env = "MODELS_DIR", global = true, hide_env_values = true)]
    pub models_dir: Option<PathBuf>,
    /// Which models: auto goes by the device's free memory [default: auto]
    #[arg(long, env = "PROFILE", global = true, hide_env_values = true)]
    pub profile: Option<String>,
    /// auto, cuda, cuda:N or cpu [default: auto]
    #[arg(long, env = "DEVICE", global = true, hide_env_values = true)]
    pub device: Option<String>,
    /// Speech recogniser, instead of the profile's: a local name, or openai/NAME
    #[arg(long, env = "STT_MODEL", global = true, hide_env_values = true)]
    pub stt_model: Option<String>,
    /// Who recognises speech where that one cannot, in order, separated by commas
    #[arg(long, env = "STT_FALLBACK", global = true, hide_env_values = true, value_delimiter = ',')]
    pub stt_fallback: Option<Vec<String>>,
    /// Language model, instead of the profile's: a local name, a path to a GGUF file, openai/NAME, openrouter/VENDOR/NAME
    #[arg(long, env = "LLM_MODEL", global = true, hide_env_values = true)]
    pub llm_model: Option<String>,
    /// Who answers where that one cannot, in order, separated by commas
    #[arg(long, env = "LLM_FALLBACK", global = true, hide_env_values = true, value_delimiter = ',')]
    pub llm_fallback: Option<Vec<String>>,
    /// Speech synthesiser, instead of the profile's: a local name, or openai/NAME
    #[arg(long, env = "TTS_MODEL", global = true, hide_env_values = true)]
    pub tts_model: Option<String>,
    /// Who speaks where that one cannot, in order, separated by commas
    #[arg(long, env = "TTS_FALLBACK", global = true, hide_env_values = true, value_delimiter = ',')]
    pub tts_fallback: Option<Vec<String>>,
    /// Embedding model, loaded when it is first asked: a local name, or openai/NAME [default: all-minilm-l6-v2]
    #[arg(long, env = "EMBEDDING_MODEL", global = true, hide_env_values = true)]
    pub embedding_model: Option<String>,
    /// Who embeds where that one cannot, in order, separated by commas; their vectors are others
    #[arg(long, env = "EMBEDDING_FALLBACK", global = true, hide_env_values = true, value_delimiter = ',')]
    pub embedding_fallback: Option<Vec<String>>,
    /// How many sentences may be generated at once [default: 3]
    #[arg(long, env = "MAX_CONCURRENT_TTS", global = true, hide_env_values = true)]
    pub max_concurrent_tts: Option<usize>,
    /// A local model that nobody has used for so many minutes is unloaded, and loaded again when it is asked; 0 is never
    /// [default: 0]
    #[arg(long, env = "MODEL_IDLE_UNLOAD_MINUTES", global = true, hide_env_values = true)]
    pub model_idle_unload_minutes: Option<u64>,
    /// The most that one request may cost elsewhere, in US dollars [default: any amount]
    #[arg(long, env = "BUDGET_REQUEST_USD", global = true, hide_env_values = true)]
    pub budget_request_usd: Option<f64>,
    /// The most that a day in UTC may cost, in US dollars [default: any amount]
    #[arg(long, env = "BUDGET_DAY_USD", global = true, hide_env_values = true)]
    pub budget_day_usd: Option<f64>,
    /// The most that a month may cost, in US dollars [default: any amount]
    #[arg(long, env = "BUDGET_MONTH_USD", global = true, hide_env_values = true)]
    pub budget_month_usd: Option<f64>,
    /// A file with prices of remote models, over those of models/prices.toml
    #[arg(long, env = "PRICES", global = true, hide_env_values = true)]
    pub prices: Option<PathBuf>,
    /// A file with words and phrases, one a line, that are neither answered nor said [default: none]
    #[arg(long, env = "CONTENT_FILTER_WORDS", global = true, hide_env_values = true)]
    pub content_filter_words: Option<PathBuf>,
    /// A moderation model that judges what is asked and answered, as openai/omni-moderation-latest [default: none]
    #[arg(long, env = "MODERATION_MODEL", global = true, hide_env_values = true)]
    pub moderation_model: Option<String>,
    /// Whether what users and characters say is kept as sound in DATA_DIR: on or off [default: off]
    #[arg(long, env = "RECORDINGS", global = true, hide_env_values = true)]
    pub recordings: Option<Switch>,
    /// A key with all rights; where it is set, or `aichat keys` has made one, every request must carry a key
    #[arg(long, env = "AICHAT_API_KEY", global = true, hide_env_values = true)]
    pub api_key: Option<SecretString>,
    /// Web origins that may connect besides our own, separated by commas
    #[arg(long, env = "ALLOWED_ORIGINS", global = true, hide_env_values = true, value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
    /// What clients may call the server in `Host`, beside this machine's names, separated by commas
    #[arg(long, env = "ALLOWED_HOSTS", global = true, hide_env_values = true, value_delimiter = ',')]
    pub allowed_hosts: Option<Vec<String>>,
    /// Requests a minute of a key, and of an address of another machine; 0 is any number [default: 6000]
    #[arg(long, env = "RATE_LIMIT_PER_MINUTE", global = true, hide_env_values = true)]
    pub rate_limit_per_minute: Option<u32>,
    /// A certificate in PEM, with those between it and its authority's: the server then speaks TLS
    #[arg(long, env = "TLS_CERT", global = true, hide_env_values = true)]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's private key in PEM
    #[arg(long, env = "TLS_KEY", global = true, hide_env_values = true)]
    pub tls_key: Option<PathBuf>,
    /// OpenAI's API, or another that speaks like it, as http://127.0.0.1:8001/v1; OPENAI_API_KEY is its key
    #[arg(long, env = "OPENAI_BASE_URL", global = true, hide_env_values = true)]
    pub openai_base_url: Option<String>,
    /// OpenRouter's API; OPENROUTER_API_KEY is its key
    #[arg(long, env = "OPENROUTER_BASE_URL", global = true, hide_env_values = true)]
    pub openrouter_base_url: Option<String>,
    /// Conversations over WebSocket at once [default: 64]
    #[arg(long, env = "MAX_SESSIONS", global = true, hide_env_values = true, help_heading = "Limits of WebSockets")]
    pub max_sessions: Option<usize>,
    /// WebSockets that may wait for a conversation to end; 0 sends them away at once [default: 16]
    #[arg(long, env = "SESSION_QUEUE", global = true, hide_env_values = true, help_heading = "Limits of WebSockets")]
    pub session_queue: Option<usize>,
    /// Conversations of one key at once [default: 4]
    #[arg(
        long,
        env = "MAX_SESSIONS_PER_KEY",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub max_sessions_per_key: Option<usize>,
    /// The longest message of a WebSocket's client [default: 262144]
    #[arg(
        long,
        env = "MAX_MESSAGE_BYTES",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub max_message_bytes: Option<usize>,
    /// Messages that may wait for a WebSocket's client; then its socket is closed [default: 64]
    #[arg(long, env = "OUTBOUND_FRAMES", global = true, hide_env_values = true, help_heading = "Limits of WebSockets")]
    pub outbound_frames: Option<usize>,
    /// Seconds of microphone that a client may send in a second [default: 2]
    #[arg(
        long,
        env = "MICROPHONE_SPEED",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub microphone_speed: Option<f64>,
    /// And so many at once after a pause [default: 5]
    #[arg(
        long,
        env = "MICROPHONE_BURST_SECONDS",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub microphone_burst_seconds: Option<u64>,
    /// The longest utterance; what is longer becomes two [default: 90]
    #[arg(
        long,
        env = "MAX_UTTERANCE_SECONDS",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub max_utterance_seconds: Option<u64>,
    /// How often a WebSocket's client is pinged [default: 20]
    #[arg(long, env = "PING_SECONDS", global = true, hide_env_values = true, help_heading = "Limits of WebSockets")]
    pub ping_seconds: Option<u64>,
    /// A WebSocket's client that sends nothing for so long, no answer to a ping either, is closed [default: 45]
    #[arg(long, env = "SILENT_SECONDS", global = true, hide_env_values = true, help_heading = "Limits of WebSockets")]
    pub silent_seconds: Option<u64>,
    /// A conversation whose last WebSocket is gone waits so long for it to come back [default: 30]
    #[arg(
        long,
        env = "SESSION_GRACE_SECONDS",
        global = true,
        hide_env_values = true,
        help_heading = "Limits of WebSockets"
    )]
    pub session_grace_seconds: Option<u64>,
}

/// A setting that is on or off.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    On,
    Off,
}

#[derive(clap::Parser)]
struct Environment {
    #[command(flatten)]
    flags: Flags,
}

impl Flags {
    /// What the environment alone says, for programs that have no flags.
    pub fn from_environment() -> Self {
        command_line::<Environment>(["aichat".into()]).flags
    }

    /// The variables that the flags stand for.
    pub(super) fn variables() -> Vec<String> {
        let command = <Environment as clap::CommandFactory>::command();
        let names = command.get_arguments().filter_map(clap::Arg::get_env);
        names.map(|name| name.to_string_lossy().into_owned()).collect()
    }
}

/// Parses `arguments`, the program's name first. A variable that is set to nothing, as `PORT=` of a copied `.env`, is
/// the same as none. Ends the process, with a message, where they cannot be parsed.
pub fn command_line<P: clap::Parser>(arguments: impl IntoIterator<Item = OsString>) -> P {
    let unset = |name: &OsStr| !is_set(name);
    let command = P::command().mut_args(|argument| {
        if argument.get_env().is_some_and(unset) { argument.env(None::<&'static str>) } else { argument }
    });
    let parsed = P::from_arg_matches(&command.get_matches_from(arguments));
    parsed.unwrap_or_else(|error| error.exit())
}

/// The same settings in `aichat.toml`, and the keys of services.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) host: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) database_url: Option<String>,
    pub(super) data_dir: Option<PathBuf>,
    pub(super) models_dir: Option<PathBuf>,
    pub(super) profile: Option<String>,
    pub(super) device: Option<String>,
    pub(super) stt_model: Option<String>,
    pub(super) stt_fallback: Option<Vec<String>>,
    pub(super) llm_model: Option<String>,
    pub(super) llm_fallback: Option<Vec<String>>,
    pub(super) tts_model: Option<String>,
    pub(super) tts_fallback: Option<Vec<String>>,
    pub(super) embedding_model: Option<String>,
    pub(super) embedding_fallback: Option<Vec<String>>,
    pub(super) max_concurrent_tts: Option<usize>,
    pub(super) model_idle_unload_minutes: Option<u64>,
    pub(super) budget_request_usd: Option<f64>,
    pub(super) budget_day_usd: Option<f64>,
    pub(super) budget_month_usd: Option<f64>,
    pub(super) prices: Option<PathBuf>,
    pub(super) content_filter_words: Option<PathBuf>,
    pub(super) moderation_model: Option<String>,
    pub(super) recordings: Option<Switch>,
    pub(super) api_key: Option<String>,
    pub(super) allowed_origins: Option<Vec<String>>,
    pub(super) allowed_hosts: Option<Vec<String>>,
    pub(super) rate_limit_per_minute: Option<u32>,
    pub(super) tls_cert: Option<PathBuf>,
    pub(super) tls_key: Option<PathBuf>,
    pub(super) openai_api_key: Option<String>,
    pub(super) openai_base_url: Option<String>,
    pub(super) openrouter_api_key: Option<String>,
    pub(super) openrouter_base_url: Option<String>,
    pub(super) max_sessions: Option<usize>,
    pub(super) session_queue: Option<usize>,
    pub(super) max_sessions_per_key: Option<usize>,
    pub(super) max_message_bytes: Option<usize>,
    pub(super) outbound_frames: Option<usize>,
    pub(super) microphone_speed: Option<f64>,
    pub(super) microphone_burst_seconds: Option<u64>,
    pub(super) max_utterance_seconds: Option<u64>,
    pub(super) ping_seconds: Option<u64>,
    pub(super) silent_seconds: Option<u64>,
    pub(super) session_grace_seconds: Option<u64>,
}

impl File {
    /// One that is not there says nothing.
    pub(super) fn read(path: &Path) -> Result<Self, ConfigError> {
        let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            // The rest of toml's message shows the line, which may hold a key.
            Ok(text) => toml::from_str(&text).map_err(|error| failed(place(&text, &error))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn place(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].lines().count().max(1));
    let at = line.map(|line| format!("line {line}: ")).unwrap_or_default();
    format!("{at}{}", error.message())
}

//! Every setting, its name, its default, and where it came from.
//!
//! The only reader of flags, environment, `.env` and `aichat.toml`, in this order of weight. Everything else is handed
//! a [`Config`]. A setting that cannot be read is one error that names it.

use std::ffi::{OsStr, OsString};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

/// Where settings may stand besides flags and environment.
pub const FILE: &str = "aichat.toml";
/// What is added to the environment.
const DOTENV: &str = ".env";

/// Settings as flags and environment give them.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub struct Flags {
    /// Address to listen on [default: 127.0.0.1]
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
    /// Speech recogniser, instead of the profile's
    #[arg(long, env = "STT_MODEL", global = true, hide_env_values = true)]
    pub stt_model: Option<String>,
    /// Language model, a name or a path to a GGUF file, instead of the profile's
    #[arg(long, env = "LLM_MODEL", global = true, hide_env_values = true)]
    pub llm_model: Option<String>,
    /// Speech synthesiser, instead of the profile's
    #[arg(long, env = "TTS_MODEL", global = true, hide_env_values = true)]
    pub tts_model: Option<String>,
    /// Embedding model, loaded when it is first asked [default: all-minilm-l6-v2]
    #[arg(long, env = "EMBEDDING_MODEL", global = true, hide_env_values = true)]
    pub embedding_model: Option<String>,
    /// How many sentences may be generated at once [default: 3]
    #[arg(long, env = "MAX_CONCURRENT_TTS", global = true, hide_env_values = true)]
    pub max_concurrent_tts: Option<usize>,
    /// When set, every request must carry it as `Authorization: Bearer`
    #[arg(long, env = "AICHAT_API_KEY", global = true, hide_env_values = true)]
    pub api_key: Option<String>,
    /// Web origins that may connect besides our own, separated by commas
    #[arg(long, env = "ALLOWED_ORIGINS", global = true, hide_env_values = true, value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
}

impl Flags {
    /// What the environment alone says, for programs that have no flags.
    pub fn from_environment() -> Self {
        #[derive(clap::Parser)]
        struct Environment {
            #[command(flatten)]
            flags: Flags,
        }
        command_line::<Environment>(["aichat".into()]).flags
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

/// The same settings in `aichat.toml`.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct File {
    host: Option<IpAddr>,
    port: Option<u16>,
    database_url: Option<String>,
    data_dir: Option<PathBuf>,
    models_dir: Option<PathBuf>,
    profile: Option<String>,
    device: Option<String>,
    stt_model: Option<String>,
    llm_model: Option<String>,
    tts_model: Option<String>,
    embedding_model: Option<String>,
    max_concurrent_tts: Option<usize>,
    api_key: Option<String>,
    allowed_origins: Option<Vec<String>>,
}

/// Every setting with its value.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub database_url: String,
    pub data_dir: PathBuf,
    pub models_dir: PathBuf,
    pub profile: String,
    pub device: String,
    pub stt_model: Option<String>,
    pub llm_model: Option<String>,
    pub tts_model: Option<String>,
    pub embedding_model: Option<String>,
    pub max_concurrent_tts: usize,
    pub api_key: Option<String>,
    pub allowed_origins: Vec<String>,
    pub hub: HubSettings,
}

/// What the hub client is told; the same names that the hub's own tools use.
#[derive(Clone, Debug, Default)]
pub struct HubSettings {
    pub endpoint: Option<String>,
    pub home: Option<PathBuf>,
    pub token: Option<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{name}={value}: {reason}")]
    Value { name: &'static str, value: String, reason: String },
}

/// Adds `.env` of the working folder to the environment; what is set to something already stays. Call before any thread
/// starts.
///
/// # Errors
/// The file is there but cannot be read or parsed.
pub fn load_dotenv() -> Result<(), ConfigError> {
    match add_to_environment(Path::new(DOTENV)) {
        Err(error) if !error.not_found() => Err(ConfigError::File { path: DOTENV.into(), reason: error.to_string() }),
        _ => Ok(()),
    }
}

fn add_to_environment(path: &Path) -> Result<(), dotenvy::Error> {
    let mut wanted = String::new();
    for setting in dotenvy::from_path_iter(path)? {
        let (name, value) = setting?;
        if !is_set(OsStr::new(&name)) {
            let escaped = value.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$");
            wanted.extend([&name, "=\"", &escaped, "\"\n"]);
        }
    }
    // What is set to nothing would stay so otherwise.
    dotenvy::from_read_override(wanted.as_bytes())
}

impl Config {
    /// Flags and environment over `aichat.toml` over defaults.
    ///
    /// # Errors
    /// A file that cannot be parsed, or a value out of its range.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let file = read_file(Path::new(FILE))?;
        let data_dir = flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| "data".into());
        let host = flags.host.or(file.host).unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let database_url = named(flags.database_url.clone().or(file.database_url));
        let max_concurrent_tts = flags.max_concurrent_tts.or(file.max_concurrent_tts).unwrap_or(3);
        if !(1..=256).contains(&max_concurrent_tts) {
            return Err(ConfigError::Value {
                name: "MAX_CONCURRENT_TTS",
                value: max_concurrent_tts.to_string(),
                reason: "must be from 1 to 256".into(),
            });
        }
        Ok(Self {
            listen: SocketAddr::new(host, flags.port.or(file.port).unwrap_or(8000)),
            database_url: database_url.unwrap_or_else(|| format!("sqlite://{}/aichat.db", data_dir.display())),
            data_dir,
            models_dir: flags.models_dir.clone().or(file.models_dir).unwrap_or_else(default_models_dir),
            profile: named(flags.profile.clone().or(file.profile)).unwrap_or_else(|| "auto".into()),
            device: named(flags.device.clone().or(file.device)).unwrap_or_else(|| "auto".into()),
            stt_model: named(flags.stt_model.clone().or(file.stt_model)),
            llm_model: named(flags.llm_model.clone().or(file.llm_model)),
            tts_model: named(flags.tts_model.clone().or(file.tts_model)),
            embedding_model: named(flags.embedding_model.clone().or(file.embedding_model)),
            max_concurrent_tts,
            api_key: named(flags.api_key.clone().or(file.api_key)),
            allowed_origins: flags.allowed_origins.clone().or(file.allowed_origins).unwrap_or_default(),
            hub: HubSettings {
                endpoint: checked_endpoint(variable("HF_ENDPOINT"))?,
                home: variable("HF_HOME").map(PathBuf::from),
                token: variable("HF_TOKEN"),
            },
        })
    }
}

/// An empty value, as in `LLM_MODEL=` of a copied `.env`, is the same as none.
fn named(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.trim().is_empty())
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let failed = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    match std::fs::read_to_string(path) {
        Ok(text) => toml::from_str(&text).map_err(|error| failed(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// The user's cache folder, so that clean clones share weights.
fn default_models_dir() -> PathBuf {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_default().join("aichat").join("models")
}

fn variable(name: &str) -> Option<String> {
    named(std::env::var(name).ok())
}

fn is_set(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
}

/// An address of the hub without a scheme would fail later, in words that do not name the setting.
fn checked_endpoint(value: Option<String>) -> Result<Option<String>, ConfigError> {
    match value {
        Some(value) if !value.starts_with("http://") && !value.starts_with("https://") => {
            let reason = "must begin with http:// or https://".into();
            Err(ConfigError::Value { name: "HF_ENDPOINT", value, reason })
        }
        value => Ok(value),
    }
}

/// Reads a setting that is kept as text until the module that knows its type is there.
///
/// # Errors
/// Names the setting and what it may be.
pub fn parse<T: FromStr>(name: &'static str, value: &str) -> Result<T, ConfigError>
where
    T::Err: std::fmt::Display,
{
    let wrong = |error: T::Err| ConfigError::Value { name, value: value.to_owned(), reason: error.to_string() };
    value.parse().map_err(wrong)
}

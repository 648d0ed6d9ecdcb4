//! Every setting, its name, its default, and where it came from.
//!
//! The only reader of flags, environment, `.env` and `aichat.toml`, in this order of weight. Everything else is handed
//! a [`Config`]. What is wrong is told all at once, a line for each setting, which says what to write. Keys are secrets:
//! they are in no `Debug` and in no error.

mod check;
mod environment;
mod flags;
mod limits;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

pub use environment::load_dotenv;
use environment::{named, variable};
use flags::File;
pub use flags::{Flags, Switch, command_line};
pub use limits::SocketLimits;

/// Where settings may stand besides flags and environment.
pub const FILE: &str = "aichat.toml";

/// Every setting with its value.
#[derive(Clone, Debug)]
pub struct Config {
    pub listen: SocketAddr,
    pub database_url: String,
    pub data_dir: PathBuf,
    pub models_dir: PathBuf,
    pub profile: String,
    pub device: String,
    pub stt: Models,
    pub llm: Models,
    pub tts: Models,
    pub higgs: Higgs,
    pub embedding: Models,
    pub max_concurrent_tts: usize,
    /// A local model that nobody has used for so long is unloaded. None: never.
    pub model_idle: Option<Duration>,
    pub spending: Spending,
    pub filter: Filter,
    /// What is said is kept as sound. None: as the saved settings say, else it is not.
    pub recordings: Option<bool>,
    pub api_key: Option<SecretString>,
    pub allowed_origins: Vec<String>,
    pub allowed_hosts: Vec<String>,
    /// Of a key, and of an address. 0: any number.
    pub rate_limit_per_minute: u32,
    pub limits: SocketLimits,
    pub tls: TlsFiles,
    pub openai: Service,
    pub openrouter: Service,
    /// Names in `.env` that mean nothing here.
    pub unknown: Vec<String>,
    pub hub: HubSettings,
}

/// Who does something, and who stands in.
#[derive(Clone, Debug, Default)]
pub struct Models {
    /// None: the profile's.
    pub first: Option<String>,
    pub fallback: Vec<String>,
    /// A flag or the environment names the first: nothing else may.
    pub is_fixed: bool,
}

/// Where Higgs Audio v2 is, if not among the other models.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Higgs {
    /// The folder with the language model.
    pub model: Option<PathBuf>,
    /// The folder with the codec.
    pub tokenizer: Option<PathBuf>,
    /// The model is named as the hub names it, which chooses nothing.
    pub is_named: bool,
}

/// The name of Higgs Audio v2, and what the hub calls it and its codec.
const HIGGS: [&str; 3] =
    ["higgs-audio-v2", "bosonai/higgs-audio-v2-generation-3B-base", "bosonai/higgs-audio-v2-tokenizer"];
/// What the hub calls the model since 2026.
const HIGGS_RENAMED: &str = "bosonai/higgs-tts-2-3b-base";

impl Higgs {
    /// The hub's names mean what `aichat pull` brings; everything else is a folder.
    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let folder = |name: &str, hub: &str| {
            let named = variable(name).map(|value| value.trim().to_owned());
            named.filter(|value| value != hub && value != HIGGS_RENAMED).map(PathBuf::from)
        };
        let model = folder("HIGGS_MODEL_PATH", HIGGS[1]);
        let is_named = model.is_none() && variable("HIGGS_MODEL_PATH").is_some();
        Self { model, tokenizer: folder("HIGGS_TOKENIZER_PATH", HIGGS[2]), is_named }
    }
}

/// What requests elsewhere may cost, in US dollars. None: any amount.
#[derive(Clone, Debug, Default)]
pub struct Spending {
    pub request: Option<f64>,
    pub day: Option<f64>,
    pub month: Option<f64>,
    /// Prices over those that the program knows.
    pub prices: Option<PathBuf>,
}

/// What is neither answered nor said. With neither there is no filter.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub words: Option<PathBuf>,
    pub moderation_model: Option<String>,
}

/// A certificate and its key, or neither.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// How to reach a service elsewhere. With neither it is not asked.
#[derive(Clone, Debug, Default)]
pub struct Service {
    pub key: Option<SecretString>,
    pub base_url: Option<String>,
}

impl Service {
    pub fn is_configured(&self) -> bool {
        self.key.is_some() || self.base_url.is_some()
    }
}

/// What the hub client is told; the same names that the hub's own tools use.
#[derive(Clone, Debug, Default)]
pub struct HubSettings {
    pub endpoint: Option<String>,
    pub home: Option<PathBuf>,
    pub token: Option<SecretString>,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{name}={value}: {reason}")]
    Value { name: &'static str, value: String, reason: String },
    /// Of a key: what it is stays unsaid.
    #[error("{name}: {reason}")]
    Secret { name: &'static str, reason: String },
}

impl ConfigError {
    /// The setting it is about.
    pub fn name(&self) -> Option<&'static str> {
        match self {
            Self::File { .. } => None,
            Self::Value { name, .. } | Self::Secret { name, .. } => Some(name),
        }
    }
}

impl Config {
    /// Flags and environment over `aichat.toml` over defaults, and all that is wrong with them. What is wrong is as if
    /// it were not set.
    pub fn read(flags: &Flags) -> (Self, Vec<ConfigError>) {
        Self::read_with(flags, Path::new(FILE), variable)
    }

    fn read_with(flags: &Flags, file: &Path, variable: impl Fn(&str) -> Option<String>) -> (Self, Vec<ConfigError>) {
        let mut wrong = Vec::new();
        let mut file = File::read(file).unwrap_or_else(|error| {
            wrong.push(error);
            File::default()
        });
        let data_dir = flags.data_dir.clone().or(file.data_dir.take()).unwrap_or_else(|| "data".into());
        let host = flags.host.or(file.host).unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let database_url = named(flags.database_url.clone().or(file.database_url.take()));
        let models = |first: &Option<String>, second: Option<String>, list: &Option<Vec<String>>, other| Models {
            first: named(first.clone().or(second)).map(|name| name.trim().to_owned()),
            fallback: names(list.clone().or(other)),
            is_fixed: named(first.clone()).is_some(),
        };
        let higgs = Higgs::read(&variable);
        let mut tts = models(&flags.tts_model, file.tts_model.take(), &flags.tts_fallback, file.tts_fallback.take());
        if higgs.model.is_some() {
            tts.first.get_or_insert_with(|| HIGGS[0].to_owned());
            tts.is_fixed = true;
        }
        let config = Self {
            listen: SocketAddr::new(host, flags.port.or(file.port).unwrap_or(8000)),
            database_url: database_url.unwrap_or_else(|| format!("sqlite://{}/aichat.db", data_dir.display())),
            data_dir,
            models_dir: flags.models_dir.clone().or(file.models_dir.take()).unwrap_or_else(|| models_dir(&variable)),
            profile: named(flags.profile.clone().or(file.profile.take())).unwrap_or_else(|| "auto".into()),
            device: named(flags.device.clone().or(file.device.take())).unwrap_or_else(|| "auto".into()),
            stt: models(&flags.stt_model, file.stt_model.take(), &flags.stt_fallback, file.stt_fallback.take()),
            llm: models(&flags.llm_model, file.llm_model.take(), &flags.llm_fallback, file.llm_fallback.take()),
            tts,
            higgs,
            embedding: models(
                &flags.embedding_model,
                file.embedding_model.take(),
                &flags.embedding_fallback,
                file.embedding_fallback.take(),
            ),
            max_concurrent_tts: flags.max_concurrent_tts.or(file.max_concurrent_tts).unwrap_or(3),
            model_idle: idle(flags.model_idle_unload_minutes.or(file.model_idle_unload_minutes)),
            spending: Spending {
                request: flags.budget_request_usd.or(file.budget_request_usd),
                day: flags.budget_day_usd.or(file.budget_day_usd),
                month: flags.budget_month_usd.or(file.budget_month_usd),
                prices: flags.prices.clone().or(file.prices.take()),
            },
            filter: Filter {
                words: flags.content_filter_words.clone().or(file.content_filter_words.take()),
                moderation_model: named(flags.moderation_model.clone().or(file.moderation_model.take())),
            },
            recordings: flags.recordings.or(file.recordings).map(|switch| switch == Switch::On),
            api_key: flags.api_key.clone().or(named(file.api_key.take()).map(Into::into)),
            allowed_origins: names(flags.allowed_origins.clone().or(file.allowed_origins.take())),
            allowed_hosts: names(flags.allowed_hosts.clone().or(file.allowed_hosts.take())),
            rate_limit_per_minute: flags.rate_limit_per_minute.or(file.rate_limit_per_minute).unwrap_or(6000),
            limits: SocketLimits::read(flags, &file, &mut wrong),
            tls: TlsFiles {
                certificate: flags.tls_cert.clone().or(file.tls_cert.take()),
                key: flags.tls_key.clone().or(file.tls_key.take()),
            },
            openai: Service {
                key: variable("OPENAI_API_KEY").or(named(file.openai_api_key.take())).map(Into::into),
                base_url: named(flags.openai_base_url.clone().or(file.openai_base_url.take())),
            },
            openrouter: Service {
                key: variable("OPENROUTER_API_KEY").or(named(file.openrouter_api_key.take())).map(Into::into),
                base_url: named(flags.openrouter_base_url.clone().or(file.openrouter_base_url.take())),
            },
            unknown: environment::unknown_in(Path::new(environment::DOTENV)),
            hub: HubSettings {
                endpoint: variable("HF_ENDPOINT"),
                home: variable("HF_HOME").map(PathBuf::from),
                token: variable("HF_TOKEN").map(Into::into),
            },
        };
        let config = config.checked(&mut wrong);
        (config, wrong)
    }

    /// The settings, where nothing is wrong with them.
    ///
    /// # Errors
    /// The first thing that is.
    pub fn load(flags: &Flags) -> Result<Self, ConfigError> {
        let (config, wrong) = Self::read(flags);
        wrong.into_iter().next().map_or(Ok(config), Err)
    }
}

/// 0 is never; a year is, too.
fn idle(minutes: Option<u64>) -> Option<Duration> {
    const YEAR: u64 = 365 * 24 * 60;
    minutes.filter(|minutes| (1..YEAR).contains(minutes)).map(Duration::from_mins)
}

fn names(list: Option<Vec<String>>) -> Vec<String> {
    let list = list.unwrap_or_default().into_iter();
    list.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// The user's cache folder, so that clean clones share weights.
fn models_dir(variable: impl Fn(&str) -> Option<String>) -> PathBuf {
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    cache.or_else(home).unwrap_or_default().join("aichat").join("models")
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

#[cfg(test)]
mod tests;

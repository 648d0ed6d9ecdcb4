//! Variables, and the `.env` that adds to them.

use std::ffi::OsStr;
use std::path::Path;

use super::{ConfigError, Flags};

/// What is added to the environment.
pub(super) const DOTENV: &str = ".env";
/// Variables that we read and that no flag of [`Flags`] stands for.
const OTHERS: [&str; 12] = [
    "OPENAI_API_KEY",
    "OPENROUTER_API_KEY",
    "HIGGS_MODEL_PATH",
    "HIGGS_TOKENIZER_PATH",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
    "LOG",
    "LOG_FORMAT",
    "XDG_CACHE_HOME",
    "HOME",
    "RUST_BACKTRACE",
];

/// Adds `.env` of the working folder to the environment; what is set to something already stays. Call before any thread
/// starts.
///
/// # Errors
/// The file is there but cannot be read or parsed.
pub fn load_dotenv() -> Result<(), ConfigError> {
    match add_to_environment(Path::new(DOTENV)) {
        Err(dotenvy::Error::LineParse(part, _)) => Err(unreadable(Path::new(DOTENV), &part)),
        Err(error) if !error.not_found() => Err(ConfigError::File { path: DOTENV.into(), reason: error.to_string() }),
        _ => Ok(()),
    }
}

/// Names the line with `part`, and repeats no value: it may be a key.
pub(super) fn unreadable(path: &Path, part: &str) -> ConfigError {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let found = (1..).zip(text.lines()).find(|(_, line)| line.contains(part.trim()));
    let place = match found.map(|(number, line)| (number, line.split_once('='))) {
        Some((number, Some((name, _)))) => format!("line {number}, {}, cannot be read", name.trim()),
        Some((number, None)) => format!("line {number} cannot be read"),
        None => "a line cannot be read".to_owned(),
    };
    let reason = format!("{place}; write NAME=value, with quotes around a value that holds spaces");
    ConfigError::File { path: path.to_owned(), reason }
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

/// Names in a `.env` that mean nothing here.
pub(super) fn unknown_in(path: &Path) -> Vec<String> {
    let Ok(settings) = dotenvy::from_path_iter(path) else { return Vec::new() };
    let known = Flags::variables();
    let is_known = |name: &String| known.contains(name) || OTHERS.contains(&name.as_str());
    settings.filter_map(|setting| setting.ok().map(|(name, _)| name)).filter(|name| !is_known(name)).collect()
}

pub(super) fn variable(name: &str) -> Option<String> {
    named(std::env::var(name).ok())
}

pub(super) fn is_set(name: &OsStr) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.to_string_lossy().trim().is_empty())
}

/// An empty value, as in `LLM_MODEL=` of a copied `.env`, is the same as none.
pub(super) fn named(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.trim().is_empty())
}

//! What the name of a model means: one of ours, a file, or a model of a service elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};

/// A model, as a setting, a character or a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelName {
    /// Of the catalog.
    Local(String),
    /// A file of weights.
    File(PathBuf),
    Remote(ServiceName, String),
}

/// A service elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceName {
    OpenAi,
    OpenRouter,
}

impl ServiceName {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::OpenRouter => "openrouter",
        }
    }

    /// The setting with its key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::OpenAi => "OPENAI_API_KEY",
            Self::OpenRouter => "OPENROUTER_API_KEY",
        }
    }
}

impl ModelName {
    /// A bare `VENDOR/NAME` is OpenRouter's; what begins as a path does, or ends in `.gguf`, is a file.
    pub fn parse(text: &str) -> Self {
        let is_path = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
        let is_weights = Path::new(text).extension().is_some_and(|kind| kind.eq_ignore_ascii_case("gguf"));
        if is_path || is_weights {
            return Self::File(text.into());
        }
        match text.split_once('/') {
            None => Self::Local(text.to_owned()),
            Some(("openai", name)) => Self::Remote(ServiceName::OpenAi, name.to_owned()),
            Some(("openrouter", name)) => Self::Remote(ServiceName::OpenRouter, name.to_owned()),
            Some(_) => Self::Remote(ServiceName::OpenRouter, text.to_owned()),
        }
    }

    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(..))
    }
}

impl fmt::Display for ModelName {
    /// As `served_by` has it: of a file only its name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(name) => formatter.write_str(name),
            Self::File(path) => write!(formatter, "{}", Path::new(path.file_name().unwrap_or_default()).display()),
            Self::Remote(service, name) => write!(formatter, "{}/{name}", service.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_look_like() {
        let remote = |service, name: &str| ModelName::Remote(service, name.to_owned());
        for (text, meant, shown) in [
            ("whisper-base.en", ModelName::Local("whisper-base.en".into()), "whisper-base.en"),
            ("openai/gpt-4o", remote(ServiceName::OpenAi, "gpt-4o"), "openai/gpt-4o"),
            ("openrouter/openai/gpt-4o", remote(ServiceName::OpenRouter, "openai/gpt-4o"), "openrouter/openai/gpt-4o"),
            (
                "anthropic/claude-3.5-sonnet",
                remote(ServiceName::OpenRouter, "anthropic/claude-3.5-sonnet"),
                "openrouter/anthropic/claude-3.5-sonnet",
            ),
            ("/srv/models/mine.gguf", ModelName::File("/srv/models/mine.gguf".into()), "mine.gguf"),
            ("models/Mine.GGUF", ModelName::File("models/Mine.GGUF".into()), "Mine.GGUF"),
            ("./weights", ModelName::File("./weights".into()), "weights"),
        ] {
            let name = ModelName::parse(text);
            assert_eq!((&name, name.to_string().as_str()), (&meant, shown), "{text}");
        }
    }
}

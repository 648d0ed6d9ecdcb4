//! What is wrong with settings, each with what to write instead.

use secrecy::{ExposeSecret, SecretString};

use super::{Config, ConfigError, TlsFiles};

/// What stands in examples in the place of a key.
const PLACEHOLDERS: [&str; 9] =
    ["your_", "your-", "_here", "change-me", "changeme", "change_me", "placeholder", "...", "<"];

impl Config {
    /// The same without what is wrong, which goes to `wrong`.
    pub(super) fn checked(mut self, wrong: &mut Vec<ConfigError>) -> Self {
        if !(1..=256).contains(&self.max_concurrent_tts) {
            let value = self.max_concurrent_tts.to_string();
            let reason = "must be from 1 to 256".to_owned();
            wrong.push(ConfigError::Value { name: "MAX_CONCURRENT_TTS", value, reason });
        }
        let mut amount = |name, value: &mut Option<f64>| {
            if let Some(value) = value.take_if(|value| !value.is_finite() || *value < 0.0) {
                let reason = "must be an amount of US dollars, 0 or more".to_owned();
                wrong.push(ConfigError::Value { name, value: value.to_string(), reason });
            }
        };
        amount("BUDGET_REQUEST_USD", &mut self.spending.request);
        amount("BUDGET_DAY_USD", &mut self.spending.day);
        amount("BUDGET_MONTH_USD", &mut self.spending.month);
        let mut key = |name, key: &mut Option<SecretString>, remedy: &str| {
            if let Some(reason) = key.as_ref().and_then(|key| fault_of(key)) {
                wrong.push(ConfigError::Secret { name, reason: format!("{reason}; {remedy}") });
                *key = None;
            }
        };
        key(
            "OPENAI_API_KEY",
            &mut self.openai.key,
            "write a key from platform.openai.com/api-keys, or leave the line out to do without OpenAI",
        );
        key(
            "OPENROUTER_API_KEY",
            &mut self.openrouter.key,
            "write a key from openrouter.ai/keys, or leave the line out to do without OpenRouter",
        );
        key("AICHAT_API_KEY", &mut self.api_key, "write a secret of your own, as `openssl rand -hex 32` makes one");
        let mut address = |name, value: &mut Option<String>, example: &str| {
            let is_address = |value: &str| value.starts_with("http://") || value.starts_with("https://");
            if let Some(value) = value.take_if(|value| !is_address(value)) {
                let reason = format!("must begin with http:// or https://, as {example}");
                wrong.push(ConfigError::Value { name, value, reason });
            }
        };
        address("OPENAI_BASE_URL", &mut self.openai.base_url, "https://api.openai.com/v1");
        address("OPENROUTER_BASE_URL", &mut self.openrouter.base_url, "https://openrouter.ai/api/v1");
        address("HF_ENDPOINT", &mut self.hub.endpoint, "https://huggingface.co");
        wrong.extend(self.fault_of_tls());
        wrong.extend(self.fault_of_hosts());
        wrong.extend(self.fault_of_origins());
        self
    }

    fn fault_of_tls(&mut self) -> Option<ConfigError> {
        let (name, value, other) = match (&self.tls.certificate, &self.tls.key) {
            (Some(certificate), None) => ("TLS_CERT", certificate.display().to_string(), "TLS_KEY"),
            (None, Some(key)) => ("TLS_KEY", key.display().to_string(), "TLS_CERT"),
            _ => return None,
        };
        self.tls = TlsFiles::default();
        Some(ConfigError::Value { name, value, reason: format!("write {other} too, the other half of it") })
    }

    fn fault_of_hosts(&mut self) -> Option<ConfigError> {
        let is_name = |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(c));
        let value = self.allowed_hosts.iter().find(|name| !is_name(name))?.clone();
        self.allowed_hosts.retain(is_name);
        let reason = "must be names or addresses alone, as chat.example.org".to_owned();
        Some(ConfigError::Value { name: "ALLOWED_HOSTS", value, reason })
    }

    fn fault_of_origins(&mut self) -> Option<ConfigError> {
        let is_origin = |origin: &String| {
            let authority = origin.split_once("://").map(|(_, authority)| authority);
            origin == "*" || authority.is_some_and(|authority| !authority.is_empty() && !authority.contains('/'))
        };
        let value = self.allowed_origins.iter().find(|origin| !is_origin(origin))?.clone();
        self.allowed_origins.retain(is_origin);
        let reason = "must be origins as browsers send them, as https://chat.example.org, without a path".to_owned();
        Some(ConfigError::Value { name: "ALLOWED_ORIGINS", value, reason })
    }

    /// Why this server may not listen where it is told to, unless the database has an admin key. A key that is set but
    /// wrong is told already.
    pub fn listening_fault(&self, wrong: &[ConfigError]) -> Option<ConfigError> {
        let is_told = wrong.iter().any(|error| error.name() == Some("AICHAT_API_KEY"));
        if self.listen.ip().is_loopback() || self.api_key.is_some() || is_told {
            return None;
        }
        let reason = "others could reach the server, and it has no key; make one with `aichat keys create NAME --scope \
                      admin`, or write AICHAT_API_KEY=SECRET too (`openssl rand -hex 32` makes one), or HOST=127.0.0.1 \
                      for this machine only";
        Some(ConfigError::Value { name: "HOST", value: self.listen.ip().to_string(), reason: reason.to_owned() })
    }
}

fn fault_of(key: &SecretString) -> Option<&'static str> {
    let key = key.expose_secret().trim().to_lowercase();
    let is_placeholder = PLACEHOLDERS.iter().any(|part| key.contains(part)) || key.bytes().all(|byte| byte == b'x');
    if is_placeholder {
        return Some("that is an example's placeholder and no key");
    }
    let is_clean = key.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_clean).then_some("it holds spaces or characters that no key has")
}

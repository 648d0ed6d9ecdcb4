//! `aichat keys`: who may come in beside `AICHAT_API_KEY`.

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::output;
use crate::config::{Config, ConfigError};
use crate::store::{self, Key, NewKey, Store};

/// Make, list and revoke keys
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat keys create laptop --scope admin")]
pub(super) struct Keys {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a key and print it, once; from the first one on every request must carry a key
    #[command(after_help = "Examples: aichat keys create laptop --scope admin; \
                            aichat keys create guest --expires 7; aichat keys create phone --owner local")]
    Create {
        /// What it is for; names of keys that are not revoked differ
        name: String,
        /// read: its owner's rows; user: to talk, too; admin: everything, settings and keys too
        #[arg(long, value_enum, default_value_t = Scope::User)]
        scope: Scope,
        /// Whose conversations it opens: `local` are those made without a key [default: local for the first admin key,
        /// an owner of its own otherwise]
        #[arg(long)]
        owner: Option<String>,
        /// Days until it ends [default: it never does]
        #[arg(long, value_name = "DAYS")]
        expires: Option<u32>,
    },
    /// Show every key, but not what it is
    #[command(after_help = "Example: aichat keys list")]
    List,
    /// End a key; whoever uses it is shut out within five seconds
    #[command(after_help = "Example: aichat keys revoke laptop")]
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum Scope {
    Read,
    User,
    Admin,
}

impl From<Scope> for store::Scope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Read => Self::Read,
            Scope::User => Self::User,
            Scope::Admin => Self::Admin,
        }
    }
}

impl Keys {
    pub(super) async fn run(self, config: &Config) -> anyhow::Result<()> {
        let store = Store::open(&config.database_url).await?;
        let outcome = self.act(&store).await;
        store.checkpoint().await?;
        outcome
    }

    async fn act(self, store: &Store) -> anyhow::Result<()> {
        match self.action {
            Action::Create { name, scope, owner, expires } => {
                let new = NewKey { name, scope: scope.into(), owner, days: expires };
                let (key, text) = store.create_key(new).await?;
                output::line(&text)?;
                output::note(&format!("{}; keep the key now: it cannot be shown again", described(&key)));
            }
            Action::List => {
                for key in store.keys().await? {
                    output::line(&described(&key))?;
                }
            }
            Action::Revoke { name } => {
                store.revoke_key(&name).await?;
                output::note(&format!("{name} is revoked"));
                if !store.has_keys().await.context("looking for other keys")? {
                    output::note(
                        "that was the last one: without AICHAT_API_KEY a server that is started on this machine's \
                         address from now on asks for none",
                    );
                }
            }
        }
        Ok(())
    }
}

/// One line.
fn described(key: &Key) -> String {
    let Key { name, owner, prefix, created_at, .. } = key;
    let end = match (&key.revoked_at, &key.expires_at) {
        (Some(revoked), _) => format!("revoked {revoked}"),
        (None, Some(end)) if !key.is_living() => format!("expired {end}"),
        (None, Some(end)) => format!("expires {end}"),
        (None, None) => "never expires".to_owned(),
    };
    let used = key.last_used_at.as_ref().map_or_else(|| "never used".to_owned(), |used| format!("used {used}"));
    format!("{name}  {prefix}…  {}  owner {owner}  made {created_at}  {used}  {end}", key.scope.as_str())
}

/// Why a server may not listen where it is told to. A database is opened only where one is.
pub(super) async fn listening_fault(config: &Config, wrong: &[ConfigError]) -> Option<ConfigError> {
    let fault = config.listening_fault(wrong)?;
    let file = config.database_url.strip_prefix("sqlite:").map(|file| file.strip_prefix("//").unwrap_or(file));
    if file.is_some_and(|file| !std::path::Path::new(file).exists()) {
        return Some(fault);
    }
    // What is wrong with the database is told when it is opened to be used.
    let Ok(store) = Store::open(&config.database_url).await else { return Some(fault) };
    let has_key = store.has_admin_key().await.unwrap_or(false);
    if let Err(error) = store.checkpoint().await {
        tracing::debug!(%error, "the database could not be closed well");
    }
    (!has_key).then_some(fault)
}

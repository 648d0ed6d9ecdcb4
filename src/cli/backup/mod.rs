//! `aichat backup FILE`: everything that was kept, into one file.

mod restore;

use std::path::PathBuf;

use clap::Args;

use super::output;
use crate::app;
use crate::config::Config;
pub(super) use restore::Restore;

/// Write everything that was kept (characters, voices, conversations, keys, usage) into one file
///
/// It may be taken while a server runs, and is one moment's state. It holds what people said: keep it where nobody else
/// reads it. It can be restored into either kind of database.
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat backup aichat-2026-11-21.zip")]
pub(super) struct Backup {
    /// The file; one that is there already is replaced by a whole one
    file: PathBuf,
}

impl Backup {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let store = app::existing_store(&config).await?;
        let made = app::backup(&store, &config.data_dir, &self.file).await?;
        store.checkpoint().await?;
        let [messages, conversations] = ["messages", "conversations"].map(|table| made.rows.get(table).unwrap_or(&0));
        output::line(&format!(
            "{}: {conversations} conversations, {messages} messages, {} files",
            self.file.display(),
            made.files
        ))
    }
}

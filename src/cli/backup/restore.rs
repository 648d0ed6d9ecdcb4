//! `aichat restore FILE`: what a backup holds, into a database.

use std::path::PathBuf;

use clap::Args;

use crate::app;
use crate::cli::output;
use crate::config::Config;
use crate::store::Store;

/// Fill a database and DATA_DIR from a backup
///
/// A server that runs on DATA_DIR must be stopped first. All of it is restored, or nothing is changed. A database that
/// already holds conversations, characters, keys or the like is left alone unless --replace is said.
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat restore aichat-2026-11-21.zip\n         \
                        DATABASE_URL=postgres://aichat@db/aichat aichat restore aichat-2026-11-21.zip")]
pub(in crate::cli) struct Restore {
    /// The file that `aichat backup` wrote
    file: PathBuf,
    /// Lose what the database holds
    #[arg(long)]
    replace: bool,
}

impl Restore {
    pub(in crate::cli) async fn run(self, config: Config) -> anyhow::Result<()> {
        let _alone = app::tenancy::be_alone(&config.data_dir)?;
        let store = Store::open(&config.database_url).await?;
        let restored = app::restore(&store, &config.data_dir, &self.file, self.replace).await;
        store.checkpoint().await?;
        let restored = restored?;
        let [messages, conversations] =
            ["messages", "conversations"].map(|table| restored.rows.get(table).unwrap_or(&0));
        output::line(&format!(
            "restored what was kept until {}: {conversations} conversations, {messages} messages, {} files",
            restored.created_at, restored.files
        ))
    }
}

//! `aichat models`: what there is, and what is here.

use clap::Args;

use super::output;
use crate::app;
use crate::config::Config;

/// List models and profiles, and which of them are on this disk
#[derive(Args, Debug)]
#[command(after_help = "Example: aichat models --local")]
pub(super) struct Models {
    /// Only those on this disk
    #[arg(long)]
    local: bool,
}

impl Models {
    pub(super) fn run(&self, config: &Config) -> anyhow::Result<()> {
        let catalog = app::catalog(config)?;
        for manifest in catalog.manifests() {
            let folder = catalog.locate(&manifest.name).ok();
            if self.local && folder.is_none() {
                continue;
            }
            let place = folder.map_or_else(|| "-".to_owned(), |folder| folder.display().to_string());
            output::line(&format!(
                "{:24} {:>6} MB  {}\n{:24}            {place}",
                manifest.name, manifest.memory_mb, manifest.summary, ""
            ))?;
        }
        if !self.local {
            for profile in catalog.profiles() {
                output::line(&format!(
                    "{:24} {:>6} MB  {}: {}",
                    profile.name,
                    profile.memory_mb,
                    profile.summary,
                    profile.models().join(", ")
                ))?;
            }
        }
        Ok(())
    }
}

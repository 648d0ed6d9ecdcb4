//! What holds requests back: prices, and the content filter.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::name::ModelName;
use super::shelf::Services;
use crate::config::Filter;
use crate::provider::account::PriceList;
use crate::provider::filter::{ContentFilter, Filters, WordList};
use crate::remote::Moderation;

/// What remote models cost.
const PRICES: &str = include_str!("../../models/prices.toml");

/// The program's prices, with those of a file over them.
///
/// # Errors
/// The file cannot be read.
pub(super) fn prices(file: Option<&Path>) -> anyhow::Result<PriceList> {
    let known: PriceList = toml::from_str(PRICES)?;
    let Some(file) = file else { return Ok(known) };
    let named = || format!("PRICES={}", file.display());
    let text = std::fs::read_to_string(file).with_context(named)?;
    Ok(known.with(toml::from_str(&text).with_context(named)?))
}

/// The filters that the settings ask for.
///
/// # Errors
/// A list that cannot be read, or a moderation model whose service is not configured.
pub(super) fn filter(settings: &Filter, services: &Services) -> anyhow::Result<Option<Arc<dyn ContentFilter>>> {
    let mut filters: Vec<Arc<dyn ContentFilter>> = Vec::new();
    if let Some(file) = &settings.words {
        let named = || format!("CONTENT_FILTER_WORDS={}", file.display());
        filters.push(Arc::new(WordList::new(&std::fs::read_to_string(file).with_context(named)?)));
    }
    if let Some(name) = &settings.moderation_model {
        let ModelName::Remote(service, model) = ModelName::parse(name) else {
            return Err(anyhow!("MODERATION_MODEL={name}: write a remote model, as openai/omni-moderation-latest"));
        };
        let service =
            services.get(service).ok_or_else(|| anyhow!("MODERATION_MODEL={name} needs {}", service.key()))?;
        filters.push(Arc::new(Moderation::new(service.clone(), &model)));
    }
    Ok((!filters.is_empty()).then(|| Arc::new(Filters(filters)) as _))
}

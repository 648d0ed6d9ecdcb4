//! All models in one list: what is on the disk, what is in memory, what could be asked elsewhere.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use anyhow::Context;
use futures::future::{self, BoxFuture};
use futures::{FutureExt, StreamExt, stream};
use tokio::sync::watch;

use super::door::Door;
use super::name::ServiceName;
use super::roster::Desk;
use super::shelf::Services;
use crate::catalog::{Catalog, CatalogError, Kind, Manifest, Progress};
use crate::provider::account::PriceList;
use crate::provider::route::Models;
use crate::provider::{
    Capability, Flow, LocalModel, ModelShelf, ModelState, ProviderError, PullProgress, RemoteModel, VoiceNames,
};

/// One capability's models, whatever its door is.
pub(super) trait Section: Send + Sync {
    fn capability(&self) -> Capability;
    fn kind(&self) -> Kind;
    /// The model that is asked first.
    fn first(&self) -> String;
    fn state(&self, name: &str) -> ModelState;
    fn load(&self, name: &str) -> BoxFuture<'static, Result<(), ProviderError>>;
    fn unload(&self, name: &str);
    fn prefer(&self, name: &str) -> Result<(), ProviderError>;
    fn name_voices(&self, names: VoiceNames);
    /// Models elsewhere that the server's chain names.
    fn remote(&self) -> Vec<String>;
}

impl<D: Door + ?Sized> Section for Desk<D> {
    fn capability(&self) -> Capability {
        D::CAPABILITY
    }

    fn kind(&self) -> Kind {
        D::KIND
    }

    fn first(&self) -> String {
        self.door.own().links().first().map(|link| link.name.to_string()).unwrap_or_default()
    }

    fn state(&self, name: &str) -> ModelState {
        self.shelf.kept(name).map_or(ModelState::Unloaded, |door| door.phase())
    }

    fn load(&self, name: &str) -> BoxFuture<'static, Result<(), ProviderError>> {
        if let Some(door) = self.shelf.kept(name) {
            return door.load();
        }
        // The link makes sure that the door is kept.
        match self.shelf.link(name) {
            Err(error) => future::ready(Err(error)).boxed(),
            Ok(_) => self.shelf.kept(name).map_or_else(|| future::ready(Ok(())).boxed(), |door| door.load()),
        }
    }

    fn unload(&self, name: &str) {
        if let Some(door) = self.shelf.kept(name) {
            door.unload();
        }
    }

    fn prefer(&self, name: &str) -> Result<(), ProviderError> {
        self.door.prefer(name)
    }

    fn name_voices(&self, names: VoiceNames) {
        self.door.name_voices(names);
    }

    fn remote(&self) -> Vec<String> {
        let own = self.door.own();
        let remote = own.links().iter().filter(|link| link.remote && link.door().is_some());
        remote.map(|link| link.name.to_string()).collect()
    }
}

/// Everything there is.
pub(super) struct Stock {
    pub(super) catalog: Catalog,
    pub(super) sections: Arc<[Box<dyn Section>]>,
    /// It is loaded with the server, and stays.
    pub(super) voice_activity: String,
    pub(super) prices: PriceList,
    pub(super) services: Services,
}

impl Stock {
    fn section(&self, kind: Kind) -> Option<&dyn Section> {
        self.sections.iter().find(|section| section.kind() == kind).map(|section| &**section)
    }

    fn of(&self, capability: Capability) -> Option<&dyn Section> {
        self.sections.iter().find(|section| section.capability() == capability).map(|section| &**section)
    }

    fn manifest(&self, name: &str) -> Result<&Manifest, ProviderError> {
        self.catalog.manifest(name).map_err(|error| unknown(name, &error))
    }

    /// The section that loads a model.
    fn loader(&self, name: &str) -> Result<&dyn Section, ProviderError> {
        let kind = self.manifest(name)?.kind;
        self.section(kind).ok_or_else(|| ProviderError::InvalidRequest {
            field: "name",
            message: match kind {
                Kind::VoiceActivity => format!("{name} is loaded with the server and stays"),
                _ => format!("{name} is loaded and unloaded with the model that needs it"),
            },
        })
    }

    fn local_model(&self, manifest: &Manifest) -> LocalModel {
        let name = &manifest.name;
        let folder = self.catalog.locate(name).ok();
        let state = match self.section(manifest.kind) {
            Some(section) => section.state(name),
            None if folder.is_some() && *name == self.voice_activity => ModelState::Ready,
            None => ModelState::Unloaded,
        };
        LocalModel {
            name: name.clone(),
            kind: match manifest.kind {
                Kind::SpeechToText => "transcription",
                Kind::Chat => "chat",
                Kind::Speech => "speech",
                Kind::Embedding => "embedding",
                Kind::VoiceActivity => "voice_activity",
                Kind::SpeechCodec => "speech_codec",
            },
            summary: manifest.summary.clone(),
            licence: manifest.licence.clone(),
            state,
            disk_bytes: folder.and_then(|folder| bytes_below(&folder).ok()),
            memory_bytes: manifest.memory_mb * 1_000_000,
        }
    }
}

impl ModelShelf for Stock {
    fn local(&self) -> Vec<LocalModel> {
        self.catalog.manifests().iter().map(|manifest| self.local_model(manifest)).collect()
    }

    fn remote(&self) -> Vec<RemoteModel> {
        let is_served = |name: &&str| {
            let service = name.split('/').next().unwrap_or_default();
            [ServiceName::OpenAi, ServiceName::OpenRouter]
                .into_iter()
                .any(|known| known.as_str() == service && self.services.get(known).is_some())
        };
        let priced = self.prices.models().map(|(name, _)| name).filter(is_served).map(str::to_owned);
        let mut names: Vec<String> = self.sections.iter().flat_map(|section| section.remote()).chain(priced).collect();
        names.sort();
        names.dedup();
        let model = |name: String| RemoteModel {
            provider: name.split('/').next().unwrap_or_default().to_owned(),
            price: self.prices.price(&name),
            name,
        };
        names.into_iter().map(model).collect()
    }

    fn pull(&self, name: &str) -> Result<Flow<PullProgress>, ProviderError> {
        let manifests = self.catalog.models_named(name).map_err(|error| unknown(name, &error))?;
        let names: Vec<String> = manifests.into_iter().map(|manifest| manifest.name.clone()).collect();
        let (told, latest) = watch::channel(None);
        let told = Arc::new(told);
        let (catalog, what) = (self.catalog.clone(), name.to_owned());
        let pulling = async move {
            for name in names {
                let told = Arc::clone(&told);
                let sink = Arc::new(move |progress: Progress| drop(told.send_replace(Some(progress))));
                catalog.pull(&name, sink).await.with_context(|| format!("pulling {name}"))?;
            }
            anyhow::Ok(())
        };
        Ok(stream::unfold(Some(Pulling { work: Box::pin(pulling), latest, what }), Pulling::next).boxed())
    }

    fn load(&self, name: &str) -> BoxFuture<'static, Result<(), ProviderError>> {
        match self.loader(name) {
            Ok(section) => section.load(name),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn unload(&self, name: &str) -> Result<(), ProviderError> {
        self.loader(name)?.unload(name);
        Ok(())
    }

    fn first(&self, capability: Capability) -> String {
        self.of(capability).map(Section::first).unwrap_or_default()
    }

    fn prefer(&self, capability: Capability, name: &str) -> Result<(), ProviderError> {
        self.of(capability).map_or(Ok(()), |section| section.prefer(name))
    }

    fn name_voices(&self, names: VoiceNames) {
        if let Some(section) = self.of(Capability::Speech) {
            section.name_voices(names);
        }
    }
}

/// A pull under way, which ends with its listener.
struct Pulling {
    work: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
    latest: watch::Receiver<Option<Progress>>,
    what: String,
}

impl Pulling {
    /// The latest progress, as often as it is asked for, or the end.
    async fn next(state: Option<Self>) -> Option<(Result<PullProgress, ProviderError>, Option<Self>)> {
        let mut pulling = state?;
        let outcome = tokio::select! {
            biased;
            Ok(()) = pulling.latest.changed() => None,
            outcome = &mut pulling.work => Some(outcome),
        };
        let progress = pulling.latest.borrow_and_update().clone().map(|progress| PullProgress {
            model: progress.model,
            stage: progress.stage.to_string(),
            file: progress.file,
            done_bytes: progress.done_bytes,
            total_bytes: progress.total_bytes,
        });
        match (outcome, progress) {
            (Some(Err(error)), _) => {
                let error = ProviderError::Unavailable { what: pulling.what, remedy: format!("{error:#}") };
                Some((Err(error), None))
            }
            (Some(Ok(())), progress) => Some((Ok(progress?), None)),
            (None, progress) => Some((Ok(progress?), Some(pulling))),
        }
    }
}

fn unknown(name: &str, error: &CatalogError) -> ProviderError {
    let remedy = match error {
        CatalogError::Unknown { known, .. } => format!("there are {known}"),
        error => error.to_string(),
    };
    ProviderError::UnknownModel { model: name.chars().filter(|c| !c.is_control()).take(80).collect(), remedy }
}

/// Bytes of all files below a folder. The hub's cache has links to them.
fn bytes_below(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let metadata = std::fs::metadata(&path)?;
        bytes += if metadata.is_dir() { bytes_below(&path)? } else { metadata.len() };
    }
    Ok(bytes)
}

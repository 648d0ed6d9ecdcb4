//! All models that a capability could use: links to them, by name, made as they are wanted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;

use super::door::Door;
use super::loader::Loader;
use super::name::{ModelName, ServiceName};
use crate::catalog::Kind;
use crate::provider::account::Books;
use crate::provider::fallback::Link;
use crate::provider::route::{Lazy, Models};
use crate::provider::{ModelCard, ProviderError};
use crate::remote::Service;

/// The services that are configured.
#[derive(Clone, Default)]
pub(super) struct Services {
    pub(super) openai: Option<Service>,
    pub(super) openrouter: Option<Service>,
}

impl Services {
    pub(super) fn get(&self, name: ServiceName) -> Option<&Service> {
        match name {
            ServiceName::OpenAi => self.openai.as_ref(),
            ServiceName::OpenRouter => self.openrouter.as_ref(),
        }
    }
}

/// What a client is told of a model that is here and does not load.
const NOT_LOADED: &str = "it could not be loaded; the server's log says why";

/// One capability's models.
pub(super) struct Shelf<D: ?Sized> {
    loader: Loader,
    services: Services,
    books: Option<Books>,
    /// Of models that are here, so that none is loaded twice. There are no more than on the disk.
    local: Mutex<BTreeMap<String, Kept<D>>>,
}

/// A local model that a chain or a request has named.
struct Kept<D: ?Sized> {
    link: Link<D>,
    lazy: Lazy<D>,
}

impl<D: Door + ?Sized> Shelf<D> {
    pub(super) fn new(loader: Loader, services: Services, books: Option<Books>) -> Self {
        Self { loader, services, books, local: Mutex::default() }
    }

    /// The server's own chain. The first of its models is loaded now, if it is here and may take its time.
    pub(super) async fn chain(&self, names: &[ModelName]) -> anyhow::Result<Vec<Link<D>>> {
        let mut links = Vec::new();
        let mut reasons = Vec::new();
        for name in names {
            let opened = match self.usable(name) {
                Ok(()) if links.is_empty() && !name.is_remote() => {
                    let loaded = D::load(self.loader.clone(), name.clone()).await;
                    let link = loaded.map(|door| self.keep(name, self.lazy(name).holding(door)));
                    link.map_err(|error| format!("{error:#}"))
                }
                Ok(()) => self.open(name).map_err(|error| error.to_string()),
                Err(reason) => Err(reason),
            };
            links.push(opened.unwrap_or_else(|reason| {
                reasons.push(reason);
                self.missing(name)
            }));
        }
        if links.iter().any(|link| link.door().is_some()) {
            for reason in reasons {
                tracing::warn!(reason, "{} goes on without one of its models", D::WHAT);
            }
            return Ok(links);
        }
        Err(anyhow::anyhow!("{}", self.remedies(&reasons)))
    }

    /// The server's own chain, of which nothing is loaded yet.
    pub(super) fn idle_chain(&self, names: &[ModelName]) -> Vec<Link<D>> {
        let link = |name: &ModelName| {
            let opened = self.usable(name).and_then(|()| self.open(name).map_err(|error| error.to_string()));
            opened.unwrap_or_else(|_| self.missing(name))
        };
        names.iter().map(link).collect()
    }

    /// In the place of one that cannot be asked. Clients are told how to get it, and nothing about this machine.
    fn missing(&self, name: &ModelName) -> Link<D> {
        let remedy = match name {
            ModelName::Remote(service, _) => format!("it needs {}", service.key()),
            ModelName::Local(name) if self.usable(&ModelName::Local(name.clone())).is_err() => {
                format!("fetch it with `aichat pull {name}`")
            }
            ModelName::Local(_) | ModelName::File(_) => NOT_LOADED.to_owned(),
        };
        Link::missing(name.to_string(), name.is_remote(), remedy)
    }

    fn remedies(&self, reasons: &[String]) -> String {
        let [first, fallback] = D::SETTINGS;
        let elsewhere = match &self.services.openai {
            Some(_) => format!("{fallback}={}", D::EXAMPLE),
            None => format!("{fallback}={} with OPENAI_API_KEY", D::EXAMPLE),
        };
        let reasons = if reasons.is_empty() { "no model is configured".to_owned() } else { reasons.join("; ") };
        format!("{} has no model: {reasons}; or write {first}=another model, or {elsewhere}", D::CAPABILITY.as_str())
    }

    /// Why a model of the settings cannot be asked.
    pub(super) fn usable(&self, name: &ModelName) -> Result<(), String> {
        match name {
            ModelName::Remote(service, _) => match self.services.get(*service) {
                Some(_) => Ok(()),
                None => Err(format!("{name} needs {}", service.key())),
            },
            name => self.loader.weights(name).map(|_| ()).map_err(|error| format!("{error:#}")),
        }
    }

    fn counted(&self, name: &ModelName, door: Arc<D>) -> Arc<D> {
        match &self.books {
            Some(books) => D::counted(books, &name.to_string(), name.is_remote(), door),
            None => door,
        }
    }

    fn keep(&self, name: &ModelName, lazy: Lazy<D>) -> Link<D> {
        let link = Link::new(name.to_string(), false, self.counted(name, D::lazy(lazy.clone())));
        let mut local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.entry(key(name)).or_insert(Kept { link, lazy }).link.clone()
    }

    /// The door of a model that is here and of which something was asked.
    pub(super) fn kept(&self, name: &str) -> Option<Lazy<D>> {
        let local = self.local.lock().unwrap_or_else(PoisonError::into_inner);
        local.get(name).map(|kept| kept.lazy.clone())
    }

    /// A link to a model that is there. One of ours is loaded when it is first asked.
    fn open(&self, name: &ModelName) -> Result<Link<D>, ProviderError> {
        if let ModelName::Remote(service, model) = name {
            let service = self.services.get(*service).ok_or_else(|| self.unknown(name))?;
            let door = self.counted(name, D::remote(service.clone(), model));
            return Ok(Link::new(name.to_string(), true, door));
        }
        Ok(self.keep(name, self.lazy(name)))
    }

    /// One of ours, which is loaded when it is asked.
    fn lazy(&self, name: &ModelName) -> Lazy<D> {
        let (loader, wanted) = (self.loader.clone(), name.clone());
        let build = move || {
            let (loader, wanted) = (loader.clone(), wanted.clone());
            async move {
                D::load(loader, wanted.clone()).await.map_err(|error| {
                    tracing::error!(model = %wanted, error = format!("{error:#}"), "not loaded");
                    ProviderError::Unavailable { what: wanted.to_string(), remedy: NOT_LOADED.to_owned() }
                })
            }
            .boxed()
        };
        Lazy::new(name.to_string(), self.loader.idle, build)
    }

    /// The catalog's models that do this and are on disk.
    pub(super) fn here(&self) -> impl Iterator<Item = &str> {
        let catalog = &self.loader.catalog;
        let ours = catalog.manifests().iter().filter(|manifest| manifest.kind == D::KIND);
        ours.map(|manifest| manifest.name.as_str()).filter(|name| catalog.locate(name).is_ok())
    }

    pub(super) fn cards(&self, chain: &[Link<D>]) -> Vec<ModelCard> {
        let card = |name: &str, provider: &str| ModelCard {
            name: name.to_owned(),
            capability: D::CAPABILITY,
            provider: provider.into(),
        };
        let provider = |link: &Link<D>| if link.remote { service_of(&link.name) } else { "local" }.to_owned();
        let mut cards: Vec<ModelCard> = Vec::new();
        cards.extend(chain.iter().filter(|link| link.door().is_some()).map(|link| card(&link.name, &provider(link))));
        for name in self.here() {
            if !cards.iter().any(|known| known.name == name) {
                cards.push(card(name, "local"));
            }
        }
        cards
    }

    fn unknown(&self, name: &ModelName) -> ProviderError {
        let here: Vec<_> = self.here().collect();
        let mut known =
            if here.is_empty() { "no model is here".to_owned() } else { format!("here are {}", here.join(", ")) };
        for service in [ServiceName::OpenAi, ServiceName::OpenRouter] {
            if self.services.get(service).is_some() {
                known = format!("{known}, and {}/NAME", service.as_str());
            }
        }
        let remedy = match name {
            ModelName::Remote(service, _) if self.services.get(*service).is_none() => {
                format!("{} is not set; {known}", service.key())
            }
            ModelName::Local(name) if self.loader.catalog.manifest(name).is_ok_and(|it| it.kind == D::KIND) => {
                format!("it is not on this machine's disk (`aichat pull {name}`); {known}")
            }
            _ => known,
        };
        ProviderError::UnknownModel { model: name.to_string(), remedy }
    }
}

impl<D: Door + ?Sized> Models<D> for Shelf<D> {
    fn link(&self, name: &str) -> Result<Link<D>, ProviderError> {
        let name = self.loader.resolve(name);
        let is_served = match &name {
            ModelName::Remote(service, model) => !model.is_empty() && self.services.get(*service).is_some(),
            ModelName::Local(name) => self.here().any(|here| here == name),
            // A request may come from anybody: of files only those that stand with the models.
            ModelName::File(path) => D::KIND == Kind::Chat && self.loader.catalog.holds(path),
        };
        if !is_served {
            return Err(self.unknown(&name));
        }
        if let Some(kept) = self.local.lock().unwrap_or_else(PoisonError::into_inner).get(&key(&name)) {
            return Ok(kept.link.clone());
        }
        self.open(&name)
    }
}

/// Two files may have one name.
fn key(name: &ModelName) -> String {
    match name {
        ModelName::File(path) => path.display().to_string(),
        name => name.to_string(),
    }
}

/// `openai` of `openai/gpt-4o`.
fn service_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(service, _)| service)
}

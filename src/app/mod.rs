//! The composition root: where settings, models on disk, engines, services elsewhere and the database meet.

mod backup;
mod check;
mod door;
mod guard;
mod loader;
mod name;
mod recorded;
mod roster;
mod shelf;
mod stock;
pub mod tenancy;

use std::sync::{Arc, OnceLock};

use secrecy::ExposeSecret;
use tokio::sync::OnceCell;

use crate::catalog::{Catalog, Choice, HubOptions};
use crate::config::{self, Config};
use crate::engine::device::{self, DeviceChoice};
use crate::engine::memory::MemoryLedger;
use crate::engine::precedence::Precedence;
use crate::provider::account::{Books, Usd};
use crate::provider::fallback::Fallback;
use crate::provider::filter::{ContentFilter, Filtered};
use crate::provider::route::Routed;
use crate::provider::voices::Voiced;
use crate::provider::{
    Capability, ChatModel, ModelShelf, Roster, SpeechSynthesizer, SpeechToText, TextEmbedder, VoiceActivity,
};
use crate::remote;
use crate::session::Parts;
use crate::store::{Budgets, LOCAL_OWNER, Recordings, Store, StoredLedger, VoiceLibrary};
pub use backup::{Description, backup, restore};
pub use check::faults;
use door::Door;
use loader::Loader;
pub use name::ModelName;
use roster::{Desk, Desks};
use shelf::{Services, Shelf};

/// Share of the device's free memory that models may take; the rest is for activations that nobody foresaw.
const BUDGET_PERCENT: u64 = 90;
/// Where `EMBEDDING_MODEL` names none. Few need it: it is fetched only by name.
const EMBEDDING: &str = "all-minilm-l6-v2";

/// Speaks, with its codec, from where the settings say.
const HIGGS: &str = "higgs-audio-v2";
const HIGGS_CODEC: &str = "higgs-audio-v2-tokenizer";

/// What every command starts from: settings, and which models they mean.
pub struct App {
    pub config: Config,
    pub catalog: Catalog,
    /// The profile, and why this one.
    pub choice: Choice,
    pub device: DeviceChoice,
    loader: Loader,
    services: Services,
    books: Option<Books>,
    filter: Option<Arc<dyn ContentFilter>>,
    hearing: OnceCell<Desk<dyn SpeechToText>>,
    thinking: OnceCell<Desk<dyn ChatModel>>,
    speech: OnceCell<Desk<dyn SpeechSynthesizer>>,
    embedding: OnceLock<Desk<dyn TextEmbedder>>,
}

/// Bytes that models may take of a device.
///
/// # Errors
/// The device does not answer.
pub fn budget(device: DeviceChoice) -> anyhow::Result<u64> {
    Ok(device::memory(device)?.free / 100 * BUDGET_PERCENT)
}

impl App {
    /// Looks at the device and chooses a profile; loads nothing yet.
    ///
    /// # Errors
    /// All settings that name no device, profile or model, or a service without its key; a device that does not answer.
    pub fn new(config: Config) -> anyhow::Result<Self> {
        let faults = faults(&config, &[]);
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("\n"));
        let (catalog, device, choice) = setting(&config)?;
        let ledger = MemoryLedger::default();
        ledger.set_budget(&device.to_string(), budget(device)?);
        let loader = Loader {
            catalog: catalog.clone(),
            device,
            ledger,
            precedence: Precedence::default(),
            voice_activity: choice.profile.voice_activity.clone(),
            speech_permits: config.max_concurrent_tts,
            folders: [(HIGGS, &config.higgs.model), (HIGGS_CODEC, &config.higgs.tokenizer)]
                .into_iter()
                .filter_map(|(name, folder)| Some((name, folder.clone()?)))
                .collect(),
            idle: config.model_idle,
            laid_out: Arc::default(),
            residents: Arc::default(),
        };
        let services = services(&config)?;
        let filter = guard::filter(&config.filter, &services)?;
        Ok(Self {
            config,
            catalog,
            choice,
            device,
            loader,
            services,
            books: None,
            filter,
            hearing: OnceCell::new(),
            thinking: OnceCell::new(),
            speech: OnceCell::new(),
            embedding: OnceLock::new(),
        })
    }

    /// Has every request counted from here on, and held to the budgets. Before the first door is built.
    ///
    /// # Errors
    /// The file with prices cannot be read.
    pub async fn keep_books(&mut self, store: &Store) -> anyhow::Result<StoredLedger> {
        let spending = &self.config.spending;
        let usd = |amount: Option<f64>| amount.map(Usd::dollars);
        let ledger = StoredLedger::new(store.clone(), Budgets { day: usd(spending.day), month: usd(spending.month) });
        ledger.recover(true).await;
        let books =
            Books::new(Arc::new(ledger.clone()), guard::prices(spending.prices.as_deref())?, usd(spending.request));
        self.books = Some(books);
        Ok(ledger)
    }

    /// A capability's models, the first choice first. With a first choice elsewhere the profile's own stands in, if it
    /// is on disk.
    pub fn chain(&self, capability: Capability) -> Vec<ModelName> {
        let (models, own) = match capability {
            Capability::Transcription => (&self.config.stt, &*self.choice.profile.speech_to_text),
            Capability::Chat => (&self.config.llm, &*self.choice.profile.chat),
            Capability::Speech => (&self.config.tts, &*self.choice.profile.speech),
            Capability::Embedding => (&self.config.embedding, EMBEDDING),
        };
        let first = self.loader.resolve(models.first.as_deref().unwrap_or(own));
        let own = self.loader.resolve(own);
        // Vectors of another model are others: nobody stands in for an embedder unasked.
        let may_stand_in = first.is_remote() && capability != Capability::Embedding;
        let own = Some(own).filter(|own| may_stand_in && self.loader.weights(own).is_ok());
        let fallback = models.fallback.iter().map(|name| self.loader.resolve(name));
        let mut names: Vec<ModelName> = Vec::new();
        for name in [first].into_iter().chain(fallback).chain(own) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn first(&self, capability: Capability) -> String {
        self.chain(capability).first().map(ToString::to_string).unwrap_or_default()
    }

    pub fn stt_model(&self) -> String {
        self.first(Capability::Transcription)
    }

    pub fn llm_model(&self) -> String {
        self.first(Capability::Chat)
    }

    pub fn tts_model(&self) -> String {
        self.first(Capability::Speech)
    }

    pub fn vad_model(&self) -> &str {
        &self.choice.profile.voice_activity
    }

    /// The catalog's models that are first choices, for whoever fetches them.
    pub fn models(&self) -> Vec<String> {
        let mut firsts = vec![Capability::Transcription, Capability::Chat, Capability::Speech];
        firsts.extend(self.config.embedding.first.as_ref().map(|_| Capability::Embedding));
        let local = firsts.into_iter().filter_map(|it| match self.chain(it).into_iter().next()? {
            ModelName::Local(name) if self.loader.folders.contains_key(name.as_str()) => None,
            ModelName::Local(name) => Some(name),
            ModelName::File(_) | ModelName::Remote(..) => None,
        });
        local.chain([self.vad_model().to_owned()]).collect()
    }

    /// The first choices that are not on disk, or not whole, with the reason.
    pub fn missing_models(&self) -> Vec<(String, String)> {
        let check = |name: &String| self.catalog.weights(name).err().map(|error| (name.clone(), error.to_string()));
        self.models().iter().filter_map(check).collect()
    }

    /// The file with a local model's weights, whole; of a model elsewhere that its service is configured.
    pub fn place(&self, name: &ModelName) -> Result<String, String> {
        match name {
            ModelName::Remote(service, _) => match self.services.get(*service) {
                Some(_) => Ok("elsewhere; its service is configured".to_owned()),
                None => Err(format!("it needs {}", service.key())),
            },
            name => self.loader.weights(name).map(|path| path.display().to_string()).map_err(|error| error.to_string()),
        }
    }

    pub async fn speech_to_text(&self) -> anyhow::Result<Arc<dyn SpeechToText>> {
        Ok(self.hearing.get_or_try_init(|| self.desk()).await?.door.clone())
    }

    pub async fn chat_model(&self) -> anyhow::Result<Arc<dyn ChatModel>> {
        let door: Arc<dyn ChatModel> = self.thinking.get_or_try_init(|| self.desk()).await?.door.clone();
        Ok(match &self.filter {
            Some(filter) => Arc::new(Filtered::new(door, Arc::clone(filter))),
            None => door,
        })
    }

    pub async fn speech_synthesizer(&self) -> anyhow::Result<Arc<dyn SpeechSynthesizer>> {
        let door: Arc<dyn SpeechSynthesizer> = self.speech.get_or_try_init(|| self.desk()).await?.door.clone();
        Ok(match &self.filter {
            Some(filter) => Arc::new(Filtered::new(door, Arc::clone(filter))),
            None => door,
        })
    }

    /// The same, with the voices that people made.
    pub fn voiced(&self, speech: Arc<dyn SpeechSynthesizer>, store: &Store) -> Arc<dyn SpeechSynthesizer> {
        let library = VoiceLibrary::new(store.clone(), Recordings::new(&self.config.data_dir));
        Arc::new(Voiced::new(speech, Arc::new(library)))
    }

    pub fn voice_activity(&self) -> anyhow::Result<Arc<dyn VoiceActivity>> {
        self.loader.voice_activity()
    }

    /// Without a model it says what is missing; a server needs none.
    pub fn embedder(&self) -> Arc<dyn TextEmbedder> {
        self.embedding_desk().door.clone()
    }

    fn embedding_desk(&self) -> &Desk<dyn TextEmbedder> {
        self.embedding.get_or_init(|| {
            let shelf = self.shelf();
            let links = shelf.idle_chain(&self.chain(Capability::Embedding));
            Self::desk_of(shelf, links)
        })
    }

    fn shelf<D: Door + ?Sized>(&self) -> Arc<Shelf<D>> {
        Arc::new(Shelf::new(self.loader.clone(), self.services.clone(), self.books.clone()))
    }

    async fn desk<D: Door + ?Sized>(&self) -> anyhow::Result<Desk<D>> {
        let shelf = self.shelf();
        let links = shelf.chain(&self.chain(D::CAPABILITY)).await?;
        Ok(Self::desk_of(shelf, links))
    }

    fn desk_of<D: Door + ?Sized>(shelf: Arc<Shelf<D>>, links: Vec<crate::provider::fallback::Link<D>>) -> Desk<D> {
        let own = Fallback::new(D::WHAT, links);
        Desk { door: Arc::new(Routed::new(own, Arc::clone(&shelf) as _)), shelf }
    }

    /// Who could answer now: of the doors that were built.
    pub fn roster(&self) -> Arc<dyn Roster> {
        let mut desks: Vec<Box<dyn Roster>> = Vec::new();
        desks.extend(self.hearing.get().map(|desk| Box::new(desk.clone()) as Box<dyn Roster>));
        desks.extend(self.thinking.get().map(|desk| Box::new(desk.clone()) as Box<dyn Roster>));
        desks.extend(self.speech.get().map(|desk| Box::new(desk.clone()) as Box<dyn Roster>));
        desks.push(Box::new(self.embedding_desk().clone()));
        Arc::new(Desks(desks))
    }

    /// All models, of the doors that were built.
    ///
    /// # Errors
    /// The file with prices cannot be read.
    pub fn model_shelf(&self) -> anyhow::Result<Arc<dyn ModelShelf>> {
        let mut desks: Vec<Box<dyn stock::Section>> = Vec::new();
        desks.extend(self.hearing.get().map(|desk| Box::new(desk.clone()) as Box<dyn stock::Section>));
        desks.extend(self.thinking.get().map(|desk| Box::new(desk.clone()) as Box<dyn stock::Section>));
        desks.extend(self.speech.get().map(|desk| Box::new(desk.clone()) as Box<dyn stock::Section>));
        desks.push(Box::new(self.embedding_desk().clone()));
        Ok(Arc::new(stock::Stock {
            catalog: self.catalog.clone(),
            sections: desks.into(),
            voice_activity: self.vad_model().to_owned(),
            prices: guard::prices(self.config.spending.prices.as_deref())?,
            services: self.services.clone(),
        }))
    }

    /// Makes a model that was saved as a setting the first choice, where neither flag nor environment names one. Before
    /// the first door is built.
    ///
    /// # Errors
    /// It cannot be asked; the first choice stays what it was.
    pub fn choose(&mut self, capability: Capability, name: &str) -> Result<(), String> {
        self.place(&self.loader.resolve(name))?;
        if !self.is_fixed(capability) {
            let models = match capability {
                Capability::Transcription => &mut self.config.stt,
                Capability::Chat => &mut self.config.llm,
                Capability::Speech => &mut self.config.tts,
                Capability::Embedding => &mut self.config.embedding,
            };
            models.first = Some(name.to_owned());
        }
        Ok(())
    }

    /// Whether a flag or the environment names a capability's first choice.
    pub fn is_fixed(&self, capability: Capability) -> bool {
        match capability {
            Capability::Transcription => self.config.stt.is_fixed,
            Capability::Chat => self.config.llm.is_fixed,
            Capability::Speech => self.config.tts.is_fixed,
            Capability::Embedding => self.config.embedding.is_fixed,
        }
    }

    /// The database.
    ///
    /// # Errors
    /// It cannot be opened, or a newer program wrote it.
    pub async fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.config.database_url).await?)
    }

    /// Bytes that the first choices take of the device beside the speech model, as far as they run here.
    ///
    /// # Errors
    /// A model's file that is no model.
    pub fn need_beside_speech(&self) -> anyhow::Result<u64> {
        let mut others = vec![Capability::Transcription, Capability::Chat];
        others.extend(self.config.embedding.first.as_ref().map(|_| Capability::Embedding));
        let firsts = others.into_iter().filter_map(|capability| self.chain(capability).into_iter().next());
        firsts.map(|name| self.loader.need(&name)).sum()
    }

    /// All that a session is made of. The speech model is loaded last, beside the others no longer: it alone can do with
    /// the memory that is left.
    ///
    /// # Errors
    /// Everything that nobody does, each on a line, with what to do about it.
    pub async fn parts(&self, store: &Store) -> anyhow::Result<Parts> {
        let vad = self.voice_activity()?;
        let (stt, chat) = tokio::join!(self.speech_to_text(), self.chat_model());
        match (stt, chat, self.speech_synthesizer().await) {
            (Ok(stt), Ok(chat), Ok(speech)) => {
                let speech = self.voiced(speech, store);
                Ok(Parts { stt, chat, speech, vad, records: Arc::new(store.of(LOCAL_OWNER)) })
            }
            (stt, chat, speech) => {
                let errors = [stt.err(), chat.err(), speech.err()].into_iter().flatten();
                anyhow::bail!("{}", errors.map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

/// The catalog, the device and the profile that the settings come to.
fn setting(config: &Config) -> anyhow::Result<(Catalog, DeviceChoice, Choice)> {
    let wanted: DeviceChoice = config::parse("DEVICE", &config.device)?;
    let device = wanted.resolve();
    let free = device::memory(device)?.free;
    let catalog = catalog(config)?;
    let choice = if config.profile == "auto" {
        catalog.choose_profile(free, device != DeviceChoice::Cpu)?
    } else {
        let profile = catalog.profile(&config.profile)?.clone();
        Choice { reason: format!("{}: as PROFILE says", profile.name), profile }
    };
    Ok((catalog, device, choice))
}

fn services(config: &Config) -> anyhow::Result<Services> {
    let Config { openai, openrouter, .. } = config;
    let mut services = Services::default();
    if openai.is_configured() {
        services.openai = Some(remote::Service::openai(openai.key.clone(), openai.base_url.as_deref())?);
    }
    if openrouter.is_configured() {
        let service = remote::Service::openrouter(openrouter.key.clone(), openrouter.base_url.as_deref(), None)?;
        services.openrouter = Some(service);
    }
    Ok(services)
}

/// The database of these settings, which must be there already.
///
/// # Errors
/// It is not there or cannot be opened.
pub async fn existing_store(config: &Config) -> anyhow::Result<Store> {
    Ok(Store::open_existing(&config.database_url).await?)
}

/// The catalog of these settings.
///
/// # Errors
/// Never, unless this program was built wrong.
pub fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    let hub = &config.hub;
    let options = HubOptions {
        endpoint: hub.endpoint.clone(),
        token: hub.token.as_ref().map(|token| token.expose_secret().to_owned()),
        cache: hub.home.as_ref().map(|home| home.join("hub")),
    };
    Ok(Catalog::new(&config.models_dir)?.with_hub(options))
}

#[cfg(test)]
mod tests;
#[cfg(test)]
#[path = "fault_tests.rs"]
mod fault_tests;
#[cfg(test)]
#[path = "idle_tests.rs"]
mod idle_tests;
#[cfg(test)]
#[path = "stock_tests.rs"]
mod stock_tests;

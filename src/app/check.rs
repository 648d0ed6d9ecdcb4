//! What is wrong with settings that only catalog, engine and services can judge.

use super::name::ServiceName;
use super::{ModelName, catalog, services};
use crate::catalog::{Catalog, Kind};
use crate::config::{self, Config, ConfigError, Models};
use crate::engine::device::{self, DeviceChoice};

/// All of it, a line for each setting, with what to write. What is told in `wrong` is not told again.
pub fn faults(config: &Config, wrong: &[ConfigError]) -> Vec<String> {
    let is_told = |name: &str| wrong.iter().any(|error| error.name() == Some(name));
    let mut faults = Vec::new();
    faults.extend(device_fault(&config.device));
    match catalog(config) {
        Err(error) => faults.push(error.to_string()),
        Ok(catalog) => {
            if config.profile != "auto" && catalog.profile(&config.profile).is_err() {
                let known: Vec<_> = catalog.profiles().iter().map(|profile| profile.name.as_str()).collect();
                let known = known.join(", ");
                faults.push(format!(
                    "PROFILE={}: there is no such profile; write auto or one of {known}",
                    config.profile
                ));
            }
            for (settings, models, kind) in [
                (["STT_MODEL", "STT_FALLBACK"], &config.stt, Kind::SpeechToText),
                (["LLM_MODEL", "LLM_FALLBACK"], &config.llm, Kind::Chat),
                (["TTS_MODEL", "TTS_FALLBACK"], &config.tts, Kind::Speech),
                (["EMBEDDING_MODEL", "EMBEDDING_FALLBACK"], &config.embedding, Kind::Embedding),
            ] {
                for (setting, name) in named(settings, models) {
                    let fault = match ModelName::parse(name) {
                        ModelName::Remote(service, _) if is_told(service.key()) => None,
                        ModelName::Remote(service, model) => remote_fault(config, service, &model),
                        ModelName::File(_) if kind == Kind::Chat => None,
                        ModelName::File(_) => {
                            Some("a file can only be the language model; write a model's name".into())
                        }
                        ModelName::Local(name) => local_fault(&catalog, kind, &name),
                    };
                    faults.extend(fault.map(|fault| format!("{setting}={name}: {fault}")));
                }
            }
        }
    }
    let folders = [("HIGGS_MODEL_PATH", &config.higgs.model), ("HIGGS_TOKENIZER_PATH", &config.higgs.tokenizer)];
    let missing = folders.into_iter().filter_map(|(name, folder)| Some((name, folder.as_ref()?)));
    faults.extend(missing.filter(|(_, folder)| !folder.is_dir()).map(|(name, folder)| {
        format!(
            "{name}={}: there is no such folder; write the folder that the model is in, or leave the line out and \
             fetch it with `aichat pull higgs-audio-v2`",
            folder.display()
        )
    }));
    faults.extend(services(config).err().map(|error| error.to_string()));
    faults
}

fn named<'a>(settings: [&'static str; 2], models: &'a Models) -> impl Iterator<Item = (&'static str, &'a str)> {
    let first = models.first.iter().map(move |name| (settings[0], name.as_str()));
    first.chain(models.fallback.iter().map(move |name| (settings[1], name.as_str())))
}

fn remote_fault(config: &Config, service: ServiceName, model: &str) -> Option<String> {
    let settings = match service {
        ServiceName::OpenAi => &config.openai,
        ServiceName::OpenRouter => &config.openrouter,
    };
    if model.is_empty() {
        return Some(format!("write the model's name after {}/", service.as_str()));
    }
    let missing = || format!("that model is {}'s; write {} too", service.as_str(), service.key());
    (!settings.is_configured()).then(missing)
}

fn local_fault(catalog: &Catalog, kind: Kind, name: &str) -> Option<String> {
    let manifest = catalog.manifest(name).or_else(|_| catalog.manifest(&format!("whisper-{name}")));
    let found = manifest.ok().map(|manifest| manifest.kind);
    if found == Some(kind) {
        return None;
    }
    let fault = found.map_or("there is no such model".to_owned(), |found| format!("that is a {found:?} model"));
    let known = catalog.manifests().iter().filter(|manifest| manifest.kind == kind);
    let known: Vec<_> = known.map(|manifest| manifest.name.as_str()).collect();
    let known = if known.is_empty() { String::new() } else { format!("{}, ", known.join(", ")) };
    Some(format!("{fault}; write one of {known}openai/NAME, openrouter/VENDOR/NAME"))
}

fn device_fault(text: &str) -> Option<String> {
    let device: DeviceChoice = match config::parse("DEVICE", text) {
        Ok(device) => device,
        Err(error) => return Some(error.to_string()),
    };
    if matches!(device, DeviceChoice::Cuda(_)) && !cfg!(feature = "cuda") {
        return Some(format!(
            "DEVICE={text}: this program was built without CUDA; write DEVICE=cpu or DEVICE=auto, or build it with \
             --features cuda, as scripts/run does where there is a card"
        ));
    }
    device::memory(device.resolve()).err().map(|error| format!("DEVICE={text}: {error}"))
}

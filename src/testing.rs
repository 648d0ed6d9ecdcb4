//! What unit tests share: where the real weights are.

use std::path::PathBuf;

/// The folder of a model's real weights, which `scripts/test` fetches.
///
/// # Panics
/// It is not there.
pub(crate) fn model(name: &str) -> PathBuf {
    let models = std::env::var_os("MODELS_DIR").map_or_else(
        || {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
            cache.unwrap_or_else(home).join("aichat/models")
        },
        PathBuf::from,
    );
    let folder = models.join(name);
    assert!(folder.is_dir(), "{} is missing: scripts/test fetches it, or `aichat pull {name}`", folder.display());
    folder
}

/// A file under tests/fixtures.
pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

//! Where tests find weights and fixtures: the only reader of the environment in tests.

use std::env;
use std::path::PathBuf;

/// The folder of a model, `MODELS_DIR/name`, or in the user's cache.
///
/// # Panics
/// Where the folder is absent: a test on real weights fails, it is never skipped.
pub(crate) fn model(name: &str) -> PathBuf {
    let folder = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    let models = folder("MODELS_DIR").unwrap_or_else(|| {
        let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
        cache.unwrap_or_default().join("aichat/models")
    });
    let directory = models.join(name);
    assert!(directory.is_dir(), "{} is absent: run scripts/fetch, or set MODELS_DIR", directory.display());
    directory
}

/// A file or folder of the checkout: where the test runs, for a cache of builds may know another one.
pub(crate) fn source(path: &str) -> PathBuf {
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join(path)
}

/// A file of `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    source("tests/fixtures").join(path)
}

/// A file or folder that the environment must name.
pub(crate) fn path(key: &str) -> PathBuf {
    PathBuf::from(env::var_os(key).unwrap_or_else(|| panic!("set {key} to a path")))
}

/// A PostgreSQL server that tests may make databases on.
///
/// # Panics
/// Where there is none: a test on PostgreSQL fails, it is never skipped.
pub(crate) fn postgres_url() -> String {
    let url = env::var("TEST_DATABASE_URL").ok().filter(|url| !url.is_empty());
    url.expect("TEST_DATABASE_URL is not set: run scripts/test, or export TEST_DATABASE_URL=$(scripts/postgres start)")
}

/// How often a test repeats itself: what the environment says, or `usual`.
pub(crate) fn rounds(key: &str, usual: usize) -> usize {
    let wanted = env::var(key).ok().filter(|value| !value.is_empty());
    wanted.map_or(usual, |value| value.parse().unwrap_or_else(|_| panic!("{key}={value} is no number")))
}

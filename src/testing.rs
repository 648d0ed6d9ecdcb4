//! Where tests find weights and fixtures: the only reader of the environment in tests. And a sound to test with.

use std::env;
use std::f32::consts::TAU;
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

/// Sound that comes and goes like speech: tones with harmonics, of changing pitch and loudness, and pauses between them.
pub(crate) struct Babble {
    seed: u64,
    loudness: f32,
    pitch: f32,
    left: usize,
    position: usize,
}

impl Babble {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, loudness: 0.0, pitch: 0.0, left: 0, position: 0 }
    }

    /// 0 to 1.
    pub(crate) fn draw(&mut self) -> f32 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 40) as f32 / (1 << 24) as f32
    }

    /// At 48 kHz, of which 16 and 24 kHz are every third and every second sample.
    pub(crate) fn sample(&mut self) -> f32 {
        if self.left == 0 {
            self.left = (3_000.0 + 9_000.0 * self.draw()) as usize;
            self.loudness = if self.draw() < 0.25 { 0.0 } else { 0.02 + 0.2 * self.draw() };
            self.pitch = 90.0 + 200.0 * self.draw();
        }
        self.left -= 1;
        self.position += 1;
        let phase = TAU * (self.position % 48_000) as f32 / 48_000.0 * self.pitch.round();
        let voice: f32 = (1..12).map(|harmonic| (phase * harmonic as f32).sin() / harmonic as f32).sum();
        self.loudness * voice
    }
}

//! What is measured of a limited door: how many requests it generates at once, the most it ever did, and how many wait.
//!
//! Generations are counted where they run and not by the permits given out, so that the figures can contradict the gate.

use std::sync::{Arc, Mutex, PoisonError};

use metrics::{describe_gauge, gauge};

const PERMITS: &str = "aichat_speech_permits";
const GENERATING: &str = "aichat_speech_generating";
const PEAK: &str = "aichat_speech_generating_peak";
const WAITING: &str = "aichat_speech_waiting";

/// Says what the figures mean. Once, after the recorder is installed.
pub(super) fn describe() {
    describe_gauge!(PERMITS, "Speech requests that may be generated at once: MAX_CONCURRENT_TTS");
    describe_gauge!(GENERATING, "Speech requests that are being generated");
    describe_gauge!(PEAK, "The most speech requests that were ever generated at once since the start");
    describe_gauge!(WAITING, "Speech requests that wait for a permit");
}

/// One door's figures, by the name of its model.
pub(super) struct Meter {
    model: String,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    now: u32,
    peak: u32,
}

impl Meter {
    pub(super) fn new(model: &str, permits: usize) -> Self {
        let meter = Self { model: model.to_owned(), counts: Mutex::default() };
        gauge!(PERMITS, "model" => meter.model.clone()).set(permits as f64);
        gauge!(WAITING, "model" => meter.model.clone()).set(0.0);
        meter.count(|_| {});
        meter
    }

    /// Shown under the lock: of two changes the later one stays.
    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut counts);
        counts.peak = counts.peak.max(counts.now);
        gauge!(GENERATING, "model" => self.model.clone()).set(f64::from(counts.now));
        gauge!(PEAK, "model" => self.model.clone()).set(f64::from(counts.peak));
    }
}

/// Counts a request while it is generated.
pub(super) struct Generating(Arc<Meter>);

impl Generating {
    pub(super) fn new(meter: &Arc<Meter>) -> Self {
        meter.count(|counts| counts.now += 1);
        Self(Arc::clone(meter))
    }
}

impl Drop for Generating {
    fn drop(&mut self) {
        self.0.count(|counts| counts.now -= 1);
    }
}

/// Counts a request while it waits.
pub(super) struct Waiting(Arc<Meter>);

impl Waiting {
    pub(super) fn new(meter: &Arc<Meter>) -> Self {
        gauge!(WAITING, "model" => meter.model.clone()).increment(1.0);
        Self(Arc::clone(meter))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        gauge!(WAITING, "model" => self.0.model.clone()).decrement(1.0);
    }
}

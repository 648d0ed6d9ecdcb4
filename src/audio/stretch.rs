//! Slower or faster speech at the same pitch: WSOLA.
//!
//! Source: Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA)", ICASSP 1993. The
//! output is made of windows of the input that overlap by half. Each is taken from about where it belongs, shifted so
//! that it is most like what would have followed the one before: so the waves join. Chunks of any length give the same
//! samples as one call, and the length is right to the sample.

use super::{Pcm, Samples};

/// Half a window, in milliseconds: what two windows share.
const OVERLAP_MILLIS: u64 = 12;
/// How far from its place a window may be taken. A whole period of the deepest voice lies within.
const SEARCH_MILLIS: u64 = 8;

/// Changes the speed of one stream of speech.
pub struct Stretch<const HZ: u32> {
    speed: f64,
    overlap: usize,
    search: usize,
    /// Weights of the window that comes, over the overlap; the one that goes has the rest.
    fade: Vec<f32>,
    /// The input from sample `dropped` on.
    input: Vec<f32>,
    dropped: usize,
    pushed: usize,
    /// Where the last window's second half is in the input: what follows it naturally.
    follows: usize,
    /// Windows given out.
    windows: usize,
}

impl<const HZ: u32> Stretch<HZ> {
    /// 2 is twice as fast. A `speed` that is no number above 0 counts as 1.
    pub fn new(speed: f32) -> Self {
        let overlap = Samples::<HZ>::from_millis(OVERLAP_MILLIS).as_usize();
        let step = std::f32::consts::PI / overlap as f32;
        Self {
            speed: if speed.is_finite() && speed > 0.0 { f64::from(speed) } else { 1.0 },
            overlap,
            search: Samples::<HZ>::from_millis(SEARCH_MILLIS).as_usize(),
            fade: (0..overlap).map(|at| 0.5 - 0.5 * ((at as f32 + 0.5) * step).cos()).collect(),
            input: Vec::new(),
            dropped: 0,
            pushed: 0,
            follows: 0,
            windows: 0,
        }
    }

    /// Takes audio and gives what is ready; about 30 ms of input wait for what comes next.
    pub fn push(&mut self, audio: &Pcm<HZ>) -> Pcm<HZ> {
        self.input.extend_from_slice(audio.as_slice());
        self.pushed += audio.len().as_usize();
        let mut output = Vec::new();
        while self.needs() <= self.pushed {
            self.write_window(&mut output);
        }
        let useless = self.place(self.windows).saturating_sub(self.search).min(self.follows);
        self.input.drain(..useless - self.dropped);
        self.dropped = useless;
        Pcm::new(output)
    }

    /// Gives what still waits. Nothing may be pushed after it.
    pub fn finish(&mut self) -> Pcm<HZ> {
        let length = (self.pushed as f64 / self.speed).round() as usize;
        let missing = length.saturating_sub(self.windows * self.overlap);
        let mut output = Vec::new();
        while output.len() < missing {
            // Silence follows the end.
            self.input.resize((self.needs() - self.dropped).max(self.input.len()), 0.0);
            self.write_window(&mut output);
        }
        output.truncate(missing);
        Pcm::new(output)
    }

    /// Where a window belongs in the input.
    fn place(&self, window: usize) -> usize {
        (window as f64 * self.overlap as f64 * self.speed).round() as usize
    }

    /// How much input there must be for the next window: what it may take, and as much as it stands for.
    fn needs(&self) -> usize {
        let taken = (self.place(self.windows) + self.search).max(self.follows) + 2 * self.overlap;
        taken.max(self.place(self.windows + 1))
    }

    /// Adds half a window: what the last one fades out to while the next one fades in.
    fn write_window(&mut self, output: &mut Vec<f32>) {
        let place = self.place(self.windows);
        let follows = self.follows - self.dropped;
        let leaving = &self.input[follows..follows + self.overlap];
        let first = place.saturating_sub(self.search).max(self.dropped) - self.dropped;
        let last = place + self.search - self.dropped;
        let candidates = (first..=last).map(|at| (at, likeness(leaving, &self.input[at..at + self.overlap])));
        // Of equals, such as silences, the one at its place.
        let nearer = |at: usize| (at + self.dropped).abs_diff(place);
        let (best, _) = candidates
            .reduce(|best, next| {
                let wins = next.1 > best.1 || (next.1 >= best.1 && nearer(next.0) < nearer(best.0));
                if wins { next } else { best }
            })
            .unwrap_or((first, 0.0));
        let coming = &self.input[best..best + self.overlap];
        let mixed = self.fade.iter().zip(leaving.iter().zip(coming));
        output.extend(mixed.map(|(fade, (leaving, coming))| leaving + (coming - leaving) * fade));
        self.follows = best + self.overlap + self.dropped;
        self.windows += 1;
    }
}

/// Cross-correlation, normalised by the candidate's power, so that loudness alone does not win.
fn likeness(wanted: &[f32], candidate: &[f32]) -> f32 {
    let (mut product, mut power) = (0.0f32, 0.0f32);
    for (a, b) in wanted.iter().zip(candidate) {
        product += a * b;
        power += b * b;
    }
    product / (power + 1e-6).sqrt()
}

#[cfg(test)]
#[path = "stretch_tests.rs"]
mod tests;

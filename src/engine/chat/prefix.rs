//! The prefix cache: what models have read before, so that a prompt with the same beginning need not be read again.
//!
//! A snapshot is a decoder with the tokens it has read. It serves a prompt only where every one of these tokens is the
//! same. Few are kept, the latest used, within a bound of bytes.

use super::decoder::Decoder;

/// Snapshots at most: a lookup compares with each.
const MOST_SNAPSHOTS: usize = 16;

pub(super) struct PrefixCache {
    /// Least recently used first.
    snapshots: Vec<Snapshot>,
    bytes_per_token: usize,
    most_bytes: usize,
}

struct Snapshot {
    tokens: Vec<u32>,
    decoder: Box<dyn Decoder>,
}

impl PrefixCache {
    pub(super) fn new(bytes_per_token: usize, most_bytes: usize) -> Self {
        Self { snapshots: Vec::new(), bytes_per_token, most_bytes }
    }

    /// A fork of the snapshot that has read the longest beginning of `prompt`, short of its last token, and its length.
    pub(super) fn find(&mut self, prompt: &[u32]) -> Option<(Box<dyn Decoder>, usize)> {
        let fits = |snapshot: &Snapshot| snapshot.tokens.len() < prompt.len() && prompt.starts_with(&snapshot.tokens);
        let (place, _) = self
            .snapshots
            .iter()
            .enumerate()
            .filter(|(_, snapshot)| fits(snapshot))
            .max_by_key(|(_, snapshot)| snapshot.tokens.len())?;
        let snapshot = self.snapshots.remove(place);
        let found = (snapshot.decoder.fork(), snapshot.tokens.len());
        self.snapshots.push(snapshot);
        Some(found)
    }

    /// Something has read exactly these tokens.
    pub(super) fn holds(&self, tokens: &[u32]) -> bool {
        self.snapshots.iter().any(|snapshot| snapshot.tokens == tokens)
    }

    /// Keeps a fork of `decoder`, which has read `tokens`, and forgets what is too much.
    pub(super) fn keep(&mut self, tokens: &[u32], decoder: &dyn Decoder) {
        let bytes = |snapshot: &Snapshot| snapshot.tokens.len() * self.bytes_per_token;
        if tokens.is_empty() || tokens.len() * self.bytes_per_token > self.most_bytes {
            return;
        }
        self.snapshots.retain(|snapshot| snapshot.tokens != tokens);
        let mut total: usize = self.snapshots.iter().map(bytes).sum::<usize>() + tokens.len() * self.bytes_per_token;
        while total > self.most_bytes || self.snapshots.len() >= MOST_SNAPSHOTS {
            total -= bytes(&self.snapshots.remove(0));
        }
        self.snapshots.push(Snapshot { tokens: tokens.to_vec(), decoder: decoder.fork() });
    }
}

#[cfg(test)]
#[path = "prefix_tests.rs"]
mod tests;

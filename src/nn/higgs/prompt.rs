//! What the model reads before it speaks: runs of text ids and of delayed frames, position by position.

use std::ops::Range;
use std::sync::Arc;

use super::config::HiggsConfig;
use super::frames::{Codes, Edges};

/// Part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Ids of the text vocabulary, a position each.
    Text(Vec<u32>),
    /// Delayed frames, a position each. Shared, because a voice's reference is in every prompt of that voice.
    Audio(Arc<Codes>),
}

impl Segment {
    /// A reference or earlier speech, from its columns.
    pub fn speech(config: &HiggsConfig, columns: &Codes) -> Self {
        let edges = Edges { begin: config.stream_begin(), end: config.stream_end() };
        Self::Audio(Arc::new(edges.delay(columns)))
    }

    /// Positions.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(ids) => ids.len(),
            Self::Audio(frames) => frames.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A whole prompt: everything up to and with `<|audio_out_bos|>`, after which the model speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    segments: Vec<Segment>,
    length: usize,
}

/// Neighbouring positions of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) length: usize,
    pub(super) is_audio: bool,
}

impl Prompt {
    /// Segments without positions are left out, neighbouring texts joined.
    pub fn new(segments: impl IntoIterator<Item = Segment>) -> Self {
        let mut prompt = Self::default();
        for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
            prompt.length += segment.len();
            match (prompt.segments.last_mut(), segment) {
                (Some(Segment::Text(before)), Segment::Text(ids)) => before.extend(ids),
                (_, segment) => prompt.segments.push(segment),
            }
        }
        prompt
    }

    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Positions.
    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The last `rows` frames of audio in it, for an utterance's repetition rule. A second reference does not reach
    /// back into the first one.
    pub fn heard(&self, config: &HiggsConfig, rows: usize) -> Codes {
        let frames = self.segments.iter().rev().find_map(|segment| match segment {
            Segment::Audio(frames) => Some(frames),
            Segment::Text(_) => None,
        });
        frames.map_or_else(|| Codes::new(config.codebooks), |frames| frames.last(rows))
    }

    /// Positions from the first on in which both are the same: what a slot that has read one of them may keep for the
    /// other, or copy to another slot.
    pub fn shared(&self, other: &Self) -> usize {
        let mut shared = 0;
        for (one, two) in self.segments.iter().zip(&other.segments) {
            let same = match (one, two) {
                (Segment::Text(one), Segment::Text(two)) => one.iter().zip(two).take_while(|(a, b)| a == b).count(),
                (Segment::Audio(one), Segment::Audio(two)) if Arc::ptr_eq(one, two) => one.len(),
                (Segment::Audio(one), Segment::Audio(two)) => {
                    one.rows().zip(two.rows()).take_while(|(a, b)| a == b).count()
                }
                _ => 0,
            };
            shared += same;
            if same < one.len() || same < two.len() {
                break;
            }
        }
        shared
    }

    /// Why it cannot be read, where it cannot: an id beyond a table would poison a CUDA context.
    pub(super) fn fault(&self, config: &HiggsConfig) -> Option<String> {
        if self.is_empty() {
            return Some("the prompt is empty".to_owned());
        }
        for segment in &self.segments {
            match segment {
                Segment::Text(ids) => {
                    if let Some(id) = ids.iter().find(|id| **id as usize >= config.vocabulary) {
                        return Some(format!("the id {id} is beyond the vocabulary of {}", config.vocabulary));
                    }
                }
                Segment::Audio(frames) => {
                    let (wanted, given) = (config.codebooks, frames.codebooks());
                    if given != wanted {
                        return Some(format!("a reference has {given} codebooks, the model {wanted}"));
                    }
                    if let Some(code) = frames.values().iter().find(|code| **code as usize >= config.book()) {
                        return Some(format!("the code {code} is beyond a codebook of {}", config.book()));
                    }
                }
            }
        }
        None
    }

    /// The parts of the segments that lie in `positions`.
    pub(super) fn parts(&self, positions: Range<usize>) -> impl Iterator<Item = (&Segment, Range<usize>)> {
        let mut begin = 0;
        self.segments.iter().filter_map(move |segment| {
            let start = begin;
            begin += segment.len();
            let from = positions.start.max(start);
            let to = positions.end.min(begin);
            (from < to).then(|| (segment, from - start..to - start))
        })
    }
}

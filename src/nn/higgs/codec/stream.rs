//! Sound while the codes are still being written: chunks that join without a seam.
//!
//! A chunk is decoded together with the frames before and after it that its sound depends on, and cut out of the middle.
//! So the chunks, one after the other, are what decoding everything gives, and need no crossfade. The wait for the
//! frames after it is the price: 40 ms each. The first chunk, which a listener waits for, may go with fewer; what it
//! then lacks is the far end of a long filter's tail.

use super::{CodecError, Decoder, Frame, check_codes};

/// When to decode how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunking {
    /// Frames of the first chunk; each later one is twice as long as the one before.
    pub first: usize,
    /// Frames of the longest.
    pub longest: usize,
    /// Frames that must be there after the first chunk.
    pub first_ahead: usize,
    /// Frames that must be there after any other; [`Decoder::context`] makes it exact.
    pub ahead: usize,
    /// So often the last frame is repeated after the end, unheard: nothing after the end lets some voices end in a
    /// hiss. 0 is what the reference implementation does.
    pub tail: usize,
}

impl Default for Chunking {
    /// For a listener: 200 ms once there are 13 frames, then chunks of up to a second. With eight frames after it the
    /// first chunk differs from the exact one by 1/1000 of its loudness where with five it is 1/10 (random weights).
    fn default() -> Self {
        Self { first: 5, longest: 25, first_ahead: 8, ahead: 10, tail: 8 }
    }
}

impl Chunking {
    /// Chunks of `frames`, of which each is exact.
    pub fn exact(frames: usize, decoder: &Decoder) -> Self {
        let ahead = decoder.context();
        Self { first: frames, longest: frames, first_ahead: ahead, ahead, tail: 0 }
    }
}

/// One stream's frames that are still needed. It holds no tensor and may go from thread to thread.
#[derive(Clone, Debug)]
pub struct DecoderStream {
    chunking: Chunking,
    /// From up to [`Decoder::context`] frames before `emitted` on.
    frames: Vec<Frame>,
    /// How many of `frames` have been decoded.
    emitted: usize,
    next: usize,
    ahead: usize,
}

impl DecoderStream {
    /// A stream from its first frame on.
    pub fn new(chunking: Chunking) -> Self {
        let next = chunking.first.max(1);
        Self { chunking, frames: Vec::new(), emitted: 0, next, ahead: chunking.first_ahead }
    }

    /// Takes the frames that come next, and answers the sound that can be decoded with them: often none.
    pub fn push(&mut self, decoder: &Decoder, frames: &[Frame]) -> Result<Vec<f32>, CodecError> {
        check_codes(frames)?;
        self.frames.extend_from_slice(frames);
        let mut samples = Vec::new();
        while self.frames.len() >= self.emitted + self.next + self.ahead {
            samples.extend(self.emit(decoder, self.next)?);
            self.next = (2 * self.next).min(self.chunking.longest).max(1);
            self.ahead = self.chunking.ahead;
        }
        Ok(samples)
    }

    /// Frames that must still come before there is sound.
    pub fn wants(&self) -> usize {
        (self.emitted + self.next + self.ahead).saturating_sub(self.frames.len())
    }

    /// The rest of the sound, and the beginning of another stream.
    pub fn finish(&mut self, decoder: &Decoder) -> Result<Vec<f32>, CodecError> {
        let rest = self.frames.len() - self.emitted;
        if let Some(last) = self.frames.last().copied() {
            self.frames.extend(std::iter::repeat_n(last, self.chunking.tail));
        }
        let samples = self.emit(decoder, rest);
        *self = Self::new(self.chunking);
        samples
    }

    fn emit(&mut self, decoder: &Decoder, frames: usize) -> Result<Vec<f32>, CodecError> {
        let context = decoder.context();
        let end = (self.emitted + frames + context).min(self.frames.len());
        let samples = decoder.decode_window(&self.frames[..end], self.emitted..self.emitted + frames)?;
        self.emitted += frames;
        let past = self.emitted.saturating_sub(context);
        self.frames.drain(..past);
        self.emitted -= past;
        Ok(samples)
    }
}

//! An utterance's audio, kept while it may have to be heard again from its beginning.
//!
//! A task takes the audio in as it comes, so that its end is known even where a listener hangs. One playback runs at a
//! time; a new one starts at the beginning and ends the one before it. What is longer than ten minutes, or has a
//! listener that answers, is no longer kept.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::audio::Mic;
use crate::provider::task::Task;

/// Audio that is held at once, 38 MB.
const KEPT: Duration = Duration::from_mins(10);

/// Audio on its way from a microphone to whoever listens.
pub(super) struct Tape {
    reel: Mutex<Reel>,
    /// More was taken in, or a playback ended.
    more: Notify,
    /// Something was given out.
    room: Notify,
    /// How long all of it is, once it has ended.
    ended: watch::Sender<Option<Duration>>,
}

#[derive(Default)]
struct Reel {
    blocks: VecDeque<Mic>,
    /// Length of `blocks`.
    held: Duration,
    /// Length of all that came.
    length: Duration,
    /// The playback's next block.
    next: usize,
    /// Which playback it is.
    playback: u64,
    is_over: bool,
    /// What was given out is let go.
    is_forgetful: bool,
}

impl Tape {
    /// Begins to take `audio` in, for as long as the task lives.
    pub(super) fn record(audio: BoxStream<'static, Mic>) -> (Arc<Self>, Task) {
        let tape = Arc::new(Self {
            reel: Mutex::default(),
            more: Notify::new(),
            room: Notify::new(),
            ended: watch::Sender::new(None),
        });
        let task = Task::spawn("audio tape", Arc::clone(&tape).take_in(audio));
        (tape, task)
    }

    async fn take_in(self: Arc<Self>, mut audio: BoxStream<'static, Mic>) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.reel().is_full() {
                room.await;
                continue;
            }
            let Some(block) = audio.next().await else { break };
            let mut reel = self.reel();
            reel.held += block.duration();
            reel.length += block.duration();
            reel.blocks.push_back(block);
            drop(reel);
            self.more.notify_waiters();
        }
        let length = {
            let mut reel = self.reel();
            reel.is_over = true;
            reel.length
        };
        self.more.notify_waiters();
        self.ended.send_replace(Some(length));
    }

    /// The audio from its beginning. None: that is gone.
    pub(super) fn play(self: &Arc<Self>) -> Option<BoxStream<'static, Mic>> {
        let playback = {
            let mut reel = self.reel();
            if reel.is_forgetful {
                return None;
            }
            (reel.next, reel.playback) = (0, reel.playback + 1);
            reel.playback
        };
        self.more.notify_waiters();
        let tape = Arc::clone(self);
        Some(stream::unfold(tape, move |tape| async move { Some((tape.next(playback).await?, tape)) }).boxed())
    }

    async fn next(&self, playback: u64) -> Option<Mic> {
        loop {
            let more = self.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            {
                let mut reel = self.reel();
                if reel.playback != playback {
                    return None;
                }
                if let Some(block) = reel.give() {
                    drop(reel);
                    self.room.notify_one();
                    return Some(block);
                }
                if reel.is_over {
                    return None;
                }
            }
            more.await;
        }
    }

    /// Nobody will listen from the beginning again.
    pub(super) fn forget(&self) {
        self.reel().forget();
        self.room.notify_one();
    }

    /// Waits until `time`, and as long as the audio is, have passed since its end.
    pub(super) async fn overdue(self: Arc<Self>, time: Duration) {
        let mut ended = self.ended.subscribe();
        let length = match ended.wait_for(Option::is_some).await {
            Ok(length) => length.unwrap_or_default(),
            Err(_) => return,
        };
        drop(ended);
        sleep(time + length).await;
    }

    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.reel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reel {
    /// No more can be taken in before something is given out. What was given out before it was full is let go.
    fn is_full(&mut self) -> bool {
        if self.held < KEPT {
            return false;
        }
        self.forget();
        self.held >= KEPT
    }

    fn give(&mut self) -> Option<Mic> {
        if self.is_forgetful {
            let block = self.blocks.pop_front()?;
            self.held = self.held.saturating_sub(block.duration());
            return Some(block);
        }
        let block = self.blocks.get(self.next)?.clone();
        self.next += 1;
        Some(block)
    }

    fn forget(&mut self) {
        if !std::mem::replace(&mut self.is_forgetful, true) {
            let heard: Duration = self.blocks.drain(..self.next).map(|block| block.duration()).sum();
            self.held = self.held.saturating_sub(heard);
            self.next = 0;
        }
    }
}

#[cfg(test)]
#[path = "tape_tests.rs"]
mod tests;

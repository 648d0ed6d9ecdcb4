//! Whose piece is spoken next: the model thread's loop.
//!
//! Each turn takes in what came, gives out what listeners have room for, and speaks one piece for whoever runs dry first
//! (`playback`, which ranks Higgs' listeners too) of those whose last piece was taken. The others are parked until their
//! listeners read on. Between the stages of a piece that nobody waits for, one that is waited for in silence may go first;
//! one whose listener is not about to run dry gives way to a voice that may want to stop it, for a second.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use futures::future::{select, select_all};
use tokio::sync::mpsc;

use super::pieces::Piece;
use super::playback::Playback;
use super::speaker::Speaker;
use super::{Order, Spoken};
use crate::audio::{SPEECH_HZ, Samples};
use crate::engine::precedence::{Hurry, PATIENCE, Precedence};

/// Requests in work or parked; those beyond wait in the inbox, which is bounded.
const MOST_JOBS: usize = 32;

/// One request.
pub(super) struct Job {
    pub(super) voice: String,
    pub(super) speed: f32,
    pub(super) seed: u64,
    pub(super) served_by: Arc<str>,
    playback: Playback,
    hurry: Option<Hurry>,
    pieces: VecDeque<Piece>,
    /// Pieces spoken.
    pub(super) spoken: u64,
    /// Samples rendered.
    pub(super) position: usize,
    /// Spoken, but the listener has not taken what came before.
    finished: Option<Spoken>,
    out: mpsc::Sender<Spoken>,
}

impl Job {
    /// A request that came now, counted from the `start` of the engine.
    pub(super) fn new(order: Order, pieces: VecDeque<Piece>, served_by: Arc<str>, start: Instant) -> Self {
        Self {
            voice: order.voice,
            speed: order.request.speed,
            seed: order.seed,
            served_by,
            playback: Playback::new(start.elapsed(), order.request.urgency),
            hurry: order.hurry,
            pieces,
            spoken: 0,
            position: 0,
            finished: None,
            out: order.out,
        }
    }

    /// Where its chunks go.
    pub(super) fn listener(&self) -> mpsc::Sender<Spoken> {
        self.out.clone()
    }

    /// Gives out what there is, if there is room for it.
    fn flush(&mut self) {
        if let Some(spoken) = self.finished.take()
            && let Err(mpsc::error::TrySendError::Full(spoken)) = self.out.try_send(spoken)
        {
            self.finished = Some(spoken);
        }
    }

    fn is_over(&self) -> bool {
        self.out.is_closed() || (self.finished.is_none() && self.pieces.is_empty())
    }

    fn is_parked(&self) -> bool {
        self.finished.is_some()
    }

    /// Sound can be made, and there is somebody to hear it.
    fn is_ready(&self) -> bool {
        !self.is_parked() && !self.is_over()
    }

    /// Speaks its next piece.
    fn speak(&mut self, speaker: &Speaker, start: Instant, may_go_on: &mut dyn FnMut() -> bool) {
        let Some(piece) = self.pieces.pop_front() else { return };
        let out = self.out.clone();
        let last = self.pieces.is_empty();
        match speaker.say(&piece, self, last, &mut || !out.is_closed() && may_go_on()) {
            Ok(Some((chunks, samples))) => {
                self.position += samples;
                self.playback.extend(Samples::<SPEECH_HZ>(samples as u64).duration(), start.elapsed());
                self.spoken += 1;
                self.finished = Some(Ok(chunks));
            }
            // The listener left.
            Ok(None) => self.pieces.clear(),
            Err(error) => {
                self.pieces.clear();
                self.finished = Some(Err(error));
            }
        }
        self.flush();
        self.hurry = None;
    }
}

/// The model thread: ends when every handle is dropped and every request is served.
#[expect(clippy::needless_pass_by_value, reason = "the thread owns its model")]
pub(super) fn run(speaker: Speaker, inbox: mpsc::Receiver<Job>, start: Instant, precedence: Precedence) {
    let mut queue = Queue { jobs: VecDeque::new(), inbox, closed: false, start, precedence };
    loop {
        queue.take_in();
        queue.give_out();
        if let Some(job) = queue.next(|_| true) {
            queue.speak(&speaker, job);
        } else if !queue.wait() {
            return;
        }
    }
}

struct Queue {
    jobs: VecDeque<Job>,
    inbox: mpsc::Receiver<Job>,
    /// Nobody can send more.
    closed: bool,
    /// Moments are counted from here.
    start: Instant,
    precedence: Precedence,
}

impl Queue {
    fn take_in(&mut self) {
        while self.jobs.len() < MOST_JOBS
            && let Ok(job) = self.inbox.try_recv()
        {
            self.jobs.push_back(job);
        }
    }

    fn give_out(&mut self) {
        self.jobs.iter_mut().for_each(Job::flush);
        self.jobs.retain(|job| !job.is_over());
    }

    /// Takes out the request whose listener runs dry first, of those that can go on and that `may`.
    fn next(&mut self, may: impl Fn(&Job) -> bool) -> Option<Job> {
        let ready = self.jobs.iter().enumerate().filter(|(_, job)| job.is_ready() && may(job));
        let (index, _) = ready.min_by_key(|(_, job)| job.playback.dry_at())?;
        self.jobs.remove(index)
    }

    /// Speaks one piece of `job`, which then queues behind the others: several listeners share the model by pieces.
    fn speak(&mut self, speaker: &Speaker, mut job: Job) {
        let playback = job.playback;
        let mut patience = PATIENCE;
        job.speak(speaker, self.start, &mut || {
            if !playback.is_waited_for() {
                if !playback.is_running_dry(self.start.elapsed()) {
                    patience = self.precedence.give_way_to_interruption(patience);
                }
                self.take_in();
                if let Some(urgent) = self.next(|job| job.playback.is_waited_for()) {
                    self.speak(speaker, urgent);
                }
            }
            true
        });
        if !job.is_over() {
            self.jobs.push_back(job);
        }
    }

    /// Waits for a request, or for a listener to read on or leave. False where neither can come.
    fn wait(&mut self) -> bool {
        if self.closed && self.jobs.is_empty() {
            return false;
        }
        match futures::executor::block_on(wake(&mut self.inbox, &self.jobs, self.closed)) {
            Wake::Request(job) => self.jobs.push_back(*job),
            Wake::Closed => self.closed = true,
            Wake::Listener => {}
        }
        true
    }
}

/// What ends a wait.
enum Wake {
    Request(Box<Job>),
    /// Nobody can send more.
    Closed,
    /// One read on, or left.
    Listener,
}

async fn wake(inbox: &mut mpsc::Receiver<Job>, parked: &VecDeque<Job>, closed: bool) -> Wake {
    let arrival = async {
        if closed {
            return futures::future::pending().await;
        }
        inbox.recv().await.map_or(Wake::Closed, |job| Wake::Request(Box::new(job)))
    };
    let moved = async {
        if parked.is_empty() {
            return futures::future::pending().await;
        }
        select_all(parked.iter().map(|job| Box::pin(async { drop(job.out.reserve().await) }))).await;
        Wake::Listener
    };
    select(pin!(arrival), pin!(moved)).await.factor_first().0
}

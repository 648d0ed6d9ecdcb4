//! The model thread's loop: take in audio, choose the next job, do it, give out its result.
//!
//! The thread polls the sessions' audio itself, between jobs and, inside a job, between layers and tokens: so it
//! learns at once that an utterance has ended or that nobody listens, and drops a guess for it. It sleeps in `park`
//! and is woken by the streams' own wakers.

use std::cell::RefCell;
use std::sync::Arc;
use std::task::{Context as Poller, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use super::listener::{Listener, Window};
use super::session::{Job, Session};
use crate::engine::precedence::{Precedence, Urgent};
use crate::provider::ProviderError;

/// Unparks the model's thread.
struct Bell(Thread);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs until the inbox closes and every session has ended.
pub(super) fn run(listener: &Listener, inbox: Receiver<Session>, name: &Arc<str>, precedence: &Precedence) {
    let waker = Waker::from(Arc::new(Bell(thread::current())));
    let mut room = Room { inbox, open: true, sessions: Vec::new(), waker, served: 0 };
    loop {
        room.take_in(listener);
        room.sessions.retain(|session| !session.is_over());
        if let Some((index, job)) = room.next() {
            let _hurry = room.urgency(index, job).map(|urgent| precedence.hurry(urgent));
            serve(listener, &mut room, index, job, name);
        } else if !room.open && room.sessions.is_empty() {
            return;
        } else if let Some(due) = room.sessions.iter().filter_map(Session::next_guess).min() {
            thread::park_timeout(due.max(Duration::from_millis(1)));
        } else {
            thread::park();
        }
    }
}

/// Everybody who is being listened to.
struct Room {
    inbox: Receiver<Session>,
    open: bool,
    sessions: Vec<Session>,
    waker: Waker,
    served: u64,
}

impl Room {
    fn take_in(&mut self, listener: &Listener) {
        let mut poller = Poller::from_waker(&self.waker);
        while self.open {
            match self.inbox.poll_recv(&mut poller) {
                Poll::Ready(Some(mut session)) => {
                    if let Some(prompt) = session.prompt() {
                        let tokens = listener.tokens.encode(&format!(" {prompt}"));
                        session.set_prompt(tokens);
                    }
                    self.sessions.push(session);
                }
                Poll::Ready(None) => self.open = false,
                Poll::Pending => break,
            }
        }
        for session in &mut self.sessions {
            session.take_in(&mut poller);
        }
    }

    /// The most urgent job; among equals, whoever has waited longest.
    fn next(&self) -> Option<(usize, Job)> {
        let jobs = self.sessions.iter().enumerate().filter_map(|(index, session)| Some((index, session.job()?)));
        jobs.min_by_key(|(index, job)| (*job, self.sessions[*index].served))
    }

    /// Whoever has stopped speaking waits for an answer, and whoever begins to may want a reply to stop.
    fn urgency(&self, index: usize, job: Job) -> Option<Urgent> {
        match job {
            Job::Last => Some(Urgent::Answer),
            Job::Guess => self.sessions[index].has_just_begun().then_some(Urgent::Interruption),
            Job::Window => None,
        }
    }

    /// Whether to go on with a job of session `index`.
    fn still_wanted(&mut self, listener: &Listener, index: usize, job: Job) -> bool {
        self.take_in(listener);
        let more_urgent = || self.sessions.iter().any(|session| session.job().is_some_and(|other| other < job));
        !self.sessions[index].is_deserted() && (job != Job::Guess || !more_urgent())
    }
}

fn serve(listener: &Listener, room: &mut Room, index: usize, job: Job, name: &Arc<str>) {
    room.served += 1;
    let session = &mut room.sessions[index];
    session.served = room.served;
    if session.is_done() {
        session.finish(name);
        return;
    }
    let (samples, position, context) = (session.window(), session.position(), session.context());
    let begun = Instant::now();
    let room = RefCell::new(room);
    let check = &mut || room.borrow_mut().still_wanted(listener, index, job);
    let outcome = match job {
        Job::Guess => listener.guess(&samples, &context, check).map(|guess| {
            if let Some(guess) = guess {
                room.borrow_mut().sessions[index].guess(guess, begun.elapsed(), samples.len(), name);
            }
        }),
        Job::Last | Job::Window => {
            let early = |window| room.borrow().sessions[index].draft(window, name);
            listener.settle(&samples, position, &context, check, early).map(|window| {
                if let Some(window) = window {
                    log(&window, begun, samples.len());
                    room.borrow_mut().sessions[index].settle(window, name);
                }
            })
        }
    };
    let room = room.into_inner();
    if let Err(error) = outcome {
        tracing::error!(model = &**name, %error, "transcription failed");
        room.sessions[index].fail(ProviderError::Failed { what: name.to_string() });
    } else if job == Job::Last && room.sessions[index].is_done() {
        room.sessions[index].finish(name);
    }
}

fn log(window: &Window, begun: Instant, samples: usize) {
    tracing::debug!(
        took = ?begun.elapsed(),
        samples,
        settled = window.settled,
        tokens = window.tokens,
        no_speech = window.no_speech,
        log_probability = window.mean_log_probability,
        ending = ?window.ending,
        "window heard"
    );
}

//! The task of a call: it takes what the session tells, from its beginning to its end.
//!
//! It never waits for a socket. While nobody is there it takes no audio, so that the reply stands still; what is written
//! goes on into the log. It decides when the call is over: its last client has said goodbye or stays away for too long,
//! the server stops, or a task of the session has failed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::hall::Running;
use super::journal::Journal;
use super::work::Work;
use super::{Call, Ending, Hall, Presence};
use crate::api::House;
use crate::api::wire::Notice;
use crate::api::ws::meter;
use crate::session::event::{Input, Told};
use crate::session::{self, Outbox};
use crate::store::{BudgetReport, Change};

/// Before the end of a drain, and of a call: for what an interruption says and saves.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long the database may take for what is left of the journal when a call ends.
const LAST_PAGES: Duration = Duration::from_secs(5);
/// How often a call that nobody is in looks whether too many others wait, too.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Conducts one call.
pub(in crate::api::ws) struct Conductor {
    call: Arc<Call>,
    outbox: Outbox,
    session: session::Ending,
    house: Arc<House>,
    work: Work,
    journal: Journal,
    presence: watch::Receiver<Presence>,
    /// When a call that nobody is in is looked at.
    grace: Option<Instant>,
    /// Nobody who was in it comes back.
    is_left: bool,
    /// When a drain is over.
    drain: Option<Instant>,
    /// The interruption before that has been asked for.
    is_cut_off: bool,
    warnings: watch::Receiver<Vec<BudgetReport>>,
    warned: Vec<BudgetReport>,
    /// What others do to conversations.
    changes: broadcast::Receiver<Arc<Change>>,
    running: Running,
}

impl Conductor {
    /// The call can be found from now on.
    pub(in crate::api::ws) fn new(
        house: &Arc<House>,
        call: Arc<Call>,
        outbox: Outbox,
        session: session::Ending,
    ) -> Self {
        let mut warnings = house.state.store.warnings();
        let warned = warnings.borrow_and_update().clone();
        Self {
            presence: call.presence.subscribe(),
            running: Hall::add(house, Arc::clone(&call)),
            warned,
            warnings,
            changes: house.state.store.changes(),
            call,
            outbox,
            session,
            house: Arc::clone(house),
            work: Work::default(),
            journal: Journal::after(0),
            grace: None,
            is_left: false,
            drain: None,
            is_cut_off: false,
        }
    }

    /// The same where a session goes on: what was told before is in its journal.
    pub(in crate::api::ws) fn again(
        house: &Arc<House>,
        call: Arc<Call>,
        outbox: Outbox,
        session: session::Ending,
    ) -> Self {
        let journal = Journal::after(call.log.last_seq());
        Self { journal, work: Work::again(), ..Self::new(house, call, outbox, session) }
    }

    pub(in crate::api::ws) async fn run(mut self) {
        self.attend();
        self.journal.touch();
        let mut draining = self.house.draining.clone();
        let ending = loop {
            let (grace, deadline) = (self.grace, self.deadline());
            let ending = tokio::select! {
                told = next(&mut self.outbox, grace.is_none()) => match told {
                    Some(told) => self.take(told),
                    None => Some(Ending::SessionFailed),
                },
                // The sender is the call's own.
                Ok(()) = self.presence.changed() => {
                    self.attend();
                    None
                }
                () = until(grace) => self.wait_on(),
                () = draining.begins(), if self.drain.is_none() => self.drain(),
                () = until(deadline) => self.cut_off(),
                () = self.journal.step(&self.call, &self.house.hall) => None,
                change = self.changes.recv() => self.hear_of(change),
                Some(reports) = warning(&mut self.warnings) => self.warn(reports),
            };
            if let Some(ending) = ending {
                break ending;
            }
        };
        self.end(ending).await;
    }

    fn take(&mut self, told: Told) -> Option<Ending> {
        meter::record(&told.output);
        self.work.note(&told.output);
        self.call.learn(&told.output);
        self.call.log.tell(told);
        self.journal.touch();
        (self.drain.is_some() && !self.work.is_under_way()).then_some(Ending::Draining)
    }

    /// Somebody has come, or all have left.
    fn attend(&mut self) {
        let presence = *self.presence.borrow_and_update();
        self.is_left = presence == Presence::Over;
        if presence == Presence::Attended {
            self.grace = None;
        } else {
            let now = Instant::now();
            self.call.log.settle(now);
            self.grace = Some(now);
        }
    }

    /// Nobody is there. None: the call waits on, or somebody has just come.
    fn wait_on(&mut self) -> Option<Ending> {
        let limits = &self.house.state.limits;
        let since = self.call.attendance().away_since;
        let is_over = self.is_left
            || !self.work.has_begun()
            || self.drain.is_some()
            || since.is_some_and(|since| since.elapsed() >= limits.grace)
            || self.house.hall.is_too_much(&self.call, limits.sessions);
        if is_over && self.call.lock_up() {
            return Some(Ending::Gone);
        }
        self.grace = Some(Instant::now() + LOOK_EVERY.min(limits.grace));
        None
    }

    fn drain(&mut self) -> Option<Ending> {
        self.call.log.announce(Notice::ServerDraining);
        self.journal.touch();
        self.drain = Some(Instant::now() + self.house.state.limits.drain);
        (self.grace.is_some() || !self.work.is_under_way()).then_some(Ending::Draining)
    }

    /// When what is said in a drain is interrupted, and when it ends.
    fn deadline(&self) -> Option<Instant> {
        let end = self.drain?;
        if self.is_cut_off { Some(end) } else { Some(end.checked_sub(LAST_WORDS).unwrap_or_else(Instant::now)) }
    }

    fn cut_off(&mut self) -> Option<Ending> {
        if std::mem::replace(&mut self.is_cut_off, true) {
            return Some(Ending::Draining);
        }
        self.call.ask(Input::Close);
        None
    }

    /// Others have done something to some conversation.
    fn hear_of(&mut self, change: Result<Arc<Change>, RecvError>) -> Option<Ending> {
        let change = change
            .inspect_err(|error| tracing::warn!(%error, "a call may have missed what was done to its conversation"))
            .ok()?;
        let (_, what) = change.done.iter().find(|(id, _)| self.call.is(&change.owner, id))?;
        let ending = self.call.hear_of(what);
        self.journal.touch();
        ending
    }

    /// Tells of every budget that becomes nearly used up.
    fn warn(&mut self, reports: Vec<BudgetReport>) -> Option<Ending> {
        for report in &reports {
            if !self.warned.iter().any(|old| old.period == report.period) {
                self.call.log.announce(Notice::BudgetWarning(report.clone()));
            }
        }
        self.warned = reports;
        self.journal.touch();
        None
    }

    /// Ends what is said, closes the sockets, and sees to it that all is stored.
    async fn end(mut self, ending: Ending) {
        if ending == Ending::SessionFailed {
            tracing::error!("a session ended before its clients did");
        } else if self.work.is_replying() && !self.is_cut_off {
            let _ = timeout(LAST_WORDS, self.last_words()).await;
        }
        self.call.close();
        self.call.log.end(ending);
        let Self { call, outbox, session, house, running, mut journal, .. } = self;
        drop(outbox);
        if timeout(LAST_PAGES, journal.finish(&call, &house.hall)).await.is_err() {
            tracing::error!("a session's last messages are not in its journal");
        }
        session.stored().await;
        house.hall.remove(&call);
        call.has_ended.send_replace(true);
        drop(running);
    }

    /// Interrupts the reply, so that it ends as every reply does.
    async fn last_words(&mut self) {
        self.call.ask(Input::Close);
        while self.work.is_replying()
            && let Some(told) = next(&mut self.outbox, false).await
        {
            self.take(told);
        }
    }
}

/// What the session tells next; no audio, where nobody is there to hear it.
async fn next(outbox: &mut Outbox, is_heard: bool) -> Option<Told> {
    if is_heard { outbox.recv().await } else { outbox.recv_text().await }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// The budgets, when they change. Waits for ever where nobody keeps any.
async fn warning(warnings: &mut watch::Receiver<Vec<BudgetReport>>) -> Option<Vec<BudgetReport>> {
    if warnings.changed().await.is_err() {
        return pending().await;
    }
    Some(warnings.borrow_and_update().clone())
}

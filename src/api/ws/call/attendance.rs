//! Who is in a call, and whose microphone is heard.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Call, Client, Follower, NoEntry, Presence, Seat};
use crate::api::access::{self, Share};
use crate::api::wire::Notice;
use crate::api::ws::{Ending, meter};
use crate::session::event::Output;

/// A microphone that was taken away runs on for a moment: only after such a silence does its client mean to speak again.
const RUNS_ON: Duration = Duration::from_secs(1);

/// A place among the sessions, for as long as somebody is there.
pub(in crate::api::ws) struct Place {
    pub(in crate::api::ws) _seat: access::Seat,
    pub(in crate::api::ws) _open: meter::OpenSession,
}

/// A place among the sockets of a key, where a key is needed.
pub(in crate::api::ws) type Keyed = Option<Share<Arc<str>>>;

/// Who is there.
#[derive(Default)]
pub(super) struct Attendance {
    sockets: HashMap<Client, Socket>,
    /// Of the sockets together.
    place: Option<Arc<Place>>,
    visits: u64,
    /// Whose audio is heard.
    microphone: Option<Client>,
    /// Those whose microphone was taken away.
    replaced: HashSet<Client>,
    /// When each client last sent audio.
    spoke: HashMap<Client, Instant>,
    /// Since when nobody is there.
    pub(super) away_since: Option<Instant>,
    /// Nobody may join any more.
    is_over: bool,
}

struct Socket {
    visit: u64,
    /// Sent when the same client connects again.
    replaced: oneshot::Sender<()>,
    _keyed: Keyed,
}

/// Where a client begins to read.
#[derive(Clone, Copy, Debug)]
pub(in crate::api::ws) enum Entry {
    /// It is the first one.
    First,
    /// It follows along from now on.
    Follow,
    Resume {
        client: Client,
        last_seq: u64,
    },
}

/// A socket's stay in a call. Dropping it leaves.
pub(in crate::api::ws) struct Visit {
    pub(in crate::api::ws) seat: Seat,
    pub(in crate::api::ws) follower: Follower,
    /// The same client has connected again.
    pub(in crate::api::ws) replaced: oneshot::Receiver<()>,
    number: u64,
    place: Arc<Place>,
    ending: Option<Ending>,
}

impl Attendance {
    /// Whether this client's audio is heard now, and who lost the microphone to it.
    pub(super) fn speak(&mut self, client: Client, now: Instant) -> (bool, Option<Client>) {
        let before = self.spoke.insert(client, now);
        if self.microphone == Some(client) {
            return (true, None);
        }
        // Where nobody has it any more it need not be asked for.
        let is_taken = self.microphone.is_some() && self.replaced.contains(&client);
        if is_taken && before.is_some_and(|before| now - before < RUNS_ON) {
            return (false, None);
        }
        self.replaced.remove(&client);
        let loser = self.microphone.replace(client);
        self.replaced.extend(loser);
        (true, loser)
    }

    pub(super) fn is_microphone_elsewhere(&self, client: Client) -> bool {
        self.microphone.is_some_and(|holder| holder != client)
    }

    fn leave(&mut self, client: Client, visit: u64) {
        if self.sockets.get(&client).is_none_or(|socket| socket.visit != visit) {
            return;
        }
        self.sockets.remove(&client);
        self.replaced.remove(&client);
        self.spoke.remove(&client);
        if self.microphone == Some(client) {
            self.microphone = None;
        }
    }

    /// Gives the place back where nobody is there any more.
    fn vacate(&mut self, call: &Call, presence: Presence) {
        if self.sockets.is_empty() && self.place.take().is_some() {
            self.away_since = Some(Instant::now());
            call.presence.send_replace(presence);
        }
    }
}

impl Call {
    /// Whether a socket that joins needs no place of its own.
    pub(in crate::api::ws) fn is_attended(&self) -> bool {
        self.attendance().place.is_some()
    }

    /// Lets a socket in. It needs a `place` where nobody is there, and always one of its key's.
    pub(in crate::api::ws) fn join(
        self: &Arc<Self>,
        entry: Entry,
        greeting: Vec<Notice>,
        place: &mut Option<Place>,
        keyed: impl FnOnce() -> Option<Keyed>,
    ) -> Result<Visit, NoEntry> {
        let mut attendance = self.attendance();
        if attendance.is_over {
            return Err(NoEntry::Over);
        }
        let (client, resumed) = match entry {
            Entry::First | Entry::Follow => (Client::new(), None),
            Entry::Resume { client, last_seq } => {
                if attendance.place.is_some() {
                    self.log.settle(Instant::now());
                }
                (client, Some(self.log.from_seq(client, last_seq).ok_or(NoEntry::Forgotten)?))
            }
        };
        let place = attendance.place.clone().or_else(|| place.take().map(Arc::new)).ok_or(NoEntry::Empty)?;
        // A client's former socket may not know yet that its connection is gone; its place is the client's.
        let former = attendance.sockets.remove(&client).map(|former| former.replaced);
        let Some(keyed) = keyed() else {
            attendance.vacate(self, Presence::Away);
            return Err(NoEntry::KeyFull);
        };
        if let Some(former) = former {
            // It may have left.
            let _ = former.send(());
        }
        attendance.visits += 1;
        let visit = attendance.visits;
        let (replaced, is_replaced) = oneshot::channel();
        attendance.sockets.insert(client, Socket { visit, replaced, _keyed: keyed });
        attendance.place = Some(Arc::clone(&place));
        attendance.away_since = None;
        self.presence.send_replace(Presence::Attended);
        let follower = resumed.unwrap_or_else(|| self.follower(client, entry, greeting));
        let seat = Seat { call: Arc::clone(self), client };
        Ok(Visit { seat, follower, replaced: is_replaced, number: visit, place, ending: None })
    }

    fn follower(&self, client: Client, entry: Entry, greeting: Vec<Notice>) -> Follower {
        let started = Output::SessionStarted(Box::new(self.started())).into();
        if matches!(entry, Entry::First) {
            for notice in greeting {
                self.log.say(client, notice);
            }
            self.log.tell(started);
            return self.log.from_the_start(client);
        }
        self.log.from_now(client, greeting.into_iter().chain([Notice::Told(started)]).collect())
    }

    /// Whether the last one has left. Then nobody may join any more.
    pub(super) fn lock_up(&self) -> bool {
        let mut attendance = self.attendance();
        attendance.is_over |= attendance.sockets.is_empty();
        attendance.is_over
    }

    /// Nobody may join any more.
    pub(super) fn close(&self) {
        self.attendance().is_over = true;
    }
}

impl Visit {
    /// Leaves, and says why. The place may be kept until the socket is closed.
    pub(in crate::api::ws) fn leave(mut self, ending: Ending) -> Arc<Place> {
        self.ending = Some(ending);
        Arc::clone(&self.place)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Seat { call, client } = &self.seat;
        let mut attendance = call.attendance();
        attendance.leave(*client, self.number);
        let is_over = matches!(self.ending, Some(Ending::Done | Ending::AuthEnded));
        attendance.vacate(call, if is_over { Presence::Over } else { Presence::Away });
    }
}

#[cfg(test)]
#[path = "attendance_tests.rs"]
mod tests;

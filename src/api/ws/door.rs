//! How a socket gets into a call: into the one that is there, into a new one, or back into the one that it was in.

use std::sync::Arc;

use axum::extract::ws::WebSocket;
use futures::stream::SplitStream;

use super::call::{self, Call, Client, Conductor, Entry, Keyed, Log, NoEntry, Place, Visit};
use super::writer::Writer;
use super::{Ending, meter, queue};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::wire::{Notice, Protocol, Refusal, Resume};
use crate::provider::task;
use crate::session::{self, Handle, Opening, StartError};
use crate::store::random_secret;

/// Why a socket does not get in, and how it is closed. No refusal: it was told already, or is gone.
type Refused = (Option<Refusal>, Ending);

/// A socket at the door.
pub(super) struct Door<'a> {
    house: &'a Arc<House>,
    asker: &'a Asker,
    stream: &'a mut SplitStream<WebSocket>,
    protocol: Protocol,
    writer: &'a mut Writer,
    /// What it has waited for and not used yet.
    place: Option<Place>,
    keyed: Option<Keyed>,
}

impl<'a> Door<'a> {
    pub(super) const fn new(
        house: &'a Arc<House>,
        asker: &'a Asker,
        (stream, protocol): (&'a mut SplitStream<WebSocket>, Protocol),
        writer: &'a mut Writer,
    ) -> Self {
        Self { house, asker, stream, protocol, writer, place: None, keyed: None }
    }

    /// Goes on where a client was, or begins anew.
    pub(super) async fn come_back(mut self, opening: Opening) -> Result<Visit, Refused> {
        let wanted = call::wanted(self.stream, self.writer, &self.house.state.limits).await;
        let (resume, reference) = wanted.map_err(|ending| (None, ending))?;
        check_open(self.house)?;
        if let Some(visit) = self.resumed(&resume, &opening).await? {
            self.writer.join(&visit.seat);
            let answer = Notice::Resumed { from_seq: resume.last_seq + 1, reference };
            self.writer.send(&answer, None).await.map_err(|ending| (None, ending))?;
            return Ok(visit);
        }
        self.enter(opening, vec![Notice::ResyncRequired { reference }]).await
    }

    /// Joins the call on a conversation, or begins one. `greeting` goes before everything else.
    pub(super) async fn enter(mut self, opening: Opening, greeting: Vec<Notice>) -> Result<Visit, Refused> {
        check_open(self.house)?;
        let house = Arc::clone(self.house);
        let owner = self.asker.rows.owner();
        let there = || opening.conversation_id.as_ref().and_then(|id| house.hall.on(owner, id));
        loop {
            self.take_keyed()?;
            if !there().is_some_and(|call| call.is_attended()) {
                self.take_place().await?;
            }
            // Two sockets never open the same conversation at once.
            let gate = if opening.conversation_id.is_some() { Some(house.hall.gate().await) } else { None };
            let Some(call) = there() else {
                if self.place.is_some() {
                    return self.begin(opening, greeting).await;
                }
                continue;
            };
            match self.join(&call, Entry::Follow, greeting.clone()) {
                Ok(visit) => return Ok(visit),
                Err(NoEntry::KeyFull) => return Err(self.key_full()),
                Err(NoEntry::Over | NoEntry::Forgotten) => {
                    // It ends: what was heard in it is stored before the next one begins.
                    drop(gate);
                    call.ended().await;
                }
                // All have left meanwhile.
                Err(NoEntry::Empty) => {}
            }
        }
    }

    /// None: there is nothing to go on with.
    async fn resumed(&mut self, resume: &Resume, opening: &Opening) -> Result<Option<Visit>, Refused> {
        let Resume { session_id, resume_token, last_seq } = resume;
        let house = Arc::clone(self.house);
        let owner = self.asker.rows.owner();
        let there = || house.hall.find(owner, session_id, resume_token);
        let entry = |client: Client| Entry::Resume { client, last_seq: *last_seq };
        loop {
            if !there().is_some_and(|(call, _)| call.is_attended()) {
                self.take_place().await?;
            }
            let gate = house.hall.gate().await;
            let Some((call, client)) = there() else {
                if self.place.is_none() {
                    continue;
                }
                self.take_keyed()?;
                let recalled = call::recall(&house, self.asker, resume, opening).await;
                let Some((call, client, conductor)) = recalled.map_err(|error| refuse(&error))? else {
                    return Ok(None);
                };
                let visit = self.join(&call, entry(client), Vec::new());
                tokio::spawn(task::named("call", conductor.run()));
                return visit.map(Some).map_err(|_| failed());
            };
            match self.join(&call, entry(client), Vec::new()) {
                Ok(visit) => return Ok(Some(visit)),
                Err(NoEntry::KeyFull) => return Err(self.key_full()),
                Err(NoEntry::Forgotten) => return Ok(None),
                Err(NoEntry::Over) => {
                    // It ends, and goes on from its journal.
                    drop(gate);
                    call.ended().await;
                }
                Err(NoEntry::Empty) => {}
            }
        }
    }

    async fn begin(&mut self, opening: Opening, greeting: Vec<Notice>) -> Result<Visit, Refused> {
        let (house, asker) = (self.house, self.asker);
        let handle = session::start(asker.quiet_parts(house), opening).await.map_err(|error| refuse(&error))?;
        let secret = random_secret().map_err(|error| {
            tracing::error!(%error, "a session has no secret");
            failed()
        })?;
        let Handle { inbox, mut outbox, ending } = handle;
        let scene = Call::scene(&mut outbox).await.ok_or_else(failed)?;
        let log = Log::new(house.state.limits.bounds.outbound);
        let call = Call::new(asker.rows.owner().into(), scene, secret, log, inbox);
        let conductor = Conductor::new(house, Arc::clone(&call), outbox, ending);
        let visit = self.join(&call, Entry::First, greeting).map_err(|_| failed());
        tokio::spawn(task::named("call", conductor.run()));
        visit
    }

    fn join(&mut self, call: &Arc<Call>, entry: Entry, greeting: Vec<Notice>) -> Result<Visit, NoEntry> {
        let Self { house, asker, place, keyed, .. } = self;
        call.join(entry, greeting, place, || keyed.take().or_else(|| key_place(house, asker)))
    }

    /// A place among the sockets of the key.
    fn take_keyed(&mut self) -> Result<(), Refused> {
        if self.keyed.is_none() {
            self.keyed = key_place(self.house, self.asker);
        }
        if self.keyed.is_some() { Ok(()) } else { Err(self.key_full()) }
    }

    /// A place among the sessions. It may have to be waited for.
    async fn take_place(&mut self) -> Result<(), Refused> {
        if self.place.is_some() {
            return Ok(());
        }
        let seats = &self.house.seats;
        let seat = if let Some(seat) = seats.try_seat() {
            seat
        } else if let Some(place) = seats.queue_up() {
            let incoming = (&mut *self.stream, self.protocol);
            let seated = queue::seat(self.house, &self.asker.identity, place, incoming, self.writer).await;
            seated.map_err(|ending| (None, ending))?
        } else {
            let (limit, seconds) = (self.house.state.limits.sessions, seats.last().wait.as_secs().max(1));
            return Err(full(format!("all {limit} sessions are taken; try again in {seconds} s")));
        };
        self.place = Some(Place { _seat: seat, _open: meter::OpenSession::new() });
        Ok(())
    }

    fn key_full(&self) -> Refused {
        let limit = self.house.state.limits.sessions_per_key;
        full(format!("all {limit} sessions of this key are taken; end one first"))
    }
}

fn check_open(house: &House) -> Result<(), Refused> {
    if !house.draining.has_begun() {
        return Ok(());
    }
    let refusal = Refusal::new("session_limit_reached", "the server is shutting down").retryable();
    Err((Some(refusal), Ending::Draining))
}

fn key_place(house: &House, asker: &Asker) -> Option<Keyed> {
    let Some(proof) = &asker.identity.proof else { return Some(None) };
    house.entrance.seats.take(Arc::clone(&proof.key), house.state.limits.sessions_per_key).map(Some)
}

fn full(message: String) -> Refused {
    (Some(Refusal::new("session_limit_reached", message).retryable()), Ending::Overloaded)
}

fn failed() -> Refused {
    (Some(Refusal::new("internal", "the session could not begin; try again").retryable()), Ending::Overloaded)
}

fn refuse(error: &StartError) -> Refused {
    let message = error.to_string();
    let (refusal, ending) = match error {
        StartError::ConversationNotFound(_) => (Refusal::new("conversation_not_found", message), Ending::NotFound),
        StartError::CharacterNotFound(_) | StartError::NoCharacter(_) => {
            (Refusal::new("character_not_found", message), Ending::NotFound)
        }
        StartError::Records(_) => (Refusal::new("internal", message).retryable(), Ending::Overloaded),
    };
    (Some(refusal), ending)
}

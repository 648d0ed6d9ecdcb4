//! How a socket gets into a call: into the one that is there, into a new one, or back into the one that it was in.

use std::sync::Arc;

use axum::extract::ws::WebSocket;
use futures::stream::SplitStream;

use super::call::{self, Call, Conductor, Entry, Keyed, Log, NoEntry, Place, Visit};
use super::writer::Writer;
use super::{Ending, meter};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::wire::{Notice, Refusal, Resume};
use crate::provider::task;
use crate::session::{self, Handle, Opening, StartError};
use crate::store::random_secret;

/// Why a socket does not get in, and how it is closed.
type Refused = (Refusal, Ending);

/// Joins the call on a conversation, or begins one. `greeting` goes before everything else.
pub(super) async fn enter(
    house: &Arc<House>,
    asker: &Asker,
    opening: Opening,
    greeting: Vec<Notice>,
) -> Result<Visit, Refused> {
    check_open(house)?;
    // Two sockets never open the same conversation at once.
    let _gate = if opening.conversation_id.is_some() { Some(house.hall.gate().await) } else { None };
    let there = opening.conversation_id.as_ref().and_then(|id| house.hall.on(asker.rows.owner(), id));
    if let Some(call) = there {
        match join(house, asker, &call, Entry::Follow, greeting.clone()).await? {
            Some(visit) => return Ok(visit),
            // It ends: what was heard in it is stored before the next one begins.
            None => call.ended().await,
        }
    }
    begin(house, asker, opening, greeting).await
}

/// Goes on where a client was, or begins anew. An error without a refusal: the client said nothing that could be answered.
pub(super) async fn come_back(
    house: &Arc<House>,
    asker: &Asker,
    opening: Opening,
    (stream, writer): (&mut SplitStream<WebSocket>, &mut Writer),
) -> Result<Visit, (Option<Refusal>, Ending)> {
    let (resume, reference) =
        call::wanted(stream, writer, &house.state.limits).await.map_err(|ending| (None, ending))?;
    let some = |(refusal, ending): Refused| (Some(refusal), ending);
    check_open(house).map_err(some)?;
    if let Some(visit) = resumed(house, asker, &resume, &opening).await.map_err(some)? {
        writer.join(&visit.seat);
        let answer = Notice::Resumed { from_seq: resume.last_seq + 1, reference };
        writer.send(&answer, None).await.map_err(|ending| (None, ending))?;
        return Ok(visit);
    }
    enter(house, asker, opening, vec![Notice::ResyncRequired { reference }]).await.map_err(some)
}

/// None: there is nothing to go on with.
async fn resumed(
    house: &Arc<House>,
    asker: &Asker,
    resume: &Resume,
    opening: &Opening,
) -> Result<Option<Visit>, Refused> {
    let Resume { session_id, resume_token, last_seq } = resume;
    let entry = |client| Entry::Resume { client, last_seq: *last_seq };
    let _gate = house.hall.gate().await;
    if let Some((call, client)) = house.hall.find(asker.rows.owner(), session_id, resume_token) {
        if let Some(visit) = join(house, asker, &call, entry(client), Vec::new()).await? {
            return Ok(Some(visit));
        }
        if call.is_open() {
            return Ok(None);
        }
        // It ends, and goes on from its journal.
        call.ended().await;
    }
    let place = place(house)?;
    let keyed = keyed(house, asker).ok_or_else(|| full(house.state.limits.sessions_per_key))?;
    let recalled = call::recall(house, asker, resume, opening).await.map_err(|error| refuse(&error))?;
    let Some((call, client, conductor)) = recalled else { return Ok(None) };
    let visit = call.join(entry(client), Vec::new(), Some(place), || Some(keyed));
    tokio::spawn(task::named("call", conductor.run()));
    visit.map(Some).map_err(|_| failed())
}

/// None: the call is over, or does not go back so far.
async fn join(
    house: &Arc<House>,
    asker: &Asker,
    call: &Arc<Call>,
    entry: Entry,
    greeting: Vec<Notice>,
) -> Result<Option<Visit>, Refused> {
    loop {
        let place = if call.is_attended() { None } else { Some(place(house)?) };
        return match call.join(entry, greeting.clone(), place, || keyed(house, asker)) {
            Ok(visit) => Ok(Some(visit)),
            Err(NoEntry::Over | NoEntry::Forgotten) => Ok(None),
            Err(NoEntry::KeyFull) => Err(full(house.state.limits.sessions_per_key)),
            // All have left meanwhile.
            Err(NoEntry::Empty) => continue,
        };
    }
}

async fn begin(house: &Arc<House>, asker: &Asker, opening: Opening, greeting: Vec<Notice>) -> Result<Visit, Refused> {
    let place = place(house)?;
    let keyed = keyed(house, asker).ok_or_else(|| full(house.state.limits.sessions_per_key))?;
    let handle = session::start(asker.quiet_parts(house), opening).await.map_err(|error| refuse(&error))?;
    let secret = random_secret().map_err(|error| {
        tracing::error!(%error, "a session has no secret");
        failed()
    })?;
    let Handle { inbox, mut outbox, ending } = handle;
    let scene = Call::scene(&mut outbox).await.ok_or_else(failed)?;
    let call = Call::new(asker.rows.owner().into(), scene, secret, Log::new(), inbox);
    let conductor = Conductor::new(house, Arc::clone(&call), outbox, ending);
    let visit = call.join(Entry::First, greeting, Some(place), || Some(keyed)).map_err(|_| failed());
    tokio::spawn(task::named("call", conductor.run()));
    visit
}

fn check_open(house: &House) -> Result<(), Refused> {
    if !house.draining.has_begun() {
        return Ok(());
    }
    let refusal = Refusal::new("session_limit_reached", "the server is shutting down").retryable();
    Err((refusal, Ending::Draining))
}

/// A place among the sessions.
fn place(house: &House) -> Result<Place, Refused> {
    let permit = Arc::clone(&house.sessions).try_acquire_owned().map_err(|_| full(house.state.limits.sessions))?;
    Ok(Place { _permit: permit, _open: meter::OpenSession::new() })
}

/// A place among the sockets of a key.
fn keyed(house: &House, asker: &Asker) -> Option<Keyed> {
    let Some(proof) = &asker.identity.proof else { return Some(None) };
    house.entrance.seats.take(Arc::clone(&proof.key), house.state.limits.sessions_per_key).map(Some)
}

fn full(limit: usize) -> Refused {
    let message = format!("all {limit} sessions are taken; try again later");
    (Refusal::new("session_limit_reached", message).retryable(), Ending::Overloaded)
}

fn failed() -> Refused {
    (Refusal::new("internal", "the session could not begin; try again").retryable(), Ending::Overloaded)
}

fn refuse(error: &StartError) -> Refused {
    let message = error.to_string();
    match error {
        StartError::ConversationNotFound(_) => (Refusal::new("conversation_not_found", message), Ending::NotFound),
        StartError::CharacterNotFound(_) | StartError::NoCharacter(_) => {
            (Refusal::new("character_not_found", message), Ending::NotFound)
        }
        StartError::Records(_) => (Refusal::new("internal", message).retryable(), Ending::Overloaded),
    }
}

//! A socket that waits for its session: told where it stands, heard only as far as it must be.

use std::time::Duration;

use axum::extract::ws::WebSocket;
use futures::stream::SplitStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::reader::{Listener, Reader};
use super::writer::Writer;
use super::{ANSWERS, Ending};
use crate::api::House;
use crate::api::access::{Identity, Place, Seat, Standing};
use crate::api::wire::{Notice, Protocol, Refusal};
use crate::session::event::{Input, Request};

/// Who waits is told so at least so often.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// Waits for a seat.
///
/// # Errors
/// Why the socket ends before it has one.
pub(super) async fn seat(
    house: &House,
    identity: &Identity,
    place: Place,
    incoming: (&mut SplitStream<WebSocket>, Protocol),
    writer: &mut Writer,
) -> Result<Seat, Ending> {
    let (say, mut notices) = mpsc::channel(ANSWERS);
    let (inbox, mut requests) = mpsc::channel(1);
    let mut draining = house.draining.clone();
    let mut reader = Reader::new(incoming, Listener::Queue(inbox), say, draining.clone(), &house.state.limits);
    let ended = house.entrance.keys.ended(identity);
    let read = reader.run();
    tokio::pin!(ended, read);
    let mut tell = interval_at(Instant::now(), TELL_EVERY);
    tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ping = interval_at(Instant::now() + house.state.limits.ping_every, house.state.limits.ping_every);
    let mut moves = place.moves();
    let mut told = None;
    loop {
        tokio::select! {
            seat = place.seat() => return Ok(seat),
            ending = &mut read => {
                while let Ok(notice) = notices.try_recv() {
                    writer.send(&notice, None).await?;
                }
                return Err(ending);
            }
            () = &mut ended => return Err(Ending::AuthEnded),
            () = draining.begins() => return Err(Ending::Draining),
            Some(notice) = notices.recv() => writer.send(&notice, None).await?,
            Some(request) = requests.recv() => refuse(request, writer).await?,
            _ = ping.tick() => writer.ping().await?,
            _ = tell.tick() => told = Some(announce(place.standing(), writer).await?),
            Ok(()) = moves.changed() => {
                let standing = place.standing();
                if told.is_none_or(|told: Standing| told.position != standing.position) {
                    told = Some(announce(standing, writer).await?);
                }
            }
        }
    }
}

async fn announce(standing: Standing, writer: &mut Writer) -> Result<Standing, Ending> {
    writer.send(&Notice::QueuePosition(standing), None).await?;
    Ok(standing)
}

/// What needs a session is refused; a microphone that is open already is only not heard.
async fn refuse(request: Request, writer: &mut Writer) -> Result<(), Ending> {
    if matches!(request.input, Input::Audio(_)) {
        return Ok(());
    }
    let refusal = Refusal::new("session_limit_reached", "this socket still waits for its session; see queue_position");
    writer.send(&Notice::Refused(refusal.retryable().to(request.reference)), None).await
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;

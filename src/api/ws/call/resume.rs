//! Coming back: the first message of a socket that was opened with `resume=1`.

use axum::extract::ws::{Message, WebSocket};
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::time::{Instant, timeout_at};

use crate::api::Limits;
use crate::api::wire::{self, ClientMessage, Inbound, Notice, Refusal, Resume};
use crate::api::ws::Ending;
use crate::api::ws::writer::Writer;

/// Waits for it, and for its `ref`. Whatever else comes before it is refused.
pub(in crate::api::ws) async fn wanted(
    stream: &mut SplitStream<WebSocket>,
    writer: &mut Writer,
    limits: &Limits,
) -> Result<(Resume, Option<String>), Ending> {
    let deadline = Instant::now() + limits.header_timeout;
    loop {
        let message = match timeout_at(deadline, stream.next()).await {
            Err(_) => return Err(Ending::Silent),
            Ok(None | Some(Ok(Message::Close(_)))) => return Err(Ending::Gone),
            Ok(Some(Err(_))) => return Err(Ending::Unreadable),
            Ok(Some(Ok(Message::Ping(_) | Message::Pong(_)))) => continue,
            Ok(Some(Ok(Message::Text(text)))) => wire::read(&text),
            Ok(Some(Ok(Message::Binary(_)))) => Err(not_yet()),
        };
        let answer = match message {
            Ok(Inbound { message: ClientMessage::Resume(resume), reference }) => return Ok((resume, reference)),
            Ok(Inbound { message: ClientMessage::Ping, reference }) => Notice::Pong { reference },
            Ok(Inbound { reference, .. }) => Notice::Refused(not_yet().to(reference)),
            Err(refusal) => Notice::Refused(refusal),
        };
        writer.send(&answer, None).await?;
    }
}

fn not_yet() -> Refusal {
    Refusal::new("bad_field", "type: a socket that was opened with resume=1 begins with \"resume\"")
}

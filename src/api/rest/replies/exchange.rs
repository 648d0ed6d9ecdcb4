//! One request for replies: a session of its own that is asked one thing, and what it tells, in the order of the
//! contract.
//!
//! A message is told when it is stored; what comes meanwhile waits. A client that goes away ends the session, which
//! stores what was said so far like any interrupted reply. After the last event the session lives on for a moment, for
//! the conversation's title.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::sse::Event;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::busy::{Next, Pass};
use super::event::{Delta, Done, Told};
use crate::api::access::Share;
use crate::api::problem::Problem;
use crate::api::wire::Packer;
use crate::api::{Draining, House};
use crate::provider::Role;
use crate::session::event::{AudioPiece, Complaint, ErrorCode, Input, Output, Request};
use crate::session::record::{MessageStatus, RecordError};
use crate::session::settings::{SettingsPatch, TurnTaking};
use crate::session::{Handle, Outbox};
use crate::store::Owned;

/// Events that may wait for a client; then its session waits.
pub(super) const EVENTS: usize = 8;
/// Before the end of a drain, for what the end of a session has to store.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// A title that takes longer is left to the next session.
const LONGEST_TITLE: Duration = Duration::from_secs(30);

/// A session and its client.
pub(super) struct Exchange {
    pub(super) house: Arc<House>,
    pub(super) rows: Owned,
    pub(super) conversation_id: String,
    pub(super) events: mpsc::Sender<Event>,
    /// Told once: whether the request was taken.
    pub(super) taken: Option<oneshot::Sender<Result<(), Problem>>>,
    pub(super) pass: Pass,
    /// Among all sessions, and among those of the key.
    pub(super) seat: (OwnedSemaphorePermit, Option<Share<Arc<str>>>),
    pub(super) packer: Packer,
}

impl Progress {
    /// Whether this is why the request was not taken. What is written again has an id before it is taken.
    fn is_refused(&self, complaint: &Complaint) -> bool {
        let is_unknown = matches!(complaint.code, ErrorCode::ItemNotFound | ErrorCode::CharacterNotFound);
        complaint.item_id.is_none() || self.is_again && is_unknown
    }
}

/// Nobody reads on, or the request was refused.
struct Gone;

/// What has to be stored before anything else is told.
enum Awaited {
    Users,
    Reply(String),
}

/// How far the exchange is.
#[derive(Default)]
struct Progress {
    awaited: Option<Awaited>,
    held: VecDeque<Output>,
    /// Replies that failed.
    failed: Vec<String>,
    /// What fails stands as it was: it is not stored.
    is_again: bool,
    awaits_title: bool,
    /// Nobody has the floor any more.
    is_over: bool,
    /// Why the request was not taken.
    refusal: Option<Problem>,
}

impl Exchange {
    /// Asks, tells all that comes of it, and sees to it that it is stored.
    pub(super) async fn run(mut self, handle: Handle, input: Input) {
        let Handle { inbox, mut outbox, ending } = handle;
        let mut progress = Progress {
            awaited: matches!(input, Input::Text { .. }).then_some(Awaited::Users),
            is_again: matches!(input, Input::Regenerate { .. }),
            ..Progress::default()
        };
        let cut_off = cut_off(self.house.draining.clone(), self.house.state.limits.drain);
        let told = tokio::select! {
            told = self.tell_all(&inbox, &mut outbox, &mut progress, input) => told,
            () = cut_off => Err(Gone),
        };
        let Self { house, conversation_id, events, taken, pass, seat, .. } = self;
        if told.is_err() {
            drop((inbox, outbox, events));
            ending.stored().await;
            drop((pass, seat));
            // Who is refused may ask again.
            if let (Some(taken), Some(problem)) = (taken, progress.refusal) {
                let _ = taken.send(Err(problem));
            }
            return;
        }
        // Whoever reads `done` may ask again.
        let next = pass.leave();
        drop(seat);
        if let Some(event) = Told::Done(Done { conversation_id }).event() {
            // A client that is gone has seen the last message.
            let _ = events.send(event).await;
        }
        drop(events);
        if let (true, Some(next)) = (progress.awaits_title, next) {
            wait_for_title(&house, &mut outbox, next).await;
        }
        drop((inbox, outbox));
        ending.stored().await;
    }

    async fn tell_all(
        &mut self,
        inbox: &mpsc::Sender<Request>,
        outbox: &mut Outbox,
        progress: &mut Progress,
        input: Input,
    ) -> Result<(), Gone> {
        let mut input = Some(input);
        loop {
            let held = if progress.awaited.is_none() { progress.held.pop_front() } else { None };
            let output = match held {
                Some(held) => held,
                None if progress.is_over && progress.awaited.is_none() => return Ok(()),
                None => tokio::select! {
                    told = outbox.recv() => told.ok_or(Gone)?.output,
                    () = self.events.closed() => return Err(Gone),
                },
            };
            if let Output::SessionStarted(started) = &output {
                progress.awaits_title = started.awaits_title;
                if started.settings.turn_taking == TurnTaking::Manual {
                    // Nobody is there to say who speaks.
                    let turn_taking = Some(TurnTaking::Natural);
                    let patch = SettingsPatch { turn_taking, ..SettingsPatch::default() };
                    inbox.send(Input::Settings(patch).into()).await.map_err(|_| Gone)?;
                }
                if let Some(input) = input.take() {
                    inbox.send(input.into()).await.map_err(|_| Gone)?;
                }
                continue;
            }
            self.take(progress, output).await?;
        }
    }

    async fn take(&mut self, progress: &mut Progress, output: Output) -> Result<(), Gone> {
        match (&progress.awaited, &output) {
            (Some(Awaited::Users), Output::MessageSaved { message_id, role: Role::User, .. }) => {
                progress.awaited = None;
                self.accept();
                self.tell_message(message_id).await
            }
            (Some(Awaited::Users), Output::Error(complaint)) if is_refusal(complaint) => {
                progress.refusal = Some(problem_of(complaint));
                Err(Gone)
            }
            (Some(Awaited::Reply(item_id)), Output::MessageSaved { message_id, status, .. })
                if item_id == message_id && is_final(*status) =>
            {
                let id = message_id.clone();
                progress.awaited = None;
                self.tell_message(&id).await
            }
            (Some(Awaited::Reply(item_id)), Output::Error(complaint))
                if is_storage(complaint) && complaint.item_id.as_ref() == Some(item_id) =>
            {
                progress.awaited = None;
                self.send(&Told::complaint(complaint)).await
            }
            (Some(_), Output::MessageSaved { .. }) => Ok(()),
            (Some(_), _) => {
                progress.held.push_back(output);
                Ok(())
            }
            (None, _) => self.tell(progress, &output).await,
        }
    }

    async fn tell(&mut self, progress: &mut Progress, output: &Output) -> Result<(), Gone> {
        match output {
            Output::Error(complaint) if self.taken.is_some() && progress.is_refused(complaint) => {
                progress.refusal = Some(problem_of(complaint));
                Err(Gone)
            }
            Output::Error(complaint) => {
                self.accept();
                if !is_storage(complaint) {
                    progress.failed.extend(complaint.item_id.clone());
                }
                self.send(&Told::complaint(complaint)).await
            }
            Output::SpeakerChanged { character_id: Some(_) } => {
                self.accept();
                Ok(())
            }
            Output::SpeakerChanged { character_id: None } => {
                progress.is_over = true;
                Ok(())
            }
            Output::TextChunk { character_id, item_id, text, .. } => {
                self.send(&Told::Delta(Delta { character_id, item_id, text })).await
            }
            Output::Audio(piece) => self.sound(piece).await,
            Output::TurnComplete(report) => {
                if !(progress.is_again && progress.failed.contains(&report.item_id)) {
                    progress.awaited = Some(Awaited::Reply(report.item_id.clone()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn sound(&mut self, piece: &AudioPiece) -> Result<(), Gone> {
        let chunks = self.packer.pack(piece).unwrap_or_else(|error| {
            tracing::error!(%error, "a piece of a reply's sound could not be packed");
            Vec::new()
        });
        for chunk in &chunks {
            self.send(&Told::audio(piece, chunk)).await?;
        }
        Ok(())
    }

    async fn tell_message(&mut self, id: &str) -> Result<(), Gone> {
        match self.rows.message(id).await {
            Ok(stored) => self.send(&Told::message(stored)).await,
            Err(RecordError::NotFound { .. }) => {
                self.send(&Told::fault("not_found", "the message was deleted meanwhile")).await
            }
            Err(error) => self.send(&Told::fault("internal", &error.to_string())).await,
        }
    }

    async fn send(&mut self, told: &Told<'_>) -> Result<(), Gone> {
        match told.event() {
            Some(event) => self.events.send(event).await.map_err(|_| Gone),
            None => Ok(()),
        }
    }

    fn accept(&mut self) {
        if let Some(taken) = self.taken.take() {
            // Whoever asked may be gone.
            let _ = taken.send(Ok(()));
        }
    }
}

/// Of the user's message, not of a reply to it, which has an id that is not known yet.
fn is_refusal(complaint: &Complaint) -> bool {
    complaint.item_id.is_none() || is_storage(complaint)
}

fn is_storage(complaint: &Complaint) -> bool {
    matches!(complaint.code, ErrorCode::Internal | ErrorCode::StorageFull)
}

fn is_final(status: MessageStatus) -> bool {
    matches!(status, MessageStatus::Completed | MessageStatus::Failed)
}

fn problem_of(complaint: &Complaint) -> Problem {
    let message = complaint.message.clone();
    match complaint.code {
        ErrorCode::BadField | ErrorCode::LanguageUnsupported => {
            Problem::new(StatusCode::BAD_REQUEST, complaint.code.as_str(), message)
        }
        ErrorCode::ItemNotFound | ErrorCode::CharacterNotFound => {
            Problem::new(StatusCode::NOT_FOUND, complaint.code.as_str(), message)
        }
        ErrorCode::StorageFull => Problem::new(StatusCode::INSUFFICIENT_STORAGE, complaint.code.as_str(), message),
        _ => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, complaint.code.as_str(), message),
    }
}

/// Waits until a drain is nearly over.
async fn cut_off(mut draining: Draining, drain: Duration) {
    draining.begins().await;
    sleep(drain.saturating_sub(LAST_WORDS)).await;
}

/// Waits until the conversation has its title, or until there is a reason not to.
async fn wait_for_title(house: &House, outbox: &mut Outbox, next: Next) {
    // Those beyond it keep the title that they have.
    let Ok(_place) = house.titling.try_acquire() else { return };
    let titled = async {
        while let Some(told) = outbox.recv().await {
            if matches!(told.output, Output::Titled { is_final: true, .. }) {
                return;
            }
        }
    };
    let mut draining = house.draining.clone();
    tokio::select! {
        // Whether it came does not matter.
        _ = timeout(LONGEST_TITLE, titled) => {}
        () = next.entered() => {}
        () = draining.begins() => {}
    }
}

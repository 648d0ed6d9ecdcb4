//! What is on its way to the records, one at a time and in order: a later state never goes before an earlier one, and a
//! recording not before its message.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::machine::{Effect, Event, Save};
use super::record::{Recording, Records};

/// Errands that may wait for the records. When they are so many, everything waits: better slow than forgotten.
const UNSAVED: usize = 64;

/// Something for the records to do.
pub(super) enum Errand {
    Message(Box<Save>),
    Forget { message_id: String },
    Recording { message_id: String, sound: Box<Recording> },
    Title { title: String, instead_of: String },
}

impl Errand {
    /// # Errors
    /// The effect, where it is none for the records.
    #[expect(clippy::result_large_err, reason = "no failure: the caller goes on with it at once")]
    pub(super) fn of(effect: Effect) -> Result<Self, Effect> {
        match effect {
            Effect::Save(save) => Ok(Self::Message(save)),
            Effect::Forget { message_id } => Ok(Self::Forget { message_id }),
            Effect::Record { message_id, sound } => Ok(Self::Recording { message_id, sound }),
            Effect::Title { title, instead_of } => Ok(Self::Title { title, instead_of }),
            other => Err(other),
        }
    }
}

/// Does one errand after the other.
pub(super) struct Saves {
    records: Arc<dyn Records>,
    conversation_id: String,
    waiting: VecDeque<Errand>,
    saving: Option<BoxFuture<'static, Option<Event>>>,
}

impl Saves {
    pub(super) fn new(records: Arc<dyn Records>, conversation_id: String) -> Self {
        Self { records, conversation_id, waiting: VecDeque::new(), saving: None }
    }

    pub(super) fn push(&mut self, errand: Errand) {
        self.waiting.push_back(errand);
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= UNSAVED
    }

    /// The next thing that came of an errand. Waits for ever where there is none. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.one().await {
                return event;
            }
        }
    }

    /// Does what is left.
    pub(super) async fn finish(&mut self) {
        while self.saving.is_some() || !self.waiting.is_empty() {
            match self.one().await {
                Some(Event::Stored { save, outcome: Err(error) }) => {
                    tracing::error!(%error, message = save.message.id, "a message was not stored");
                }
                Some(Event::Titled { outcome: Err(error), .. }) => tracing::warn!(%error, "a title was not stored"),
                _ => {}
            }
        }
    }

    async fn one(&mut self) -> Option<Event> {
        if self.saving.is_none()
            && let Some(errand) = self.waiting.pop_front()
        {
            self.saving = Some(self.begin(errand));
        }
        let Some(saving) = &mut self.saving else { return pending().await };
        let event = saving.await;
        self.saving = None;
        event
    }

    fn begin(&self, errand: Errand) -> BoxFuture<'static, Option<Event>> {
        let conversation_id = self.conversation_id.clone();
        match errand {
            Errand::Message(save) => {
                let saving = self.records.save_message(save.message.clone());
                saving.map(|outcome| Some(Event::Stored { save, outcome })).boxed()
            }
            Errand::Forget { message_id } => {
                let forgetting = self.records.forget_message(conversation_id, message_id);
                forgetting.map(|outcome| told(outcome, "a reply that came to nothing was not removed")).boxed()
            }
            Errand::Recording { message_id, sound } => {
                let keeping = self.records.save_recording(message_id, *sound);
                keeping.map(|outcome| told(outcome, "a recording was not stored")).boxed()
            }
            Errand::Title { title, instead_of } => {
                let naming = self.records.title_conversation(conversation_id, title.clone(), instead_of.clone());
                naming.map(|outcome| Some(Event::Titled { title, instead_of, outcome })).boxed()
            }
        }
    }
}

/// Nobody waits for this.
fn told(outcome: Result<(), super::record::RecordError>, failure: &'static str) -> Option<Event> {
    if let Err(error) = outcome {
        tracing::error!(%error, failure);
    }
    None
}

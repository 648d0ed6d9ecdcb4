//! A call's log on its way into the database, beside everything else: nothing that is heard waits for it.
//!
//! A call writes what is new of its log as one page, a few times a second at most; the hall writes the pages of all calls
//! together, since each commit waits for the disk.

use std::future::pending;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::playback::Heard;
use super::{Call, Hall, recall};
use crate::api::wire;
use crate::session::settings::OutputKind;
use crate::store::{JournalPage, Store, digest};

/// What a kill may lose of what nobody has read yet.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// Pages of other calls that come so soon are written together.
const GATHER: Duration = Duration::from_millis(20);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks for sessions that were left alone.
const SWEEP_EVERY: Duration = Duration::from_hours(1);

/// What of a session is not told in its messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// What its clients have set.
    pub settings: Map<String, Value>,
    pub character_ids: Vec<String>,
    /// Replies are only written: whatever was told was read.
    pub is_read: bool,
    pub heard: Option<HeardState>,
}

/// What was heard of the reply that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeardState {
    pub item_id: String,
    pub sentence: u64,
    pub end_ms: u64,
}

impl From<Heard> for HeardState {
    fn from(heard: Heard) -> Self {
        let end_ms = u64::try_from(heard.end.as_millis()).unwrap_or(u64::MAX);
        Self { item_id: heard.item_id, sentence: heard.sentence, end_ms }
    }
}

impl State {
    pub(super) fn of(call: &Call) -> Self {
        let (settings, heard) = (call.changed_settings(), call.log.heard(Instant::now()).map(HeardState::from));
        let scene = call.scene_now();
        let character_ids = scene.characters.iter().map(|character| character.id.clone()).collect();
        Self { settings, character_ids, is_read: scene.settings.output == OutputKind::Text, heard }
    }
}

/// How far the journal of one call is.
pub(super) struct Journal {
    /// The last number that is written.
    written: u64,
    state: State,
    due: Option<Instant>,
    writing: Option<Writing>,
}

struct Writing {
    last_seq: u64,
    state: State,
    outcome: oneshot::Receiver<bool>,
}

impl Journal {
    pub(super) fn after(written: u64) -> Self {
        Self { written, state: State::default(), due: None, writing: None }
    }

    /// Something may be new.
    pub(super) fn touch(&mut self) {
        self.due.get_or_insert_with(|| Instant::now() + WRITE_EVERY);
    }

    /// Writes what is new when it is time, and takes note that it is written. Waits for ever where nothing is new.
    /// Dropping the future loses nothing.
    pub(super) async fn step(&mut self, call: &Call, hall: &Hall) {
        if let Some(writing) = &mut self.writing {
            let is_written = (&mut writing.outcome).await.unwrap_or(false);
            let Some(writing) = self.writing.take() else { return };
            if is_written {
                (self.written, self.state) = (writing.last_seq, writing.state);
            } else {
                self.due = Some(Instant::now() + RETRY);
            }
            return;
        }
        let Some(due) = self.due else { return pending().await };
        sleep_until(due).await;
        self.due = None;
        self.begin(call, hall);
    }

    /// Writes all that is new.
    pub(super) async fn finish(&mut self, call: &Call, hall: &Hall) {
        self.due = None;
        loop {
            if self.writing.is_none() {
                self.begin(call, hall);
            }
            if self.writing.is_none() {
                return;
            }
            self.step(call, hall).await;
            if self.due.take().is_some() {
                sleep(RETRY).await;
            }
        }
    }

    fn begin(&mut self, call: &Call, hall: &Hall) {
        let lines = call.log.since(self.written);
        let state = State::of(call);
        if lines.is_empty() && state == self.state {
            return;
        }
        // Whoever comes back brings the token: it is not written anywhere.
        let texts = lines.iter().filter_map(|line| wire::text(&line.notice, line.seq, "").ok());
        let messages = (!lines.is_empty()).then(|| format!("[{}]", texts.collect::<Vec<_>>().join(",")));
        let first_seq = lines.first().and_then(|line| line.seq).unwrap_or(self.written);
        let last_seq = lines.last().and_then(|line| line.seq).unwrap_or(self.written);
        let page = JournalPage {
            session_id: call.session_id.clone(),
            owner: call.owner.to_string(),
            conversation_id: call.conversation_id.clone(),
            secret_digest: digest(&call.secret),
            first_seq,
            last_seq,
            messages,
            state: json!(state),
        };
        self.writing = Some(Writing { last_seq, state, outcome: hall.pages.put(page) });
    }
}

/// Pages of all calls on their way: at most one of each call.
#[derive(Default)]
pub(super) struct Pages {
    waiting: Mutex<Vec<(JournalPage, oneshot::Sender<bool>)>>,
    come: Notify,
}

impl Pages {
    fn put(&self, page: JournalPage) -> oneshot::Receiver<bool> {
        let (written, is_written) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((page, written));
        self.come.notify_one();
        is_written
    }

    async fn write_for_ever(&self, store: &Store) {
        loop {
            self.come.notified().await;
            sleep(GATHER).await;
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            let (pages, outcomes): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
            let is_written = store.write_journal(&pages).await.is_ok();
            for outcome in outcomes {
                // A call that is gone does not wait.
                let _ = outcome.send(is_written);
            }
        }
    }
}

impl Hall {
    /// Writes all calls' journals.
    pub(in crate::api) async fn keep_journals(&self, store: &Store) {
        self.pages.write_for_ever(store).await;
    }
}

/// Forgets sessions that were left alone for too long.
pub(in crate::api) async fn sweep_for_ever(store: Store) {
    loop {
        match store.sweep_journals().await {
            Ok(0) | Err(_) => {}
            Ok(count) => tracing::debug!(count, "sessions that were left alone were forgotten"),
        }
        sleep(SWEEP_EVERY).await;
        // What other servers of the same database have left behind.
        if let Err(error) = recall::mend(&store, false).await {
            tracing::warn!(%error, "replies that were cut off are not mended");
        }
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;

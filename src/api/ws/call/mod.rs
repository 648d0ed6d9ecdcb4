//! A call: a session that outlives its sockets.
//!
//! One task (`conduct`) takes what the session tells and puts it, numbered, into the `log`, which every socket reads at its
//! own pace. The `hall` knows all calls: a second socket of the same owner on the same conversation joins the call that is
//! there, and who comes back reads on where it was (`resume`). The microphone is the socket's that sent audio last. When
//! all have left, the session goes on for a while, its audio held back; then it ends.

mod attendance;
mod conduct;
mod hall;
mod journal;
mod log;
mod news;
mod playback;
mod recall;
mod resume;
mod work;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;

use super::Ending;
use crate::api::wire::Notice;
use crate::session::Outbox;
use crate::session::event::{Input, Output, Request, Started, Told};
use crate::store::digest;
use attendance::Attendance;
pub(super) use attendance::{Entry, Keyed, Place, Visit};
pub(super) use conduct::Conductor;
pub(in crate::api) use hall::Hall;
pub(in crate::api) use journal::sweep_for_ever;
pub(super) use log::{Follower, Line, Log};
pub(in crate::api) use recall::mend;
pub(super) use recall::recall;
pub(super) use resume::wanted;

/// A page or program that takes part, however often it connects again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Client(u64);

/// Its digits.
const CLIENT_DIGITS: usize = 16;

impl fmt::Display for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl Client {
    fn new() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1)
    }

    fn read(text: &str) -> Option<Self> {
        let is_one = text.len() == CLIENT_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| is_one).map(Self)
    }

    /// A `ref` that says whose it is: two pages may use the same ones.
    fn tag(self, reference: &str) -> String {
        format!("{self}{reference}")
    }

    fn untag(tagged: &str) -> (Self, String) {
        let parts = tagged.split_at_checked(CLIENT_DIGITS);
        let read = parts.and_then(|(client, reference)| Some((Self::read(client)?, reference.to_owned())));
        read.unwrap_or_else(|| (Self(0), tagged.to_owned()))
    }
}

/// A live session, for its sockets.
pub(super) struct Call {
    pub(super) session_id: String,
    owner: Arc<str>,
    conversation_id: String,
    /// Whoever knows it is one of its clients.
    secret: String,
    pub(super) log: Arc<Log>,
    inbox: mpsc::Sender<Request>,
    attendance: Mutex<Attendance>,
    presence: watch::Sender<Presence>,
    /// What a newcomer is told.
    scene: Mutex<Started>,
    /// What its clients have set.
    changed: Mutex<Map<String, Value>>,
    /// All of it is stored.
    has_ended: watch::Sender<bool>,
}

/// Whether anybody is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Attended,
    /// All have left, and may come back.
    Away,
    /// The last one said goodbye, or may not come back.
    Over,
}

/// Why nobody can join.
#[derive(Debug)]
pub(super) enum NoEntry {
    /// It ends.
    Over,
    /// What the client wants to go on from is not there.
    Forgotten,
    /// Nobody is there: whoever joins needs a place.
    Empty,
    /// All places of the key are taken.
    KeyFull,
}

impl Call {
    /// `secret` is new, or what its clients know from before.
    pub(super) fn new(
        owner: Arc<str>,
        scene: Started,
        secret: String,
        log: Log,
        inbox: mpsc::Sender<Request>,
    ) -> Arc<Self> {
        Arc::new(Self {
            session_id: scene.session_id.clone(),
            owner,
            conversation_id: scene.conversation_id.clone(),
            secret,
            log: Arc::new(log),
            inbox,
            attendance: Mutex::default(),
            presence: watch::Sender::new(Presence::Attended),
            scene: Mutex::new(scene),
            changed: Mutex::default(),
            has_ended: watch::Sender::new(false),
        })
    }

    /// The first thing that a session tells.
    pub(super) async fn scene(outbox: &mut Outbox) -> Option<Started> {
        match outbox.recv().await {
            Some(Told { output: Output::SessionStarted(started), .. }) => Some(*started),
            _ => None,
        }
    }

    /// What a client needs to come back.
    pub(super) fn token(&self, client: Client) -> String {
        format!("{}.{client}", self.secret)
    }

    /// Whose token this is. None: not one of this call.
    fn client_of(&self, owner: &str, token: &str) -> Option<Client> {
        let known = known_by(token, &digest(&self.secret)).filter(|_| *self.owner == *owner);
        known.map(|(_, client)| client)
    }

    /// As a newcomer is told.
    pub(super) fn started(&self) -> Started {
        self.scene_now().clone()
    }

    fn scene_now(&self) -> MutexGuard<'_, Started> {
        self.scene.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what a newcomer would have to know.
    fn learn(&self, output: &Output) {
        match output {
            Output::Characters(characters) => self.scene_now().characters.clone_from(characters),
            Output::SettingsApplied(applied) => {
                self.scene_now().settings.clone_from(&applied.settings);
                // Now that the session has taken them: refused ones are not to come back with it.
                if let Ok(Value::Object(changed)) = serde_json::to_value(&applied.changed) {
                    self.has_set(changed);
                }
            }
            _ => {}
        }
    }

    /// Waits until all of it is stored.
    pub(super) async fn ended(&self) {
        // The sender is this call's own.
        let _ = self.has_ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Asks the session something on the house's behalf. Whoever conducts the call must not wait for a session that waits
    /// for them.
    fn ask(&self, input: Input) {
        if self.inbox.try_send(input.into()).is_err() {
            tracing::warn!("a session that is over, or far behind, was not told what happened");
        }
    }

    fn changed_settings(&self) -> Map<String, Value> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes all that clients have set.
    fn has_set(&self, settings: Map<String, Value>) {
        *self.changed.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn attendance(&self) -> MutexGuard<'_, Attendance> {
        self.attendance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is(&self, owner: &str, conversation_id: &str) -> bool {
        *self.owner == *owner && self.conversation_id == conversation_id
    }
}

/// The secret that a token is made of, and whose token it is. None: the secret is another one.
fn known_by<'a>(token: &'a str, secret_digest: &str) -> Option<(&'a str, Client)> {
    let (secret, client) = token.rsplit_once('.')?;
    let client = Client::read(client)?;
    // Digests, since comparing them takes the same time for every guess.
    (digest(secret) == secret_digest).then_some((secret, client))
}

/// One client's way into its call.
#[derive(Clone)]
pub(super) struct Seat {
    call: Arc<Call>,
    client: Client,
}

impl Seat {
    /// Passes on what a client asks.
    pub(super) async fn ask(&self, request: Request) -> Result<(), Ending> {
        let Request { input, reference } = request;
        match &input {
            Input::Audio(_) if !self.takes_microphone(Instant::now()) => return Ok(()),
            Input::PlaybackAck { item_id, played_ms } => {
                // Whoever has the microphone is the one who listens.
                if self.call.attendance().is_microphone_elsewhere(self.client) {
                    return Ok(());
                }
                self.call.log.acknowledge(item_id, Duration::from_millis(*played_ms));
            }
            _ => {}
        }
        let reference = reference.map(|reference| self.client.tag(&reference));
        self.call.inbox.send(Request { input, reference }).await.map_err(|_| Ending::SessionFailed)
    }

    /// Whether what this client says now is heard: the microphone goes to whoever begins to speak.
    fn takes_microphone(&self, now: Instant) -> bool {
        let (is_heard, loser) = self.call.attendance().speak(self.client, now);
        if let Some(loser) = loser {
            self.call.log.say(loser, Notice::SessionReplaced);
        }
        is_heard
    }

    pub(super) fn say(&self, notice: Notice) {
        self.call.log.say(self.client, notice);
    }

    pub(super) fn token(&self) -> String {
        self.call.token(self.client)
    }

    pub(super) fn call(&self) -> &Call {
        &self.call
    }
}

#[cfg(test)]
mod tests;

//! The conversation: a microphone frame's way to the speaker.
//!
//! Four rooms, each one file, one task, one bounded inbox and one outbox:
//! `ear` (voice activity, then speech to text), `turn` (the pure machine that decides), `mind` (language model, then
//! chunker), `mouth` (speech synthesis, sequence, pace). This module cannot name a model, a socket or a database:
//! models stand behind `provider`'s traits, the database behind [`record::Records`], the socket behind a [`Handle`].

mod ear;
pub mod event;
mod floor;
mod guard;
mod history;
mod loopback;
mod machine;
mod mind;
mod mouth;
mod outbox;
pub mod record;
pub mod resumption;
mod saves;
pub mod settings;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::provider::task::{self, Task};
use crate::provider::{Caller, ChatModel, SpeechSynthesizer, SpeechToText, VoiceActivity};
pub use ear::LONGEST_UTTERANCE;
use ear::{Ear, Names};
use event::{Output, Participant, Request, Started};
use history::History;
use loopback::loopback;
use machine::{Base, Machine, Player, Scene};
use mouth::Voice;
pub use outbox::Outbox;
use record::{Conversation, OpenConversation, RecordError, Records};
use resumption::Resumption;
use saves::Saves;
use settings::{Settings, SettingsPatch};

/// What a session is made of.
#[derive(Clone)]
pub struct Parts {
    pub stt: Arc<dyn SpeechToText>,
    pub chat: Arc<dyn ChatModel>,
    pub speech: Arc<dyn SpeechSynthesizer>,
    pub vad: Arc<dyn VoiceActivity>,
    pub records: Arc<dyn Records>,
}

/// Which conversation, with whom, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// None: a new one.
    pub conversation_id: Option<String>,
    /// Empty: the conversation's own, else the default character.
    pub character_ids: Vec<String>,
    /// They take part too, in this session only.
    pub guests: Vec<String>,
    pub settings: Settings,
    /// Send audio at the pace of its playback. Without it audio leaves as fast as it is made and taken, for listeners
    /// that keep it: files.
    pub paced: bool,
    pub bounds: Bounds,
    /// On whose behalf models are asked; the conversation's own part is added.
    pub caller: Caller,
}

/// How much one session may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The longest utterance; what is longer becomes two.
    pub utterance: Duration,
    /// Messages that may wait for the client, audio apart.
    pub outbound: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { utterance: LONGEST_UTTERANCE.duration(), outbound: outbox::CONTROL_LANE }
    }
}

/// A running session. It ends, reply and all, when its inbox or its outbox is dropped; what was said is still saved.
pub struct Handle {
    pub inbox: mpsc::Sender<Request>,
    pub outbox: Outbox,
    pub ending: Ending,
}

/// The end of a session. Dropping it leaves the session alone.
pub struct Ending(JoinHandle<()>);

impl Ending {
    /// Waits until the session is over and all that was said is stored, which takes as long as the records do and at
    /// most 20 s. Drop the inbox or the outbox first.
    pub async fn stored(self) {
        if let Err(error) = self.0.await {
            tracing::error!(%error, "a session did not end well");
        }
    }
}

/// Why a session could not begin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    #[error("the conversation {0} was not found")]
    ConversationNotFound(String),
    #[error("the character {0} was not found")]
    CharacterNotFound(String),
    #[error("the conversation {0} has no character; name one")]
    NoCharacter(String),
    #[error(transparent)]
    Records(#[from] RecordError),
}

/// Requests that may wait for the ear: a second and more of 20 ms frames. A client that sends faster than its session
/// hears waits in its socket.
const INBOX: usize = 64;

/// Opens a conversation and starts its session.
///
/// # Errors
/// The conversation or a character is not there, or the records failed.
pub async fn start(parts: Parts, opening: Opening) -> Result<Handle, StartError> {
    begin(parts, opening, Resumption { session_id: new_id(), ..Resumption::default() }).await
}

/// The same in the place of a session that has ended.
///
/// # Errors
/// Those of [`start`].
pub async fn resume(parts: Parts, opening: Opening, resumption: Resumption) -> Result<Handle, StartError> {
    begin(parts, opening, resumption).await
}

async fn begin(parts: Parts, opening: Opening, resumption: Resumption) -> Result<Handle, StartError> {
    let conversation = open(&*parts.records, &opening).await?;
    let conversation_id = conversation.conversation.id.clone();
    let history = History::of(&conversation, parts.chat.window());
    let languages = parts.stt.languages();
    let mut base =
        Base { settings: opening.settings, stored: SettingsPatch::default(), changed: resumption.settings, languages };
    base.store(&conversation_id, &conversation.conversation.settings);
    let players: Vec<Player> = conversation.characters.iter().map(|it| base.player(it.clone())).collect();
    let settings = conversation.characters.first().map(|first| base.shared(first));
    let settings = settings.ok_or_else(|| StartError::NoCharacter(conversation_id.clone()))?;

    let (inbox, requests) = mpsc::channel(INBOX);
    let (events, happened) = mpsc::channel(turn::INBOX);
    let (control, control_lane) = mpsc::channel(opening.bounds.outbound);
    let (audio, audio_lane) = mpsc::channel(outbox::AUDIO_LANE);
    let started = Started {
        session_id: resumption.session_id,
        conversation_id: conversation_id.clone(),
        awaits_title: history.awaits_title(&conversation.conversation.title),
        characters: (0..).zip(&conversation.characters).map(Participant::new).collect(),
        settings: settings.clone(),
    };
    // The lane is new: there is room.
    let _ = control.try_send(Output::SessionStarted(Box::new(started)).into());

    let caller = caller_of(opening.caller.clone(), &conversation.conversation);
    let keeps_recordings = parts.records.keeps_recordings();
    let (stt, vad) = (Arc::clone(&parts.stt), Arc::clone(&parts.vad));
    let ear = Ear::new(stt, vad, settings, caller.clone(), new_id, keeps_recordings);
    let (present, names) = Names::new(&parts, &conversation.characters);
    let (loopback, playing) = loopback();
    let ear = ear.bounded(opening.bounds.utterance).knowing(names).beside(playing);
    let scene = Scene {
        conversation_id: conversation_id.clone(),
        title: conversation.conversation.title.clone(),
        caller,
        paced: opening.paced,
        keeps_recordings,
    };
    let mut machine = Machine::new(scene, players, base, history, Box::new(new_id));
    machine.count_on(resumption.turn, resumption.sequence_number);
    let room = turn::Room {
        ear: Task::spawn("ear", ear.run(requests, events.clone())),
        machine,
        unfinished: resumption.unfinished,
        saves: Saves::new(Arc::clone(&parts.records), conversation_id.clone()),
        late: None,
        alarm: None,
        conversation_id,
        casting: None,
        present,
        voice: Voice::new(Arc::clone(&parts.speech), loopback),
        parts,
        events,
        control,
        audio,
        reply: None,
        waiting: None,
        note: None,
    };
    // It outlives its client until all is stored.
    let ending = Ending(tokio::spawn(task::named("turn", room.run(happened))));
    Ok(Handle { inbox, outbox: Outbox::new(control_lane, audio_lane), ending })
}

async fn open(records: &dyn Records, opening: &Opening) -> Result<OpenConversation, StartError> {
    let mut conversation = open_alone(records, opening).await?;
    let takes_part = |id: &String| conversation.characters.iter().any(|character| character.id == *id);
    let guests: Vec<String> = opening.guests.iter().filter(|id| !takes_part(id)).cloned().collect();
    if !guests.is_empty() {
        conversation.characters.extend(records.characters(guests).await.map_err(character_not_found)?);
    }
    Ok(conversation)
}

/// A session needs to know who is unknown.
fn character_not_found(error: RecordError) -> StartError {
    match error {
        RecordError::NotFound { id, .. } => StartError::CharacterNotFound(id),
        error => StartError::Records(error),
    }
}

/// Without guests.
async fn open_alone(records: &dyn Records, opening: &Opening) -> Result<OpenConversation, StartError> {
    let named = opening.character_ids.clone();
    let Some(id) = opening.conversation_id.clone() else {
        let conversation = records.create_conversation(named).await.map_err(character_not_found)?;
        let ids = conversation.character_ids.clone();
        let characters = records.characters(ids).await.map_err(character_not_found)?;
        return Ok(OpenConversation { conversation, characters, messages: Vec::new() });
    };
    let mut conversation = records.open_conversation(id, history::MESSAGES).await.map_err(|error| match error {
        RecordError::NotFound { id, .. } => StartError::ConversationNotFound(id),
        error => StartError::Records(error),
    })?;
    if !named.is_empty() {
        conversation.characters = records.characters(named).await.map_err(character_not_found)?;
    }
    Ok(conversation)
}

/// Rides with every request to a model.
fn caller_of(caller: Caller, conversation: &Conversation) -> Caller {
    let conversation_id = Some(conversation.id.as_str().into());
    Caller { private: conversation.private || caller.private, conversation_id, ..caller }
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

#[cfg(test)]
mod tests;

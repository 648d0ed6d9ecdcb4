//! The decisions of a session: what to say, store, begin and stop when something happens. Pure: no clock, no await, no
//! channel; the time comes with each event.
//!
//! [`Turn`] only grows, by one per reply and per interruption. What carries an older turn than the reply's is ignored
//! here, and the outbox lets nothing through that was on its way. Every reply begins once and ends once, by
//! `turn_complete` or by `interrupted`.

mod barge_in;
mod cast;
mod heard;
mod notes;
mod recital;
mod reply;
mod requests;
mod speaking;
mod stored;

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::json;
use tokio::time::Instant;

use self::barge_in::Doubts;
use self::cast::Cast;
pub(super) use self::cast::{Base, Player};
use self::notes::{Notes, Title};
use self::reply::{Cause, Reply};
use crate::audio::{MIC_HZ, Samples};
use crate::provider::{Caller, ChatRequest, ProviderError, Role};
use crate::session::ear::{Heard, Utterance};
use crate::session::event::{Complaint, ErrorCode, Output, Request, Told, Transcription, Turn};
use crate::session::history::{self, History};
use crate::session::mind::{self, Company, Thought};
use crate::session::mouth::{Progress, Sentence, Voicing};
use crate::session::record::{Character, Message, RecordError, Recording};
use crate::session::settings::{BadField, Settings, SettingsPatch};

/// What happens to a session.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "few of them, each moved once")]
pub(super) enum Event {
    Heard(Heard),
    Thought {
        turn: Turn,
        thought: Thought,
    },
    Progress {
        turn: Turn,
        progress: Progress,
    },
    Stored {
        save: Box<Save>,
        outcome: Result<String, RecordError>,
    },
    /// The answer to [`Effect::Title`].
    Titled {
        title: String,
        instead_of: String,
        outcome: Result<bool, RecordError>,
    },
    /// The answer to [`Effect::Note`].
    Noted {
        number: u64,
        outcome: Result<String, ProviderError>,
    },
    /// The answer to [`Effect::Cast`].
    Cast {
        reference: Option<String>,
        outcome: Result<Vec<Character>, RecordError>,
    },
    /// The instant of the latest [`Effect::WakeAt`] has come.
    Woken,
}

/// What a session does about it, in this order.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    Tell(Told),
    /// Begin a reply. Its voicing is None where it is only written.
    Think {
        turn: Turn,
        request: Box<ChatRequest>,
        voicing: Option<Box<Voicing>>,
        /// None: nobody else takes part.
        company: Option<Company>,
        /// Its audio waits for [`Effect::GiveFloor`].
        waits: bool,
    },
    /// One more sentence of a reply to speak.
    Speak {
        turn: Turn,
        sentence: Sentence,
    },
    /// Speak a reply that is written already. Its sentences are not made speakable yet.
    Recite {
        turn: Turn,
        voicing: Box<Voicing>,
        sentences: Vec<Sentence>,
    },
    /// The reply has no more sentences.
    Spoken {
        turn: Turn,
    },
    /// The audible reply is over.
    End,
    /// The reply that waits is audible now.
    GiveFloor {
        turn: Turn,
    },
    /// Drop every reply and all that is under way for it.
    Stop,
    /// Drop the reply that waits.
    TakeBack,
    Save(Box<Save>),
    /// A message that was begun is nothing after all.
    Forget {
        message_id: String,
    },
    /// What a message sounded like.
    Record {
        message_id: String,
        sound: Box<Recording>,
    },
    /// Give the conversation a title, unless somebody else has meanwhile.
    Title {
        title: String,
        instead_of: String,
    },
    /// A reply to what follows these messages may be asked soon.
    Prepare(Box<ChatRequest>),
    /// Make these the characters of the conversation.
    Cast {
        character_ids: Vec<String>,
        reference: Option<String>,
        /// They are already.
        is_stored: bool,
    },
    /// Step with [`Event::Woken`] then.
    WakeAt(Instant),
    /// Write a note, after a pause.
    Note {
        number: u64,
        request: Box<ChatRequest>,
    },
    /// Drop the note that is being written.
    StopNote,
}

/// A message to store, and which request it answers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Save {
    pub(super) message: Message,
    pub(super) reference: Option<String>,
}

pub(super) type Effects = Vec<Effect>;

/// Where a session plays.
#[derive(Clone, Debug, Default)]
pub(super) struct Scene {
    pub(super) conversation_id: String,
    /// The conversation's. Empty: it has none.
    pub(super) title: String,
    /// Rides with every request to a model.
    pub(super) caller: Caller,
    /// Audio leaves at the pace of its playback.
    pub(super) paced: bool,
    /// What is said is kept as sound.
    pub(super) keeps_recordings: bool,
}

/// The state of a session.
pub(super) struct Machine {
    scene: Scene,
    cast: Cast,
    /// What everyone's settings are made of.
    base: Base,
    /// What holds for all.
    settings: Settings,
    history: History,
    /// Messages of the user's that are on their way to the records, each with the `ref`s under which it was sent again.
    saving: HashMap<String, Vec<String>>,
    new_id: Box<dyn FnMut() -> String + Send>,
    turn: Turn,
    /// The last one given.
    sequence_number: u64,
    /// Utterances that were begun by voice and are not transcribed yet.
    speaking: HashSet<String>,
    doubts: Doubts,
    /// The user said something that is answered when nobody speaks any more.
    owed: Option<Cause>,
    /// The audible one, and the one after it.
    replies: VecDeque<Reply>,
    /// Requests that came while characters were looked up, which they may name. None: nothing is looked up.
    deferred: Option<Vec<Request>>,
    /// Whoever has the floor.
    floor: Option<usize>,
    /// Who speaks after them.
    queue: VecDeque<usize>,
    title: Title,
    notes: Notes,
    effects: Effects,
}

impl Machine {
    /// `players` is not empty.
    pub(super) fn new(
        scene: Scene,
        players: Vec<Player>,
        base: Base,
        history: History,
        new_id: Box<dyn FnMut() -> String + Send>,
    ) -> Self {
        // The first one's count for the whole session.
        let settings = players.first().map_or_else(|| base.settings.clone(), |first| base.shared(&first.character));
        let mut cast = Cast::new(players);
        for speaker in history.speakers() {
            cast.has_spoken(&speaker.id);
        }
        Self {
            title: Title::of(&scene.title, &history),
            scene,
            cast,
            base,
            settings,
            history,
            saving: HashMap::new(),
            new_id,
            turn: Turn::default(),
            sequence_number: 0,
            speaking: HashSet::new(),
            doubts: Doubts::default(),
            owed: None,
            replies: VecDeque::new(),
            deferred: None,
            floor: None,
            queue: VecDeque::new(),
            notes: Notes::default(),
            effects: Vec::new(),
        }
    }

    /// The session begins.
    pub(super) fn open(&mut self) -> Effects {
        self.prepare();
        self.note_when_idle();
        std::mem::take(&mut self.effects)
    }

    /// Takes in what happened at `now`. Time does not go back.
    pub(super) fn step(&mut self, now: Instant, event: Event) -> Effects {
        match event {
            Event::Heard(heard) => self.heard(now, heard),
            Event::Thought { turn, thought } => self.thought(now, turn, thought),
            Event::Progress { turn, progress } => self.progress(now, turn, progress),
            Event::Stored { save, outcome } => self.stored(*save, outcome),
            Event::Titled { title, instead_of, outcome } => self.titled(title, &instead_of, &outcome),
            Event::Noted { number, outcome } => self.noted(number, outcome),
            Event::Woken => self.woken(now),
            Event::Cast { reference, outcome } => self.recast(now, reference, outcome),
        }
        self.note_when_idle();
        std::mem::take(&mut self.effects)
    }

    /// The client has left: what it heard is kept.
    pub(super) fn leave(&mut self, now: Instant) -> Effects {
        self.interrupt(now, None);
        std::mem::take(&mut self.effects)
    }

    fn heard(&mut self, now: Instant, heard: Heard) {
        match heard {
            Heard::Began { item_id, at } => {
                self.tell(Output::SpeechStarted { at });
                let is_doubted = self.doubts(now, &item_id);
                self.speaking.insert(item_id);
                if !is_doubted {
                    self.interrupt_for_voice(now);
                }
            }
            Heard::Stopped { at } => self.tell(Output::SpeechStopped { at }),
            Heard::Committed => self.commit(now),
            Heard::Partial(transcription) => self.guessed(now, transcription),
            Heard::Drafted(transcription) => {
                let text = transcription.text.clone();
                self.guessed(now, transcription);
                self.prepare_for(&text);
            }
            Heard::Paused(transcription) => {
                self.judge(now, &transcription.item_id, &transcription.text);
                self.prepare_for(&transcription.text);
                self.tell(Output::Transcription(transcription));
            }
            Heard::Final(utterance) => {
                let Transcription { item_id, text, at, .. } = &utterance.transcription;
                let (item_id, at) = (item_id.clone(), *at);
                self.judge(now, &item_id, text);
                let is_none = self.acquits(&item_id, text, utterance.spoken);
                if is_none { self.nothing(now, &item_id, at) } else { self.said(now, *utterance) }
            }
            Heard::Nothing { item_id, at } => {
                self.end_doubt(&item_id);
                self.nothing(now, &item_id, at);
            }
            Heard::Failed { item_id, error } => {
                self.end_doubt(&item_id);
                self.complain(Complaint::of(&error, Some(item_id.clone())), None);
                self.heard_out(now, &item_id);
            }
            Heard::Refused { complaint, reference } => self.complain(complaint, reference),
            Heard::Asked(request) => self.asked(now, request),
        }
    }

    /// An utterance turned out to be none.
    fn nothing(&mut self, now: Instant, item_id: &str, at: Samples<MIC_HZ>) {
        self.tell(Output::Transcription(Transcription {
            item_id: item_id.to_owned(),
            is_final: true,
            text: String::new(),
            stable_chars: 0,
            at,
            language: None,
            words: Vec::new(),
        }));
        self.heard_out(now, item_id);
    }

    fn said(&mut self, now: Instant, utterance: Utterance) {
        let Utterance { transcription, ended, endpoint, stt, served_by, audio, .. } = utterance;
        let item_id = transcription.item_id.clone();
        let metadata = json!({ "spoken": true, "language": transcription.language, "served_by": served_by.as_ref() });
        self.user_message(item_id.clone(), transcription.text.clone(), None, metadata, None);
        if let Some(audio) = audio {
            let sound = Box::new(Recording::Said(audio));
            self.effects.push(Effect::Record { message_id: item_id.clone(), sound });
        }
        let speakers = self.cast.answer(self.settings.turn_taking, &transcription.text);
        self.tell(Output::Transcription(transcription));
        self.owed = Some(Cause {
            since: ended,
            endpoint: Some(endpoint),
            stt: Some(stt),
            stt_served_by: Some(served_by),
            terms: SettingsPatch::default(),
            speakers: speakers.into(),
            again: None,
        });
        self.heard_out(now, &item_id);
    }

    /// An utterance is dealt with; if nobody speaks any more, what is owed is answered.
    fn heard_out(&mut self, now: Instant, item_id: &str) {
        self.speaking.remove(item_id);
        if self.speaking.is_empty()
            && let Some(cause) = self.owed.take()
        {
            self.interrupt(now, None);
            self.begin(now, cause);
        }
    }

    fn prepare(&mut self) {
        let request = self.likely_request(None);
        self.effects.push(Effect::Prepare(Box::new(request)));
    }

    /// Reads ahead what the user may have said to the end.
    fn prepare_for(&mut self, text: &str) {
        // Whoever is only doubted is not answered, and beside a reply there is no idle time.
        if self.replies.is_empty() {
            let request = self.likely_request(Some(text));
            self.effects.push(Effect::Prepare(Box::new(request)));
        }
    }

    /// What will probably be asked next, once the user has `said` this, too.
    fn likely_request(&self, said: Option<&str>) -> ChatRequest {
        let (speaker, player) = self.cast.likely();
        let (character, others) = (&player.character, self.cast.others(speaker));
        let mut request = self.request(character, &player.settings, None, &others);
        if let Some(text) = said {
            history::add(&mut request.messages, Role::User, text, self.view_of(character, &others));
        }
        request
    }

    fn request(
        &self,
        character: &Character,
        settings: &Settings,
        until: Option<&str>,
        others: &[String],
    ) -> ChatRequest {
        let prompt = system_prompt(character, settings, others);
        let view = self.view_of(character, others);
        let messages = self.history.messages(prompt, until, settings.summarize_history, view);
        ChatRequest {
            messages,
            sampling: settings.sampling(),
            model: settings.model.clone().or_else(|| character.model.clone()),
            caller: self.scene.caller.clone(),
            ..ChatRequest::default()
        }
    }

    /// Whose eyes the history is told to a model with. None: nobody else takes part, or has.
    fn view_of<'a>(&self, character: &'a Character, others: &[String]) -> Option<&'a str> {
        let is_alone = others.is_empty() && self.history.speakers().all(|speaker| speaker.id == character.id);
        (!is_alone).then_some(character.id.as_str())
    }

    fn complain(&mut self, complaint: Complaint, reference: Option<String>) {
        self.tell_to(Output::Error(complaint), reference);
    }

    fn tell(&mut self, output: Output) {
        self.tell_to(output, None);
    }

    fn tell_to(&mut self, output: Output, reference: Option<String>) {
        self.effects.push(Effect::Tell(Told { output, reference }));
    }
}

fn system_prompt(character: &Character, settings: &Settings, others: &[String]) -> String {
    // A prompt that a client set stands for all that the character is.
    let prompt = settings.system_prompt.clone().unwrap_or_else(|| mind::own_prompt(character));
    mind::system_prompt(&prompt, settings.output, &character.name, others)
}

fn bad_field(error: &BadField) -> Complaint {
    Complaint { code: ErrorCode::BadField, message: error.to_string(), retryable: false, item_id: None }
}

fn no_item(message: String, item_id: String) -> Complaint {
    Complaint { code: ErrorCode::ItemNotFound, message, retryable: false, item_id: Some(item_id) }
}

#[cfg(test)]
mod tests;

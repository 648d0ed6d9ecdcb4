//! A session that has ended goes on from its journal; and replies that a crash has cut off are mended.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::journal::{HeardState, State};
use super::{Call, Client, Conductor, Log, known_by};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::wire::{Notice, Recall, Resume};
use crate::session::event::Turn;
use crate::session::record::{Message, MessageStatus, RecordError, Records};
use crate::session::resumption::{Resumption, Unfinished};
use crate::session::settings::SettingsPatch;
use crate::session::{self, Handle, Opening, StartError};
use crate::store::{CutOff, Owned, Store};

/// Clients have read fewer messages that were not written yet when the server ended. Their numbers are not given again,
/// nor those of turns, of which there are fewer.
const UNWRITTEN: u64 = 1_024;
/// What is noted with a reply of which nothing more is known.
const CUT_OFF: &str = "the server ended while this was written";

/// Begins a call where a session has ended. None: there is none for this token, or it does not go back so far.
pub(in crate::api::ws) async fn recall(
    house: &Arc<House>,
    asker: &Asker,
    resume: &Resume,
    opening: &Opening,
) -> Result<Option<(Arc<Call>, Client, Conductor)>, StartError> {
    let Some(known) = asker.rows.journal(&resume.session_id).await? else { return Ok(None) };
    let Some((secret, client)) = known_by(&resume.token, &known.secret_digest) else { return Ok(None) };
    let (recall, first) = (read(&known.messages), known.messages.first().and_then(|first| first["seq"].as_u64()));
    let is_known = first.is_some_and(|first| resume.last_seq + 1 >= first);
    // Numbers after such a gap may have been lost as well.
    if !is_known || resume.last_seq > recall.last_seq + 2 * UNWRITTEN {
        return Ok(None);
    }
    if house.hall.on(asker.rows.owner(), &known.conversation_id).is_some() {
        // Somebody has begun anew.
        return Ok(None);
    }
    let state: State = serde_json::from_value(known.state).unwrap_or_default();
    let resumption = resumption(known.session_id, &recall, &state);
    let numbered = known.messages.into_iter().filter_map(|message| Some((message["seq"].as_u64()?, message)));
    let recalled = numbered.map(|(seq, message)| (seq, Notice::Recalled(message))).collect();
    let last_seq = resume.last_seq.max(recall.last_seq + UNWRITTEN);
    let log = Log::after(house.state.limits.bounds.outbound, last_seq, recalled);
    // A log holds less than a journal.
    if !log.reaches(client, resume.last_seq) {
        return Ok(None);
    }
    let opening = Opening {
        conversation_id: Some(known.conversation_id),
        character_ids: state.character_ids.clone(),
        ..opening.clone()
    };
    let handle = session::resume(asker.quiet_parts(house), opening, resumption).await?;
    let Handle { inbox, mut outbox, ending } = handle;
    let Some(scene) = Call::scene(&mut outbox).await else { return Ok(None) };
    let call = Call::new(asker.rows.owner().into(), scene, secret.to_owned(), log, inbox);
    call.has_set(state.settings);
    let conductor = Conductor::again(house, Arc::clone(&call), outbox, ending);
    Ok(Some((call, client, conductor)))
}

fn read(messages: &[Value]) -> Recall {
    let mut recall = Recall::default();
    for message in messages {
        recall.read(message);
    }
    recall
}

fn resumption(session_id: String, recall: &Recall, state: &State) -> Resumption {
    let unfinished = recall.unfinished().map(|(item_id, draft)| Unfinished {
        item_id: item_id.clone(),
        character_id: draft.character_id.clone(),
        sentences: draft.sentences.clone(),
        is_written: draft.is_written,
        heard: heard_of(state, item_id).map(|heard| (heard.sentence, Duration::from_millis(heard.end_ms))),
    });
    let settings = SettingsPatch::read(&Value::Object(state.settings.clone())).unwrap_or_else(|error| {
        tracing::warn!(%error, "a session goes on without what its clients had set");
        SettingsPatch::default()
    });
    let (turn, sequence_number) = (Turn(recall.turn + UNWRITTEN), recall.sequence_number);
    Resumption { session_id, turn, sequence_number, settings, unfinished }
}

fn heard_of<'a>(state: &'a State, item_id: &str) -> Option<&'a HeardState> {
    state.heard.as_ref().filter(|heard| heard.item_id == item_id)
}

/// Ends the replies that a crash has cut off: what the journal has of them is kept, with what of it was heard.
///
/// # Errors
/// The database failed.
pub(in crate::api) async fn mend(store: &Store, has_just_started: bool) -> Result<(), RecordError> {
    for CutOff { owner, message } in store.cut_off_replies(has_just_started).await? {
        let rows = store.of(&owner);
        let (conversation_id, id) = (message.conversation_id.clone(), message.id.clone());
        let outcome = match mended(&rows, message).await? {
            Some(message) => rows.save_message(message).await.map(|_| ()),
            None => rows.forget_message(conversation_id, id).await,
        };
        match outcome {
            Ok(()) | Err(RecordError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// None: nothing was said.
async fn mended(rows: &Owned, mut message: Message) -> Result<Option<Message>, RecordError> {
    for known in rows.journals_of(&message.conversation_id).await? {
        let recall = read(&known.messages);
        let Some(draft) = recall.draft(&message.id) else { continue };
        let state: State = serde_json::from_value(known.state).unwrap_or_default();
        let heard = heard_of(&state, &message.id).map(|heard| heard.sentence);
        let is_heard = |sentence: &&(u64, String)| heard.is_some_and(|last| sentence.0 <= last);
        let heard: String = draft.sentences.iter().take_while(is_heard).map(|(_, text)| text.as_str()).collect();
        message.content = draft.text();
        message.heard_chars = (!state.is_read).then(|| heard.trim_end().chars().count());
        message.status = MessageStatus::Completed;
        return Ok(Some(message));
    }
    if message.content.is_empty() {
        return Ok(None);
    }
    message.status = MessageStatus::Failed;
    let mut metadata = match message.metadata {
        Value::Object(metadata) => metadata,
        // No session notes anything else.
        _ => Map::new(),
    };
    metadata.insert("error".to_owned(), CUT_OFF.into());
    message.metadata = Value::Object(metadata);
    Ok(Some(message))
}

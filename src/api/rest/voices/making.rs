//! Voices made, changed and learned: rows, files and the engine that speaks with them, in the order in which a crash
//! between two leaves nothing but a file that is swept.

use std::io::ErrorKind;
use std::sync::Arc;

use axum::http::StatusCode;
use tokio::sync::Semaphore;

use super::check_free;
use super::wire::{ChangedVoice, NewMethod, NewVoice};
use crate::api::House;
use crate::api::problem::Problem;
use crate::api::rest::entity::IfMatch;
use crate::provider::VoiceEngine;
use crate::provider::task::named;
use crate::session::record::RecordError;
use crate::store::{
    self, Kept, Owned, Recordings, StoredRecording, StoredVoice, Upload, VoiceLibrary, VoiceMethod, VoiceStatus,
};

/// Voices that are learned ahead at once: it takes a thread and the engine's encoder.
static LEARNING: Semaphore = Semaphore::const_new(1);

pub(super) async fn uploaded(rows: &Owned, id: &str) -> Result<Upload, Problem> {
    let gone = || Problem::bad_field("upload_id", "there is no such upload; uploads are kept for a day");
    if id.contains('\0') {
        return Err(gone());
    }
    rows.upload(id).await.map_err(|error| match error {
        RecordError::NotFound { .. } => gone(),
        error => error.into(),
    })
}

/// Changes a voice at a version that `if_match` allows.
pub(super) async fn change(
    house: &House,
    rows: &Owned,
    id: &str,
    if_match: &IfMatch,
    changed: ChangedVoice,
) -> Result<StoredVoice, Problem> {
    let upload = match &changed.upload_id {
        Some(upload) => {
            // A voice that is not there, or is not what the client saw, needs no copy of the recording.
            if_match.check(rows.voice(id).await?.version)?;
            Some(uploaded(rows, upload).await?)
        }
        None => None,
    };
    let adopted = adopt(house, upload.as_ref()).await?;
    let learns = house.state.parts.speech.studio().is_some();
    let outcome = rows.change_voice(id, |voice| {
        if_match.check(voice.version)?;
        let before = voice.clone();
        if let Some(upload) = upload.filter(|_| voice.method == VoiceMethod::Clone) {
            (voice.transcript, voice.language) = (upload.transcript, upload.language);
            voice.recording.clone_from(&adopted);
        }
        changed.apply(voice)?;
        if voice.recording != before.recording || voice.transcript != before.transcript {
            (voice.status, voice.error) = (first_status(voice.method, learns), None);
        }
        Ok::<(), Problem>(())
    });
    match outcome.await {
        Ok((before, after)) => {
            let unused = before.recording.filter(|old| after.recording.as_ref() != Some(old));
            remove(house, unused).await;
            learn(house, rows, &after);
            Ok(after)
        }
        Err(problem) => {
            remove(house, adopted).await;
            Err(problem)
        }
    }
}

/// Makes a voice of what was checked.
pub(super) async fn make(
    house: &Arc<House>,
    rows: &Owned,
    new: NewVoice,
    upload: Option<Upload>,
) -> Result<StoredVoice, Problem> {
    check_free(house, &new.name)?;
    let recording = adopt(house, upload.as_ref()).await?;
    let (words, heard_language) = upload.map(|upload| (upload.transcript, upload.language)).unwrap_or_default();
    let method = match new.method {
        NewMethod::Clone => VoiceMethod::Clone,
        NewMethod::Description => VoiceMethod::Description,
    };
    let status = first_status(method, house.state.parts.speech.studio().is_some());
    let given = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
    let made = rows.create_voice(store::NewVoice {
        name: new.name,
        method,
        engine: VoiceEngine::Higgs.as_str().to_owned(),
        language: given(new.language).unwrap_or(heard_language),
        speaker_description: new.speaker_description.unwrap_or_default(),
        scene_prompt: new.scene_prompt.unwrap_or_default(),
        transcript: given(new.transcript).unwrap_or(words),
        recording: recording.clone(),
        status,
    });
    let made = made.await;
    if let Ok(Kept::Done(voice)) = made {
        learn(house, rows, &voice);
        return Ok(voice);
    }
    remove(house, recording).await;
    let detail = "there are as many voices as one may have; delete some";
    Err(made.map_or_else(Problem::from, |_| Problem::new(StatusCode::CONFLICT, "too_many_voices", detail)))
}

/// Words are understood at once; a recording is learned, where there is an engine that does.
const fn first_status(method: VoiceMethod, learns: bool) -> VoiceStatus {
    match method {
        VoiceMethod::Clone if learns => VoiceStatus::Processing,
        VoiceMethod::Clone | VoiceMethod::Description => VoiceStatus::Ready,
    }
}

/// A voice's own copy of an upload.
async fn adopt(house: &House, upload: Option<&Upload>) -> Result<Option<StoredRecording>, Problem> {
    let Some(upload) = upload else { return Ok(None) };
    let (recordings, recording) = (Recordings::new(&house.state.data_dir), upload.recording.clone());
    let adopted = blocking(move || recordings.adopt(&recording)).await?;
    adopted.map(Some).map_err(|error| match error.kind() {
        ErrorKind::NotFound => Problem::bad_field("upload_id", "its recording is gone; send it again"),
        _ => disk(&error),
    })
}

pub(super) async fn remove(house: &House, recording: Option<StoredRecording>) {
    let recordings = Recordings::new(&house.state.data_dir);
    if let Some(recording) = recording {
        // What stays is swept.
        let _ = blocking(move || recordings.remove(&recording)).await;
    }
}

/// Has the engine learn a voice that is to be, and notes how that ended.
fn learn(house: &House, rows: &Owned, voice: &StoredVoice) {
    let Some(studio) = house.state.parts.speech.studio().filter(|_| voice.status == VoiceStatus::Processing) else {
        return;
    };
    let library = VoiceLibrary::new(house.state.store.clone(), Recordings::new(&house.state.data_dir));
    let (rows, id, version) = (rows.clone(), voice.id.clone(), voice.version);
    let own = Arc::new(library.own_voice(voice.clone()));
    // It goes on when whoever made the voice has left.
    tokio::spawn(named("voice learning", async move {
        // The semaphore is never closed.
        let _turn = LEARNING.acquire().await;
        let error = studio.learn(own).await.err().map(|error| error.to_string());
        if let Some(error) = &error {
            tracing::warn!(voice = id, error, "a voice cannot be learned");
        }
        // Details are in the log.
        let _ = rows.voice_learned(&id, version, error).await;
    }));
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "work on a voice failed");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server met a fault of its own")
    })
}

/// The disk is full, or the folder is not ours.
pub(super) fn disk(error: &std::io::Error) -> Problem {
    tracing::error!(%error, "a recording cannot be stored");
    let detail = "the server cannot store the recording; its log says why";
    Problem::new(StatusCode::INSUFFICIENT_STORAGE, "storage_failed", detail)
}

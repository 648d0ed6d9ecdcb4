//! An owner's voices, and the recordings that were sent for them.
//!
//! An id is the slug of the first name given, and `-2` and so on where the owner has that one already; it stays when the
//! name changes. [`Recordings`] has the files, [`VoiceLibrary`] what speech is asked for by a voice's name.

mod library;
mod recordings;
mod statement;
mod upload;

use sqlx::{AnyConnection, AssertSqlSafe};

use super::character::fold;
use super::record::Fault;
use super::{Owned, Page, PageAsk, row};
use crate::session::record::RecordError;
pub use library::VoiceLibrary;
pub use recordings::Recordings;
use statement::{COLUMNS, count, find, insert, list, stored, update, users};
pub use upload::Upload;

/// A voice as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVoice {
    pub id: String,
    pub name: String,
    pub method: VoiceMethod,
    /// What speaks with it.
    pub engine: String,
    /// Empty: unknown.
    pub language: String,
    pub speaker_description: String,
    pub scene_prompt: String,
    pub transcript: String,
    /// None: it is described in words.
    pub recording: Option<StoredRecording>,
    pub status: VoiceStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// Grows with every change.
    pub version: i64,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub updated_at: String,
}

/// A recording among [`Recordings`].
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecording {
    /// Its name there.
    pub file: String,
    /// SHA-256 of the file.
    pub content_hash: String,
    pub seconds: f64,
}

/// What a voice is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceMethod {
    Clone,
    Description,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceStatus {
    Ready,
    /// Its engine is learning it. It can be spoken with all the same, only later.
    Processing,
    Failed,
}

/// A voice that is to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct NewVoice {
    pub name: String,
    pub method: VoiceMethod,
    pub engine: String,
    pub language: String,
    pub speaker_description: String,
    pub scene_prompt: String,
    pub transcript: String,
    pub recording: Option<StoredRecording>,
    pub status: VoiceStatus,
}

/// What a list of voices is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoiceSort {
    CreatedAt,
    Name,
}

/// Why a voice is not made or not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept<T> {
    Done(T),
    /// The names of the characters that speak with it.
    InUse(Vec<String>),
    /// The owner has as many as one may have.
    Full,
}

/// Of one owner.
const MOST_VOICES: i64 = 1000;

impl Owned {
    pub async fn list_voices(&self, ask: &PageAsk<VoiceSort>) -> Result<Page<StoredVoice>, RecordError> {
        list(self, ask).await.map_err(Fault::report)
    }

    /// How many there are.
    pub async fn count_voices(&self) -> Result<usize, RecordError> {
        let count = async {
            let mut moment = self.store.read().await?;
            let count = count(&mut moment, &self.owner).await?;
            moment.commit().await?;
            Ok(usize::try_from(count).unwrap_or(0))
        };
        count.await.map_err(Fault::report)
    }

    pub async fn voice(&self, id: &str) -> Result<StoredVoice, RecordError> {
        let read = async {
            let mut moment = self.store.read().await?;
            let found = find(&mut moment, &self.owner, id).await?;
            moment.commit().await?;
            Ok(found)
        };
        read.await.map_err(Fault::report)
    }

    /// The voice with this id, or else the one that was given this name first.
    pub async fn voice_named(&self, name: &str) -> Result<Option<StoredVoice>, RecordError> {
        let read = async {
            let mut moment = self.store.read().await?;
            let text = format!("SELECT {COLUMNS} FROM voices WHERE owner = $1 AND id = $2");
            let named =
                format!("SELECT {COLUMNS} FROM voices WHERE owner = $1 AND name = $2 ORDER BY name, id LIMIT 1");
            let mut found = None;
            for text in [text, named] {
                let query = sqlx::query(AssertSqlSafe(text)).bind(self.owner.to_string()).bind(name.to_owned());
                found = query.fetch_optional(&mut *moment).await?;
                if found.is_some() {
                    break;
                }
            }
            moment.commit().await?;
            Ok(found.as_ref().map(stored).transpose()?)
        };
        read.await.map_err(Fault::report)
    }

    pub async fn create_voice(&self, new: NewVoice) -> Result<Kept<StoredVoice>, RecordError> {
        let create = async {
            let mut lock = self.store.write().await?;
            if count(&mut lock, &self.owner).await? >= MOST_VOICES {
                return Ok(Kept::Full);
            }
            let slug = fold::slug_or(&new.name, "voice");
            let now = row::now();
            let mut voice = StoredVoice {
                id: slug.clone(),
                name: new.name,
                method: new.method,
                engine: new.engine,
                language: new.language,
                speaker_description: new.speaker_description,
                scene_prompt: new.scene_prompt,
                transcript: new.transcript,
                recording: new.recording,
                status: new.status,
                error: None,
                version: 1,
                created_at: now.clone(),
                updated_at: now,
            };
            // Somebody may take the same id at the same time: it is free where it could be written.
            let mut number = 1;
            while !insert(&mut lock, &self.owner, &voice).await? {
                number += 1;
                voice.id = format!("{slug}-{number}");
            }
            lock.commit().await?;
            Ok(Kept::Done(voice))
        };
        create.await.map_err(Fault::report)
    }

    /// Changes a voice as `change` does, which is given it as it is. Id, method and times are not its to change.
    /// Answers it as it was before, and as it is.
    ///
    /// # Errors
    /// What `change` answers, or the records' own; nothing is changed then.
    pub async fn change_voice<E: From<RecordError>>(
        &self,
        id: &str,
        change: impl FnOnce(&mut StoredVoice) -> Result<(), E>,
    ) -> Result<(StoredVoice, StoredVoice), E> {
        let change = async {
            let mut lock = self.store.write().await?;
            let before = self.lock_voice(&mut lock, id).await?;
            let mut after = before.clone();
            if let Err(refusal) = change(&mut after) {
                return Ok(Err(refusal));
            }
            (after.version, after.updated_at) = (before.version + 1, row::now());
            update(&mut lock, &self.owner, &after).await?;
            lock.commit().await?;
            Ok(Ok((before, after)))
        };
        change.await.map_err(|fault: Fault| E::from(fault.report()))?
    }

    /// Notes how learning a voice ended, if it is still at `version`.
    pub async fn voice_learned(&self, id: &str, version: i64, error: Option<String>) -> Result<(), RecordError> {
        let status = if error.is_some() { VoiceStatus::Failed } else { VoiceStatus::Ready };
        let note = async {
            let mut lock = self.store.write().await?;
            sqlx::query(
                "UPDATE voices SET status = $1, error = $2, version = version + 1, updated_at = $3
                 WHERE owner = $4 AND id = $5 AND version = $6",
            )
            .bind(status.name())
            .bind(error)
            .bind(row::now())
            .bind(self.owner.to_string())
            .bind(id.to_owned())
            .bind(version)
            .execute(&mut *lock)
            .await?;
            lock.commit().await?;
            Ok(())
        };
        note.await.map_err(Fault::report)
    }

    /// Removes a voice if `check` allows it at the version that it has. Characters that speak with it keep it, unless it
    /// is by `force`: then they speak with the engine's default.
    ///
    /// # Errors
    /// What `check` answers, or the records' own; nothing is removed then.
    pub async fn delete_voice<E: From<RecordError>>(
        &self,
        id: &str,
        force: bool,
        check: impl FnOnce(i64) -> Result<(), E>,
    ) -> Result<Kept<StoredVoice>, E> {
        let delete = async {
            let mut lock = self.store.write().await?;
            let found = self.lock_voice(&mut lock, id).await?;
            if let Err(refusal) = check(found.version) {
                return Ok(Err(refusal));
            }
            let users = users(&mut lock, &self.owner, id).await?;
            if !users.is_empty() && !force {
                return Ok(Ok(Kept::InUse(users)));
            }
            sqlx::query(
                "UPDATE characters SET voice = NULL, version = version + 1, updated_at = $1
                 WHERE owner = $2 AND voice = $3",
            )
            .bind(row::now())
            .bind(self.owner.to_string())
            .bind(id.to_owned())
            .execute(&mut *lock)
            .await?;
            let deleted = sqlx::query("DELETE FROM voices WHERE owner = $1 AND id = $2");
            deleted.bind(self.owner.to_string()).bind(id.to_owned()).execute(&mut *lock).await?;
            lock.commit().await?;
            Ok(Ok(Kept::Done(found)))
        };
        delete.await.map_err(|fault: Fault| E::from(fault.report()))?
    }

    /// Reads a row that is about to change. Writing it first locks it where transactions run side by side.
    async fn lock_voice(&self, lock: &mut AnyConnection, id: &str) -> Result<StoredVoice, Fault> {
        let locked = sqlx::query("UPDATE voices SET version = version WHERE owner = $1 AND id = $2");
        locked.bind(self.owner.to_string()).bind(id.to_owned()).execute(&mut *lock).await?;
        find(lock, &self.owner, id).await
    }
}

impl VoiceMethod {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Clone => "clone",
            Self::Description => "description",
        }
    }
}

impl VoiceStatus {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Processing => "processing",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests;

//! Recordings that somebody sent, for a day: a voice may be made of each.

use sqlx::Row;
use sqlx::any::AnyRow;

use super::{Kept, StoredRecording};
use crate::session::record::RecordError;
use crate::store::record::Fault;
use crate::store::{Owned, Store, row};

/// Of one owner, of the last day.
const MOST_UPLOADS: i64 = 200;

/// A recording that somebody sent, for a day.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    pub id: String,
    pub recording: StoredRecording,
    pub transcript: String,
    pub language: String,
}

impl Owned {
    pub async fn create_upload(&self, new: &Upload) -> Result<Kept<()>, RecordError> {
        let create = async {
            let mut lock = self.store.write().await?;
            let count = sqlx::query("SELECT COUNT(*) FROM uploads WHERE owner = $1").bind(self.owner.to_string());
            if count.fetch_one(&mut *lock).await?.try_get::<i64, _>(0)? >= MOST_UPLOADS {
                return Ok(Kept::Full);
            }
            sqlx::query(
                "INSERT INTO uploads (id, owner, file, content_hash, seconds, transcript, language, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(new.id.clone())
            .bind(self.owner.to_string())
            .bind(new.recording.file.clone())
            .bind(new.recording.content_hash.clone())
            .bind(new.recording.seconds)
            .bind(new.transcript.clone())
            .bind(new.language.clone())
            .bind(row::now())
            .execute(&mut *lock)
            .await?;
            lock.commit().await?;
            Ok(Kept::Done(()))
        };
        create.await.map_err(Fault::report)
    }

    pub async fn upload(&self, id: &str) -> Result<Upload, RecordError> {
        let read = async {
            let mut moment = self.store.read().await?;
            let found = sqlx::query(
                "SELECT id, file, content_hash, seconds, transcript, language FROM uploads WHERE id = $1 AND owner = $2",
            )
            .bind(id.to_owned())
            .bind(self.owner.to_string())
            .fetch_optional(&mut *moment)
            .await?
            .ok_or_else(|| Fault::not_found("upload", id))?;
            moment.commit().await?;
            Ok(Upload {
                id: found.try_get("id")?,
                recording: StoredRecording {
                    file: found.try_get("file")?,
                    content_hash: found.try_get("content_hash")?,
                    seconds: found.try_get("seconds")?,
                },
                transcript: found.try_get("transcript")?,
                language: found.try_get("language")?,
            })
        };
        read.await.map_err(Fault::report)
    }
}

impl Store {
    /// Forgets uploads from before `oldest`. Answers the files of those that stay, and of all voices, with their hashes:
    /// nobody knows any other.
    pub(super) async fn sweep_voices(&self, oldest: String) -> Result<Vec<StoredRecording>, RecordError> {
        let sweep = async {
            let mut lock = self.write().await?;
            sqlx::query("DELETE FROM uploads WHERE created_at < $1").bind(oldest).execute(&mut *lock).await?;
            let known = "/* every row */ SELECT file, content_hash, seconds FROM uploads UNION ALL
                         SELECT file, content_hash, seconds FROM voices WHERE file IS NOT NULL";
            let rows = sqlx::query(known).fetch_all(&mut *lock).await?;
            lock.commit().await?;
            let recording = |row: &AnyRow| -> Result<_, sqlx::Error> {
                Ok(StoredRecording {
                    file: row.try_get("file")?,
                    content_hash: row.try_get("content_hash")?,
                    seconds: row.try_get("seconds")?,
                })
            };
            Ok(rows.iter().map(recording).collect::<Result<_, _>>()?)
        };
        sweep.await.map_err(Fault::report)
    }

    /// Voices that a server was learning when it ended are learned when they are first spoken with.
    pub(super) async fn release_voices(&self) -> Result<(), RecordError> {
        let release = async {
            let mut lock = self.write().await?;
            let text = "/* every row */ UPDATE voices SET status = 'ready', version = version + 1
                        WHERE status = 'processing'";
            sqlx::query(text).execute(&mut *lock).await?;
            lock.commit().await?;
            Ok(())
        };
        release.await.map_err(Fault::report)
    }
}

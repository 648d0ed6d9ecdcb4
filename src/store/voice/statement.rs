//! A voice as a row.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, AssertSqlSafe, Row};

use super::{StoredRecording, StoredVoice, VoiceMethod, VoiceSort, VoiceStatus};
use crate::store::record::Fault;
use crate::store::{Owned, Page, PageAsk, Place};

/// What [`stored`] reads.
pub(super) const COLUMNS: &str = "id, name, method, engine, language, speaker_description, scene_prompt, transcript, \
                                  file, content_hash, seconds, status, error, version, created_at, updated_at";

impl VoiceSort {
    const fn column(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::Name => "name",
        }
    }

    pub(super) fn place(self, voice: &StoredVoice) -> Place {
        let key = match self {
            Self::CreatedAt => &voice.created_at,
            Self::Name => &voice.name,
        };
        Place { key: key.clone(), id: voice.id.clone() }
    }
}

pub(super) async fn count(connection: &mut AnyConnection, owner: &str) -> Result<i64, Fault> {
    let count = sqlx::query("SELECT COUNT(*) FROM voices WHERE owner = $1").bind(owner.to_owned());
    Ok(count.fetch_one(connection).await?.try_get(0)?)
}

pub(super) async fn list(owned: &Owned, ask: &PageAsk<VoiceSort>) -> Result<Page<StoredVoice>, Fault> {
    let mut moment = owned.store.read().await?;
    let total = count(&mut moment, &owned.owner).await?;
    let column = ask.sort.column();
    let (sign, order) = if ask.descending { ("<", "DESC") } else { (">", "ASC") };
    let after = match &ask.after {
        Some(_) => format!("AND ({column}, id) {sign} ($3, $4)"),
        None => String::new(),
    };
    let text =
        format!("SELECT {COLUMNS} FROM voices WHERE owner = $1 {after} ORDER BY {column} {order}, id {order} LIMIT $2");
    let limit = i64::try_from(ask.limit + 1).unwrap_or(i64::MAX);
    let mut query = sqlx::query(AssertSqlSafe(text)).bind(owned.owner.to_string()).bind(limit);
    if let Some(place) = &ask.after {
        query = query.bind(place.key.clone()).bind(place.id.clone());
    }
    let rows = query.fetch_all(&mut *moment).await?;
    moment.commit().await?;
    let items = rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
    Ok(Page::cut(items, ask.limit, total, |voice| ask.sort.place(voice)))
}

pub(super) async fn find(connection: &mut AnyConnection, owner: &str, id: &str) -> Result<StoredVoice, Fault> {
    let text = format!("SELECT {COLUMNS} FROM voices WHERE owner = $1 AND id = $2");
    let query = sqlx::query(AssertSqlSafe(text)).bind(owner.to_owned()).bind(id.to_owned());
    let found = query.fetch_optional(connection).await?.ok_or_else(|| Fault::not_found("voice", id))?;
    Ok(stored(&found)?)
}

/// The names of the characters that speak with a voice.
pub(super) async fn users(connection: &mut AnyConnection, owner: &str, id: &str) -> Result<Vec<String>, Fault> {
    let query = sqlx::query("SELECT name FROM characters WHERE owner = $1 AND voice = $2 ORDER BY name");
    let rows = query.bind(owner.to_owned()).bind(id.to_owned()).fetch_all(connection).await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// False where the owner has a voice with this id.
pub(super) async fn insert(connection: &mut AnyConnection, owner: &str, voice: &StoredVoice) -> Result<bool, Fault> {
    let written = sqlx::query(
        "INSERT INTO voices (owner, id, name, method, engine, language, speaker_description, scene_prompt, transcript,
                             file, content_hash, seconds, status, error, version, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CAST($12 AS DOUBLE PRECISION), $13, $14, $15, $16, $16)
         ON CONFLICT (owner, id) DO NOTHING",
    )
    .bind(owner.to_owned())
    .bind(voice.id.clone())
    .bind(voice.name.clone())
    .bind(voice.method.name())
    .bind(voice.engine.clone())
    .bind(voice.language.clone())
    .bind(voice.speaker_description.clone())
    .bind(voice.scene_prompt.clone())
    .bind(voice.transcript.clone())
    .bind(voice.recording.as_ref().map(|it| it.file.clone()))
    .bind(voice.recording.as_ref().map(|it| it.content_hash.clone()))
    // The driver sends a number that is missing as another type than one that is there.
    .bind(voice.recording.as_ref().map(|it| it.seconds.to_string()))
    .bind(voice.status.name())
    .bind(voice.error.clone())
    .bind(voice.version)
    .bind(voice.created_at.clone())
    .execute(connection)
    .await?;
    Ok(written.rows_affected() == 1)
}

pub(super) async fn update(connection: &mut AnyConnection, owner: &str, voice: &StoredVoice) -> Result<(), Fault> {
    sqlx::query(
        "UPDATE voices SET name = $1, language = $2, speaker_description = $3, scene_prompt = $4, transcript = $5,
                file = $6, content_hash = $7, seconds = CAST($8 AS DOUBLE PRECISION), status = $9, error = $10, version = $11, updated_at = $12
         WHERE owner = $13 AND id = $14",
    )
    .bind(voice.name.clone())
    .bind(voice.language.clone())
    .bind(voice.speaker_description.clone())
    .bind(voice.scene_prompt.clone())
    .bind(voice.transcript.clone())
    .bind(voice.recording.as_ref().map(|it| it.file.clone()))
    .bind(voice.recording.as_ref().map(|it| it.content_hash.clone()))
    // The driver sends a number that is missing as another type than one that is there.
    .bind(voice.recording.as_ref().map(|it| it.seconds.to_string()))
    .bind(voice.status.name())
    .bind(voice.error.clone())
    .bind(voice.version)
    .bind(voice.updated_at.clone())
    .bind(owner.to_owned())
    .bind(voice.id.clone())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn stored(row: &AnyRow) -> Result<StoredVoice, sqlx::Error> {
    let recording = match row.try_get::<Option<String>, _>("file")? {
        Some(file) => Some(StoredRecording {
            file,
            content_hash: row.try_get::<Option<String>, _>("content_hash")?.unwrap_or_default(),
            seconds: row.try_get::<Option<f64>, _>("seconds")?.unwrap_or_default(),
        }),
        None => None,
    };
    Ok(StoredVoice {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        // The schema allows no other.
        method: if row.try_get::<String, _>("method")? == "clone" {
            VoiceMethod::Clone
        } else {
            VoiceMethod::Description
        },
        engine: row.try_get("engine")?,
        language: row.try_get("language")?,
        speaker_description: row.try_get("speaker_description")?,
        scene_prompt: row.try_get("scene_prompt")?,
        transcript: row.try_get("transcript")?,
        recording,
        status: match row.try_get::<String, _>("status")?.as_str() {
            "processing" => VoiceStatus::Processing,
            "failed" => VoiceStatus::Failed,
            _ => VoiceStatus::Ready,
        },
        error: row.try_get("error")?,
        version: row.try_get("version")?,
        created_at: row.try_get("created_at")?,
        updated_at: row.try_get("updated_at")?,
    })
}

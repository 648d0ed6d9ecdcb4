//! Rows to records and back: names of states, JSON as text, times.

use std::time::Duration;

use serde_json::Value;
use sqlx::Row;
use sqlx::any::AnyRow;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::provider::Role;
use crate::session::record::{Character, Message, MessageStatus};

/// Now, as RFC 3339 in UTC with milliseconds: as text, times sort as they pass.
pub(super) fn now() -> String {
    written(OffsetDateTime::now_utc())
}

/// What it was so long ago.
pub(super) fn ago(age: Duration) -> String {
    written(OffsetDateTime::now_utc() - age)
}

/// The same of another moment, which is in UTC.
pub(super) fn written(moment: OffsetDateTime) -> String {
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        moment.year(),
        u8::from(moment.month()),
        moment.day(),
        moment.hour(),
        moment.minute(),
        moment.second(),
        moment.millisecond()
    )
}

/// A time as [`now`] writes it. None: it is not RFC 3339.
pub(super) fn time(text: &str) -> Option<String> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?.checked_to_offset(UtcOffset::UTC)?;
    Some(written(time))
}

/// A count as the databases hold it.
pub(super) fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The columns that [`character`] reads.
pub(super) fn character(row: &AnyRow) -> Result<Character, sqlx::Error> {
    Ok(Character {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        system_prompt: row.try_get("system_prompt")?,
        personality: row.try_get("personality")?,
        voice: row.try_get("voice")?,
        languages: json(row, "languages")?,
        parameters: json(row, "parameters")?,
        model: row.try_get("model")?,
        talkativeness: row.try_get::<f64, _>("talkativeness")? as f32,
        is_active: row.try_get::<i64, _>("is_active")? == 1,
    })
}

pub(super) fn message(row: &AnyRow) -> Result<Message, sqlx::Error> {
    Ok(Message {
        id: row.try_get("id")?,
        conversation_id: row.try_get("conversation_id")?,
        role: json_word(row, "role")?,
        character_id: row.try_get("character_id")?,
        character_name: row.try_get("character_name")?,
        content: row.try_get("content")?,
        status: json_word(row, "status")?,
        heard_chars: row.try_get::<Option<i64>, _>("heard_chars")?.and_then(|count| usize::try_from(count).ok()),
        metadata: json::<Value>(row, "metadata")?,
        client_message_id: row.try_get("client_message_id")?,
    })
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    }
}

pub(super) fn status_name(status: MessageStatus) -> &'static str {
    match status {
        MessageStatus::Pending => "pending",
        MessageStatus::Processing => "processing",
        MessageStatus::Completed => "completed",
        MessageStatus::Failed => "failed",
    }
}

pub(super) fn json<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|error| undecodable(column, error))
}

/// A column that holds the bare wire name of an enum.
pub(super) fn json_word<T: serde::de::DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, sqlx::Error> {
    let text: String = row.try_get(column)?;
    serde_json::from_value(Value::String(text)).map_err(|error| undecodable(column, error))
}

fn undecodable(column: &str, error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: Box::new(error) }
}

//! Settings of the whole server that were saved through the API.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::Row;

use super::record::Fault;
use super::{Store, row};
use crate::session::record::RecordError;

impl Store {
    /// What was saved, by name.
    pub async fn settings(&self) -> Result<BTreeMap<String, Value>, RecordError> {
        let read = async {
            let mut moment = self.read().await?;
            let rows = sqlx::query("SELECT name, value FROM settings ORDER BY name").fetch_all(&mut *moment).await?;
            moment.commit().await?;
            let mut settings = BTreeMap::new();
            for found in rows {
                let (name, text): (String, String) = (found.try_get("name")?, found.try_get("value")?);
                match serde_json::from_str(&text) {
                    Ok(value) => drop(settings.insert(name, value)),
                    Err(error) => tracing::warn!(name, %error, "a saved setting is no JSON and is ignored"),
                }
            }
            Ok(settings)
        };
        read.await.map_err(Fault::report)
    }

    /// Saves all of these, or none. None as a value: the setting has its default again.
    pub async fn save_settings(&self, settings: &BTreeMap<String, Option<Value>>) -> Result<(), RecordError> {
        let save = async {
            let mut lock = self.write().await?;
            for (name, value) in settings {
                let query = match value {
                    None => sqlx::query("DELETE FROM settings WHERE name = $1").bind(name.clone()),
                    Some(value) => sqlx::query(
                        "INSERT INTO settings (name, value, updated_at) VALUES ($1, $2, $3)
                         ON CONFLICT (name) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
                    )
                    .bind(name.clone())
                    .bind(value.to_string())
                    .bind(row::now()),
                };
                query.execute(&mut *lock).await?;
            }
            lock.commit().await?;
            Ok(())
        };
        save.await.map_err(Fault::report)
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;

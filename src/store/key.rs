//! API keys, and the logins that browsers make with them.
//!
//! A key is `aichat_`, 256 random bits and a checksum, all in letters and digits, so that a double click takes all of
//! it, a program that looks for secrets finds it, and a typing error is told without a query. The database has SHA-256
//! of keys and of login cookies, never these themselves.

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use sqlx::any::AnyRow;
use sqlx::{Any, Row, Transaction};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::record::Fault;
use super::{CharacterChange, LOCAL_OWNER, Scope, Store, character, row};
use crate::session::record::RecordError;

/// What every key begins with.
const PREFIX: &str = "aichat_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";
/// Of the alphabet's, that hold 256 bits.
const SECRET_CHARS: usize = 43;
const CHECKSUM_CHARS: usize = 6;
/// Shown of a key, after its prefix: nothing of use to whoever guesses.
const SHOWN_CHARS: usize = 4;
const MOST_NAME_CHARS: usize = 64;
/// Ten years: whoever wants more wants a key without an end.
const MOST_DAYS: u32 = 3660;

/// Whom a new owner can talk to at once, as the schema's own character: name, description, prompt.
const MIRA: [&str; 3] = [
    "Mira",
    "A warm, concise voice assistant.",
    "You are Mira, a warm and thoughtful friend. Answer first, in a few short sentences, and add detail only if it \
     helps. If you do not know something, say so.",
];

/// A key, without itself. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub name: String,
    /// Whose rows it reads and changes.
    pub owner: String,
    pub scope: Scope,
    /// Its first characters.
    pub prefix: String,
    pub created_at: String,
    /// To the minute.
    pub last_used_at: Option<String>,
    /// None: never.
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
}

impl Key {
    /// Neither revoked nor expired.
    pub fn is_living(&self) -> bool {
        self.revoked_at.is_none() && self.expires_at.as_ref().is_none_or(|end| *end > row::now())
    }
}

/// A key that is to be made.
#[derive(Clone, Debug)]
pub struct NewKey {
    pub name: String,
    pub scope: Scope,
    /// None: `local` for the first admin key, otherwise an owner of its own.
    pub owner: Option<String>,
    /// None: it never expires.
    pub days: Option<u32>,
}

/// Why a key cannot be made or revoked.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("a name of a key or of an owner has 1 to {MOST_NAME_CHARS} characters, none of them invisible")]
    BadName,
    #[error("a key may last 1 to {MOST_DAYS} days; leave the days out for one that never expires")]
    BadDays,
    #[error("there is a key named {0:?} already; choose another name, or revoke that one first")]
    NameTaken(String),
    #[error("there is no key named {0:?} that is not revoked; `aichat keys list` shows all")]
    Unknown(String),
    #[error("no random numbers could be had: {0}")]
    Random(rand::rand_core::OsError),
    #[error("the database failed: {0}")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl From<Fault> for KeyError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Database(error) => Self::Database(error),
            Fault::Record(error) => Self::Record(error),
        }
    }
}

/// SHA-256 in hexadecimal: what is kept of a key or a cookie, since whatever has 256 random bits needs nothing slower, and
/// what a recording is known by.
pub fn digest(content: impl AsRef<[u8]>) -> String {
    Sha256::digest(content)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|it| char::from(HEXADECIMAL[usize::from(it)]))
        .collect()
}

/// 256 random bits as letters and digits.
///
/// # Errors
/// The system has none.
pub fn random_secret() -> Result<String, KeyError> {
    let mut secret = String::with_capacity(SECRET_CHARS);
    let mut bytes = [0; 64];
    while secret.len() < SECRET_CHARS {
        OsRng.try_fill_bytes(&mut bytes).map_err(KeyError::Random)?;
        // Four times 62 numbers, so that each letter is as likely.
        let letters = bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        secret.extend(letters.take(SECRET_CHARS - secret.len()));
    }
    Ok(secret)
}

/// Whether a text could be a key at all.
pub fn is_well_formed(key: &str) -> bool {
    let Some(rest) = key.strip_prefix(PREFIX) else { return false };
    rest.is_ascii()
        && rest.len() == SECRET_CHARS + CHECKSUM_CHARS
        && checksum(&rest[..SECRET_CHARS]) == rest[SECRET_CHARS..]
}

fn checksum(secret: &str) -> String {
    let letter = |byte: &u8| char::from(ALPHABET[usize::from(byte % 62)]);
    Sha256::digest(secret).iter().take(CHECKSUM_CHARS).map(letter).collect()
}

impl Store {
    /// Makes a key. What it returns beside it is the key itself, which nobody can tell again. A new owner gets a
    /// character to talk to.
    ///
    /// # Errors
    /// The name is taken or odd; the database does not answer.
    pub async fn create_key(&self, new: NewKey) -> Result<(Key, String), KeyError> {
        if !is_name(&new.name) || new.owner.as_deref().is_some_and(|owner| !is_name(owner)) {
            return Err(KeyError::BadName);
        }
        if new.days.is_some_and(|days| !(1..=MOST_DAYS).contains(&days)) {
            return Err(KeyError::BadDays);
        }
        let secret = random_secret()?;
        let text = format!("{PREFIX}{secret}{}", checksum(&secret));
        let mut lock = self.write().await?;
        let others = all(&mut lock).await?;
        let mut unrevoked = others.iter().filter(|key| key.revoked_at.is_none());
        if unrevoked.clone().any(|key| key.name == new.name) {
            return Err(KeyError::NameTaken(new.name));
        }
        let is_first_admin = !unrevoked.any(|key| key.scope == Scope::Admin && key.owner == LOCAL_OWNER);
        let id = Uuid::now_v7().to_string();
        let owner = match new.owner {
            Some(owner) => owner,
            None if new.scope == Scope::Admin && is_first_admin => LOCAL_OWNER.to_owned(),
            None => id.clone(),
        };
        let key = Key {
            id,
            name: new.name,
            owner,
            scope: new.scope,
            prefix: text[..PREFIX.len() + SHOWN_CHARS].to_owned(),
            created_at: row::now(),
            last_used_at: None,
            expires_at: new.days.map(|days| row::written(OffsetDateTime::now_utc() + Duration::days(days.into()))),
            revoked_at: None,
        };
        if key.owner != LOCAL_OWNER && !others.iter().any(|other| other.owner == key.owner) {
            let [name, description, system_prompt] = MIRA.map(|text| Some(text.to_owned()));
            let mira = CharacterChange { name, description, system_prompt, ..CharacterChange::default() };
            character::create(&mut lock, &key.owner, mira).await?;
        }
        insert(&mut lock, &key, &digest(&text)).await?;
        lock.commit().await?;
        Ok((key, text))
    }

    /// Every key, the oldest first, revoked ones too.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn keys(&self) -> Result<Vec<Key>, KeyError> {
        let mut moment = self.read().await?;
        let keys = all(&mut moment).await?;
        moment.commit().await?;
        Ok(keys)
    }

    /// Ends a key, and with it every login.
    ///
    /// # Errors
    /// There is none of that name; the database does not answer.
    pub async fn revoke_key(&self, name: &str) -> Result<(), KeyError> {
        let revoked = sqlx::query("UPDATE api_keys SET revoked_at = $1 WHERE name = $2 AND revoked_at IS NULL")
            .bind(row::now())
            .bind(name.to_owned())
            .execute(&self.writer)
            .await?;
        if revoked.rows_affected() == 0 { Err(KeyError::Unknown(name.to_owned())) } else { Ok(()) }
    }

    /// The living key with this digest.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn living_key(&self, digest: &str) -> Result<Option<Key>, sqlx::Error> {
        let found = sqlx::query(
            "SELECT id, name, owner, scope, prefix, created_at, last_used_at, expires_at, revoked_at FROM api_keys \
             WHERE digest = $1",
        )
        .bind(digest.to_owned())
        .fetch_optional(&self.readers)
        .await?;
        Ok(found.as_ref().map(read).transpose()?.filter(Key::is_living))
    }

    /// Whether there is a key that was not revoked. One that has expired is one: nothing opens by itself.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn has_keys(&self) -> Result<bool, sqlx::Error> {
        let keys: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM api_keys WHERE revoked_at IS NULL")
            .fetch_one(&self.readers)
            .await?;
        Ok(keys > 0)
    }

    /// Whether somebody could administer a server that has no key in its settings.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn has_admin_key(&self) -> Result<bool, KeyError> {
        Ok(self.keys().await?.iter().any(|key| key.scope == Scope::Admin && key.is_living()))
    }

    /// Notes that a key is in use.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn note_use(&self, key_id: &str) -> Result<(), sqlx::Error> {
        sqlx::query("UPDATE api_keys SET last_used_at = $1 WHERE id = $2")
            .bind(row::now())
            .bind(key_id.to_owned())
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Begins a login with the key of this digest, and returns the cookie's value. Those that are over are forgotten.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn begin_login(&self, key_digest: &str, days: u32) -> Result<String, KeyError> {
        let secret = random_secret()?;
        let now = row::now();
        let mut lock = self.write().await?;
        sqlx::query("DELETE FROM logins WHERE expires_at <= $1").bind(now.clone()).execute(&mut *lock).await?;
        sqlx::query("INSERT INTO logins (digest, key_digest, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(digest(&secret))
            .bind(key_digest.to_owned())
            .bind(now)
            .bind(row::written(OffsetDateTime::now_utc() + Duration::days(days.into())))
            .execute(&mut *lock)
            .await?;
        lock.commit().await?;
        Ok(secret)
    }

    /// The digest of the key that a login was made with. Whether that still lives is another question.
    ///
    /// # Errors
    /// The database does not answer.
    pub async fn login(&self, digest: &str) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar("SELECT key_digest FROM logins WHERE digest = $1 AND expires_at > $2")
            .bind(digest.to_owned())
            .bind(row::now())
            .fetch_optional(&self.readers)
            .await
    }

    /// # Errors
    /// The database does not answer.
    pub async fn end_login(&self, digest: &str) -> Result<(), sqlx::Error> {
        sqlx::query("DELETE FROM logins WHERE digest = $1").bind(digest.to_owned()).execute(&self.writer).await?;
        Ok(())
    }
}

fn is_name(name: &str) -> bool {
    let visible = name.trim() == name && !name.chars().any(char::is_control);
    visible && (1..=MOST_NAME_CHARS).contains(&name.chars().count())
}

async fn all(lock: &mut Transaction<'_, Any>) -> Result<Vec<Key>, sqlx::Error> {
    let query = "SELECT /* every row */ id, name, owner, scope, prefix, created_at, last_used_at, expires_at, \
                 revoked_at FROM api_keys ORDER BY created_at, id";
    sqlx::query(query).fetch_all(&mut **lock).await?.iter().map(read).collect()
}

fn read(row: &AnyRow) -> Result<Key, sqlx::Error> {
    Ok(Key {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        owner: row.try_get("owner")?,
        scope: row::json_word(row, "scope")?,
        prefix: row.try_get("prefix")?,
        created_at: row.try_get("created_at")?,
        last_used_at: row.try_get("last_used_at")?,
        expires_at: row.try_get("expires_at")?,
        revoked_at: row.try_get("revoked_at")?,
    })
}

async fn insert(lock: &mut Transaction<'_, Any>, key: &Key, digest: &str) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO api_keys (id, name, owner, scope, digest, prefix, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(key.id.clone())
    .bind(key.name.clone())
    .bind(key.owner.clone())
    .bind(key.scope.as_str())
    .bind(digest.to_owned())
    .bind(key.prefix.clone())
    .bind(key.created_at.clone())
    .bind(key.expires_at.clone())
    .execute(&mut **lock)
    .await?;
    Ok(())
}

#[cfg(test)]
#[path = "key_tests.rs"]
mod tests;

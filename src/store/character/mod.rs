//! An owner's characters.
//!
//! An id is the slug of the first name given and a running number that no other character had or will have, of any
//! owner; it stays when the name changes. Searches compare a text that [`fold`] made when the row was written, so they
//! find the same on both databases.

pub(super) mod fold;

use sqlx::any::{AnyArguments, AnyRow};
use sqlx::query::Query;
use sqlx::{Any, AnyConnection, AssertSqlSafe, Row};

use super::conversation::{Changed, stored_conversation};
use super::record::Fault;
use super::{Owned, Page, PageAsk, Place, row};
use crate::session::record::{Character, RecordError};

/// A character as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredCharacter {
    pub character: Character,
    /// A picture elsewhere. None where [`Self::image_file`] is.
    pub image_url: Option<String>,
    /// The name of the uploaded picture's file.
    pub image_file: Option<String>,
    /// Grows with every change.
    pub version: i64,
    /// RFC 3339, UTC.
    pub created_at: String,
    pub updated_at: String,
}

/// What is to be different. None: it stays.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CharacterChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub system_prompt: Option<String>,
    pub personality: Option<String>,
    pub voice: Option<Option<String>>,
    /// Either way an uploaded picture is gone.
    pub image_url: Option<Option<String>>,
    /// The file of an uploaded picture.
    pub image_file: Option<String>,
    pub model: Option<Option<String>>,
    /// A JSON object.
    pub parameters: Option<serde_json::Value>,
    pub talkativeness: Option<f32>,
    pub languages: Option<Vec<String>>,
    pub is_active: Option<bool>,
}

/// What a list of characters is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharacterSort {
    CreatedAt,
    UpdatedAt,
    Name,
}

const COLUMNS: &str = "id, name, description, system_prompt, personality, voice, image_url, image_file, model, \
                       parameters, talkativeness, languages, is_active, version, created_at, updated_at";
/// More words of a search are not looked at.
const MOST_WORDS: usize = 16;

impl Owned {
    /// The owner's characters, or those of them that are active, or that are not.
    pub async fn list_characters(
        &self,
        ask: &PageAsk<CharacterSort>,
        is_active: Option<bool>,
    ) -> Result<Page<StoredCharacter>, RecordError> {
        list(self, ask, is_active, "").await.map_err(Fault::report)
    }

    /// The characters whose name and description hold every word of `query`, whole or in part, whatever its case and
    /// diacritics.
    pub async fn search_characters(
        &self,
        ask: &PageAsk<CharacterSort>,
        query: &str,
    ) -> Result<Page<StoredCharacter>, RecordError> {
        list(self, ask, None, query).await.map_err(Fault::report)
    }

    pub async fn character(&self, id: &str) -> Result<StoredCharacter, RecordError> {
        let read = async {
            let mut moment = self.store.read().await?;
            let found = find(&mut moment, &self.owner, id).await?;
            moment.commit().await?;
            Ok(found)
        };
        read.await.map_err(Fault::report)
    }

    /// Makes a character of what is given, and defaults.
    pub async fn create_character(&self, change: CharacterChange) -> Result<StoredCharacter, RecordError> {
        let create = async {
            let mut lock = self.store.write().await?;
            let new = create(&mut lock, &self.owner, change).await?;
            lock.commit().await?;
            Ok(new)
        };
        create.await.map_err(Fault::report)
    }

    /// Changes a character if `check` allows it at the version that it has. Answers it as it was before, and as it is.
    ///
    /// # Errors
    /// What `check` answers, or the records' own; nothing is changed then.
    pub async fn change_character<E: From<RecordError>>(
        &self,
        id: &str,
        check: impl FnOnce(i64) -> Result<(), E>,
        change: CharacterChange,
    ) -> Result<(StoredCharacter, StoredCharacter), E> {
        let change = async {
            let mut lock = self.store.write().await?;
            let before = self.lock_character(&mut lock, id).await?;
            if let Err(refusal) = check(before.version) {
                return Ok(Err(refusal));
            }
            let mut after = before.clone();
            after.apply(change);
            (after.version, after.updated_at) = (before.version + 1, row::now());
            update(&mut lock, &self.owner, &after).await?;
            lock.commit().await?;
            Ok(Ok((before, after)))
        };
        change.await.map_err(|fault: Fault| E::from(fault.report()))?
    }

    /// Removes a character if `check` allows it at the version that it has. Conversations lose the member; messages keep
    /// its name. Answers what was removed.
    ///
    /// # Errors
    /// What `check` answers, or the records' own; nothing is removed then.
    pub async fn delete_character<E: From<RecordError>>(
        &self,
        id: &str,
        check: impl FnOnce(i64) -> Result<(), E>,
    ) -> Result<StoredCharacter, E> {
        let delete = async {
            let mut lock = self.store.write().await?;
            let found = self.lock_character(&mut lock, id).await?;
            if let Err(refusal) = check(found.version) {
                return Ok(Err(refusal));
            }
            // Whoever holds a conversation's tag holds the list of its members.
            let left = "UPDATE conversations SET version = version + 1
                        WHERE id IN (SELECT conversation_id FROM conversation_characters WHERE character_id = $1)
                        RETURNING id";
            let left: Vec<String> = sqlx::query_scalar(left).bind(id.to_owned()).fetch_all(&mut *lock).await?;
            let deleted = sqlx::query("DELETE FROM characters WHERE id = $1 AND owner = $2");
            deleted.bind(id.to_owned()).bind(self.owner.to_string()).execute(&mut *lock).await?;
            let mut recast = Vec::with_capacity(left.len());
            for id in left {
                let conversation = Box::new(stored_conversation(&mut lock, &self.owner, &id).await?);
                recast.push((id, Changed::Conversation { conversation, is_recast: true }));
            }
            lock.commit().await?;
            self.tell_all(|| recast);
            Ok(Ok(found))
        };
        delete.await.map_err(|fault: Fault| E::from(fault.report()))?
    }

    /// Reads a row that is about to change. Writing it first locks it where transactions run side by side.
    async fn lock_character(&self, lock: &mut AnyConnection, id: &str) -> Result<StoredCharacter, Fault> {
        let locked = sqlx::query("UPDATE characters SET version = version WHERE id = $1 AND owner = $2");
        locked.bind(id.to_owned()).bind(self.owner.to_string()).execute(&mut *lock).await?;
        find(lock, &self.owner, id).await
    }
}

impl StoredCharacter {
    fn apply(&mut self, change: CharacterChange) {
        let character = &mut self.character;
        take(&mut character.name, change.name);
        take(&mut character.description, change.description);
        take(&mut character.system_prompt, change.system_prompt);
        take(&mut character.personality, change.personality);
        take(&mut character.voice, change.voice);
        take(&mut character.model, change.model);
        take(&mut character.parameters, change.parameters);
        take(&mut character.talkativeness, change.talkativeness);
        take(&mut character.languages, change.languages);
        take(&mut character.is_active, change.is_active);
        if let Some(url) = change.image_url {
            (self.image_url, self.image_file) = (url, None);
        }
        if let Some(file) = change.image_file {
            (self.image_url, self.image_file) = (None, Some(file));
        }
    }

    fn search_text(&self) -> String {
        fold::fold(&format!("{} {}", self.character.name, self.character.description))
    }
}

fn take<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

impl CharacterSort {
    const fn column(self) -> &'static str {
        match self {
            Self::CreatedAt => "created_at",
            Self::UpdatedAt => "updated_at",
            Self::Name => "name",
        }
    }

    fn key(self, stored: &StoredCharacter) -> &str {
        match self {
            Self::CreatedAt => &stored.created_at,
            Self::UpdatedAt => &stored.updated_at,
            Self::Name => &stored.character.name,
        }
    }
}

/// The condition of a list, with its values in order. The text holds nothing that came from outside.
struct Condition {
    text: String,
    values: Vec<Value>,
}

#[derive(Clone)]
enum Value {
    Text(String),
    Number(i64),
}

impl Condition {
    fn new(owner: &str) -> Self {
        Self { text: "owner = $1".to_owned(), values: vec![Value::Text(owner.to_owned())] }
    }

    fn and(&mut self, other: &str) {
        self.text.push_str(" AND ");
        self.text.push_str(other);
    }

    /// The place of one more value.
    fn value(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    fn bind(self, text: String) -> Query<'static, Any, AnyArguments> {
        let query = sqlx::query(AssertSqlSafe(text));
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Text(text) => query.bind(text),
            Value::Number(number) => query.bind(number),
        })
    }
}

async fn list(
    owned: &Owned,
    ask: &PageAsk<CharacterSort>,
    is_active: Option<bool>,
    query: &str,
) -> Result<Page<StoredCharacter>, Fault> {
    let mut condition = Condition::new(&owned.owner);
    if let Some(is_active) = is_active {
        let place = condition.value(Value::Number(i64::from(is_active)));
        condition.and(&format!("is_active = {place}"));
    }
    for word in fold::fold(query).split(' ').filter(|word| !word.is_empty()).take(MOST_WORDS) {
        let place = condition.value(Value::Text(pattern(word)));
        condition.and(&format!("search_text LIKE {place} ESCAPE '!'"));
    }
    let mut moment = owned.store.read().await?;
    let counted = format!("SELECT COUNT(*) FROM characters WHERE {}", condition.text);
    let counting = Condition { text: String::new(), values: condition.values.clone() };
    let total: i64 = counting.bind(counted).fetch_one(&mut *moment).await?.try_get(0)?;
    let column = ask.sort.column();
    let (sign, order) = if ask.descending { ("<", "DESC") } else { (">", "ASC") };
    if let Some(place) = &ask.after {
        let key = condition.value(Value::Text(place.key.clone()));
        let id = condition.value(Value::Text(place.id.clone()));
        condition.and(&format!("({column}, id) {sign} ({key}, {id})"));
    }
    let limit = condition.value(Value::Number(i64::try_from(ask.limit + 1).unwrap_or(i64::MAX)));
    let text = format!(
        "SELECT {COLUMNS} FROM characters WHERE {} ORDER BY {column} {order}, id {order} LIMIT {limit}",
        condition.text
    );
    let rows = condition.bind(text).fetch_all(&mut *moment).await?;
    moment.commit().await?;
    let items = rows.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
    let place = |item: &StoredCharacter| Place { key: ask.sort.key(item).to_owned(), id: item.character.id.clone() };
    Ok(Page::cut(items, ask.limit, total, place))
}

/// Anything with `word` in it.
fn pattern(word: &str) -> String {
    let mut pattern = "%".to_owned();
    for c in word.chars() {
        if matches!(c, '%' | '_' | '!') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern + "%"
}

async fn find(connection: &mut AnyConnection, owner: &str, id: &str) -> Result<StoredCharacter, Fault> {
    let text = format!("SELECT {COLUMNS} FROM characters WHERE id = $1 AND owner = $2");
    let found = sqlx::query(AssertSqlSafe(text))
        .bind(id.to_owned())
        .bind(owner.to_owned())
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| Fault::not_found("character", id))?;
    Ok(stored(&found)?)
}

pub(super) fn stored(found: &AnyRow) -> Result<StoredCharacter, sqlx::Error> {
    Ok(StoredCharacter {
        character: row::character(found)?,
        image_url: found.try_get("image_url")?,
        image_file: found.try_get("image_file")?,
        version: found.try_get("version")?,
        created_at: found.try_get("created_at")?,
        updated_at: found.try_get("updated_at")?,
    })
}

/// What a character is of which only the name is given.
fn blank() -> StoredCharacter {
    let now = row::now();
    StoredCharacter {
        character: Character {
            id: String::new(),
            name: String::new(),
            description: String::new(),
            system_prompt: String::new(),
            personality: String::new(),
            voice: None,
            languages: Vec::new(),
            parameters: serde_json::Value::Object(serde_json::Map::new()),
            model: None,
            talkativeness: 0.5,
            is_active: true,
        },
        image_url: None,
        image_file: None,
        version: 1,
        created_at: now.clone(),
        updated_at: now,
    }
}

pub(super) async fn create(
    connection: &mut AnyConnection,
    owner: &str,
    change: CharacterChange,
) -> Result<StoredCharacter, Fault> {
    let mut new = blank();
    new.apply(change);
    new.character.id = next_id(connection, &fold::slug(&new.character.name)).await?;
    insert(connection, owner, &new).await?;
    Ok(new)
}

/// The next number of a slug. It is given away even if the character is deleted.
pub(super) async fn next_id(connection: &mut AnyConnection, slug: &str) -> Result<String, Fault> {
    let number: i64 = sqlx::query_scalar(
        "INSERT INTO character_numbers (slug, last) VALUES ($1, 1)
         ON CONFLICT (slug) DO UPDATE SET last = character_numbers.last + 1 RETURNING last",
    )
    .bind(slug.to_owned())
    .fetch_one(connection)
    .await?;
    Ok(format!("{slug}-{number:03}"))
}

pub(super) async fn insert(connection: &mut AnyConnection, owner: &str, new: &StoredCharacter) -> Result<(), Fault> {
    let query = sqlx::query(
        "INSERT INTO characters (name, description, system_prompt, personality, voice, image_url, image_file, model,
                                 parameters, talkativeness, languages, is_active, version, updated_at, search_text,
                                 id, owner, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)",
    );
    bind(query, owner, new).bind(new.created_at.clone()).execute(connection).await?;
    Ok(())
}

async fn update(connection: &mut AnyConnection, owner: &str, changed: &StoredCharacter) -> Result<(), Fault> {
    let query = sqlx::query(
        "UPDATE characters SET name = $1, description = $2, system_prompt = $3, personality = $4, voice = $5,
                               image_url = $6, image_file = $7, model = $8, parameters = $9, talkativeness = $10,
                               languages = $11, is_active = $12, version = $13, updated_at = $14, search_text = $15
         WHERE id = $16 AND owner = $17",
    );
    bind(query, owner, changed).execute(connection).await?;
    Ok(())
}

/// `$1` to `$17`.
fn bind(
    query: Query<'static, Any, AnyArguments>,
    owner: &str,
    stored: &StoredCharacter,
) -> Query<'static, Any, AnyArguments> {
    let character = &stored.character;
    query
        .bind(character.name.clone())
        .bind(character.description.clone())
        .bind(character.system_prompt.clone())
        .bind(character.personality.clone())
        .bind(character.voice.clone())
        .bind(stored.image_url.clone())
        .bind(stored.image_file.clone())
        .bind(character.model.clone())
        .bind(character.parameters.to_string())
        .bind(f64::from(character.talkativeness))
        .bind(serde_json::Value::from(character.languages.clone()).to_string())
        .bind(i64::from(character.is_active))
        .bind(stored.version)
        .bind(stored.updated_at.clone())
        .bind(stored.search_text())
        .bind(character.id.clone())
        .bind(owner.to_owned())
}

#[cfg(test)]
mod tests;

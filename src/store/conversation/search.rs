//! Full-text search over titles and messages: two texts of SQL, one behaviour.
//!
//! First the conversations whose title has all the words, the latest first, then the messages, those that were saved
//! last first. The last word of a query may be the beginning of one.

use sqlx::any::AnyRow;
use sqlx::{AssertSqlSafe, Row};

use super::words::{Snippet, Words};
use crate::provider::Role;
use crate::session::record::RecordError;
use crate::store::record::Fault;
use crate::store::{Kind, Owned, Page, PageAsk, Place, row};

/// Hits are counted as far as this, a longest page: each of them has to be looked up.
const MOST_COUNTED: usize = 200;

/// A title or a message that has the words.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    pub conversation_id: String,
    pub title: String,
    /// None: the title has them.
    pub message: Option<HitMessage>,
    /// Of the title or the message.
    pub snippet: Snippet,
    pub created_at: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HitMessage {
    pub id: String,
    pub role: Role,
    pub character_name: Option<String>,
}

/// What a place in the list of hits begins with, before its key.
const TITLE: &str = "title:";
const MESSAGE: &str = "message:";

impl Owned {
    /// A page of what has the words of `query`, outside the bin. A query without a word finds nothing. The total is
    /// counted up to 200.
    ///
    /// # Errors
    /// The database failed.
    pub async fn search(&self, query: &str, ask: &PageAsk<()>) -> Result<Page<Hit>, RecordError> {
        search(self, query, ask).await.map_err(|error| Fault::from(error).report())
    }
}

async fn search(owned: &Owned, query: &str, ask: &PageAsk<()>) -> Result<Page<Hit>, sqlx::Error> {
    let Some(words) = Words::of(query) else { return Ok(Page { items: Vec::new(), next: None, total: 0 }) };
    let of = Search::new(owned, &words);
    let mut found: Vec<(Place, Hit)> = Vec::new();
    let message = ask.after.as_ref().and_then(|place| place.key.strip_prefix(MESSAGE)?.parse::<i64>().ok());
    if message.is_none() {
        found = of.titles(ask).await?;
    }
    if found.len() <= ask.limit {
        let room = ask.limit + 1 - found.len();
        found.extend(of.messages(message.unwrap_or(i64::MAX), room).await?);
    }
    let total = of.count().await?;
    let page = Page::cut(found, ask.limit, total, |(place, _)| place.clone());
    let items = page.items.into_iter().map(|(_, hit)| hit).collect();
    Ok(Page { items, next: page.next, total: page.total })
}

/// A query for one owner's rows, in the database's own words.
struct Search<'a> {
    owned: &'a Owned,
    words: &'a Words,
    asked: String,
    titles: &'static str,
    messages: &'static str,
}

impl<'a> Search<'a> {
    fn new(owned: &'a Owned, words: &'a Words) -> Self {
        // The words are asked first: the other way round every row of an owner would be looked at.
        let (asked, titles, messages) = match owned.store.kind {
            Kind::Sqlite => (
                words.for_sqlite(),
                "FROM title_texts CROSS JOIN conversations AS c ON c.number = title_texts.rowid
                 WHERE title_texts MATCH $1 AND c.owner = $2 AND c.status <> 'deleted'",
                "FROM message_texts CROSS JOIN messages AS m ON m.number = message_texts.rowid
                 JOIN conversations AS c ON c.id = m.conversation_id
                 WHERE message_texts MATCH $1 AND m.owner = $2 AND c.status <> 'deleted'",
            ),
            Kind::Postgres => (
                words.for_postgres(),
                "FROM conversations AS c
                 WHERE search_words(c.title) @@ to_tsquery('pg_catalog.simple', $1) AND c.owner = $2
                     AND c.status <> 'deleted'",
                "FROM messages AS m JOIN conversations AS c ON c.id = m.conversation_id
                 WHERE search_words(m.content) @@ to_tsquery('pg_catalog.simple', $1) AND m.owner = $2
                     AND c.status <> 'deleted'",
            ),
        };
        Self { owned, words, asked, titles, messages }
    }

    async fn titles(&self, ask: &PageAsk<()>) -> Result<Vec<(Place, Hit)>, sqlx::Error> {
        let place = ask.after.as_ref().and_then(|place| Some((place.key.strip_prefix(TITLE)?, place.id.as_str())));
        let (created_at, id) = place.map_or(("", ""), |(created_at, id)| (created_at, id));
        let text = format!(
            "SELECT c.id, c.title, c.created_at {}
                 AND ($3 = '' OR c.created_at < $3 OR (c.created_at = $3 AND c.id < $4))
             ORDER BY c.created_at DESC, c.id DESC LIMIT $5",
            self.titles
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(self.asked.clone())
            .bind(self.owned.owner.to_string())
            .bind(created_at.to_owned())
            .bind(id.to_owned())
            .bind(row::number(ask.limit + 1))
            .fetch_all(&self.owned.store.readers)
            .await?;
        rows.iter().map(|found| self.title(found)).collect()
    }

    fn title(&self, found: &AnyRow) -> Result<(Place, Hit), sqlx::Error> {
        let (id, title): (String, String) = (found.try_get("id")?, found.try_get("title")?);
        let created_at: String = found.try_get("created_at")?;
        let place = Place { key: format!("{TITLE}{created_at}"), id: id.clone() };
        let snippet = self.words.snippet(&title);
        Ok((place, Hit { conversation_id: id, title, message: None, snippet, created_at }))
    }

    async fn messages(&self, before: i64, limit: usize) -> Result<Vec<(Place, Hit)>, sqlx::Error> {
        let number = match self.owned.store.kind {
            Kind::Sqlite => "message_texts.rowid",
            Kind::Postgres => "m.number",
        };
        let text = format!(
            "SELECT m.number, m.id, m.role, m.character_name, m.content, m.created_at, c.id AS conversation_id, c.title
             {} AND {number} < $3 ORDER BY {number} DESC LIMIT $4",
            self.messages
        );
        let rows = sqlx::query(AssertSqlSafe(text))
            .bind(self.asked.clone())
            .bind(self.owned.owner.to_string())
            .bind(before)
            .bind(row::number(limit))
            .fetch_all(&self.owned.store.readers)
            .await?;
        rows.iter().map(|found| self.message(found)).collect()
    }

    fn message(&self, found: &AnyRow) -> Result<(Place, Hit), sqlx::Error> {
        let message = HitMessage {
            id: found.try_get("id")?,
            role: row::json_word(found, "role")?,
            character_name: found.try_get("character_name")?,
        };
        let place = Place { key: format!("{MESSAGE}{}", found.try_get::<i64, _>("number")?), id: message.id.clone() };
        let hit = Hit {
            conversation_id: found.try_get("conversation_id")?,
            title: found.try_get("title")?,
            message: Some(message),
            snippet: self.words.snippet(&found.try_get::<String, _>("content")?),
            created_at: found.try_get("created_at")?,
        };
        Ok((place, hit))
    }

    async fn count(&self) -> Result<i64, sqlx::Error> {
        let text = format!(
            "SELECT (SELECT COUNT(*) FROM (SELECT 1 AS hit {} LIMIT {MOST_COUNTED}) AS found_titles)
                  + (SELECT COUNT(*) FROM (SELECT 1 AS hit {} LIMIT {MOST_COUNTED}) AS found_messages)",
            self.titles, self.messages
        );
        let total: i64 = sqlx::query_scalar(AssertSqlSafe(text))
            .bind(self.asked.clone())
            .bind(self.owned.owner.to_string())
            .fetch_one(&self.owned.store.readers)
            .await?;
        Ok(total.min(row::number(MOST_COUNTED)))
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;

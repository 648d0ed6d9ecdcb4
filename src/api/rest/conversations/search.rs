//! `/api/conversations/search`: full text over titles and messages.

use std::sync::Arc;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::asked;
use super::shape::Speaker;
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::problem::{Problem, ProblemBody};
use crate::api::rest::list::{List, ListQuery};
use crate::api::rest::text;
use crate::store;

/// Titles first, then messages, the latest first.
const SORTS: [(&str, ()); 1] = [("latest", ())];
const QUERY: usize = 200;

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(search))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Words that a title or a message must all have; the last may be the beginning of one. Case and diacritics do not
    /// matter, and no sign means anything.
    #[param(required, value_type = String, min_length = 1, max_length = 200)]
    query: Option<String>,
}

/// A title or a message that has the words.
#[derive(Serialize, ToSchema)]
#[schema(as = SearchHit)]
struct Hit {
    conversation_id: String,
    /// The conversation's.
    title: String,
    /// Null: the title has the words.
    #[schema(required)]
    message_id: Option<String>,
    #[schema(required, nullable)]
    role: Option<Speaker>,
    #[schema(required)]
    character_name: Option<String>,
    /// Of the message, or of the title: what is around the first word that was found.
    snippet: String,
    /// Where in `snippet` words were found.
    marks: Vec<Mark>,
    /// The message's, or the conversation's.
    created_at: String,
}

/// A part of a snippet, in characters (Unicode code points).
#[derive(Serialize, ToSchema)]
#[schema(as = SearchMark)]
struct Mark {
    start: usize,
    /// Behind the last one.
    end: usize,
}

impl From<store::Hit> for Hit {
    fn from(hit: store::Hit) -> Self {
        let (message_id, role, character_name) = match hit.message {
            Some(message) => (Some(message.id), Some(message.role.into()), message.character_name),
            None => (None, None, None),
        };
        Self {
            conversation_id: hit.conversation_id,
            title: hit.title,
            message_id,
            role,
            character_name,
            snippet: hit.snippet.text,
            marks: hit.snippet.marks.into_iter().map(|mark| Mark { start: mark.start, end: mark.end }).collect(),
            created_at: hit.created_at,
        }
    }
}

/// Titles and messages with these words
///
/// Conversations whose title has them come first, then messages, the latest first. `total` counts up to 200. What is
/// deleted is not looked at.
#[utoipa::path(
    get,
    path = "/conversations/search",
    tag = "Conversations",
    params(ListQuery, Wanted),
    responses(
        (status = 200, body = List<Hit>),
        (status = "4XX", body = ProblemBody, content_type = "application/problem+json"),
        (status = "5XX", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn search(
    asker: Asker,
    query: Result<Query<ListQuery>, QueryRejection>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<List<Hit>>, Problem> {
    let (query, wanted) = (asked(query)?, asked(wanted)?);
    let words = wanted.query.ok_or_else(|| Problem::bad_field("query", "is missing"))?;
    text::check("query", &words, 1..=QUERY)?;
    let page = asker.rows.search(&words, &query.ask(&SORTS)?).await?;
    Ok(Json(List::of(page, &query, &SORTS, Hit::from)))
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;

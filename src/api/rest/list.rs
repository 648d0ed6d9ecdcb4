//! Lists over HTTP: which page is asked for, and how a page is told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::problem::Problem;
use crate::store::{Page, PageAsk, Place};

const DEFAULT_LIMIT: usize = 50;
const MOST_ITEMS: usize = 200;
/// Longer cursors than ours are not read.
const MOST_CURSOR_BYTES: usize = 4096;

/// The part of a query that every list takes.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Items of a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// What to sort by; a minus before it turns the order round.
    sort: Option<String>,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct List<T> {
    pub(super) items: Vec<T>,
    /// Where the next page begins; null on the last.
    #[schema(required)]
    pub(super) next_cursor: Option<String>,
    /// Items of the whole list.
    pub(super) total: usize,
}

impl ListQuery {
    /// `sorts` are the names that `sort` may have; the first is the default, with a minus where the latest come first.
    ///
    /// # Errors
    /// Names the parameter that is wrong.
    pub(super) fn ask<S: Copy>(&self, sorts: &[(&str, S)]) -> Result<PageAsk<S>, Problem> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MOST_ITEMS).contains(&limit) {
            return Err(Problem::bad_field("limit", format!("must be 1 to {MOST_ITEMS}")));
        }
        let default = sorts.first().map_or("", |(name, _)| *name);
        let asked = self.sort.as_deref().unwrap_or(default);
        let name = asked.trim_start_matches('-');
        let found = sorts.iter().find(|(known, _)| known.trim_start_matches('-') == name);
        let Some((_, sort)) = found.filter(|_| asked.len() - name.len() <= 1) else {
            let known: Vec<&str> = sorts.iter().map(|(known, _)| known.trim_start_matches('-')).collect();
            let message = format!("must be one of {}, with or without a minus before it", known.join(", "));
            return Err(Problem::bad_field("sort", message));
        };
        let after = self.cursor.as_deref().map(|cursor| read_cursor(cursor, asked)).transpose()?;
        Ok(PageAsk { limit, sort: *sort, descending: asked.starts_with('-'), after })
    }
}

impl<T> List<T> {
    /// A page as it is told. `query` and `sorts` are those that it was asked with.
    pub(super) fn of<R, S>(page: Page<R>, query: &ListQuery, sorts: &[(&str, S)], told: impl FnMut(R) -> T) -> Self {
        let sort = query.sort.as_deref().or_else(|| sorts.first().map(|(name, _)| *name)).unwrap_or_default();
        let next_cursor = page.next.map(|place| write_cursor(place, sort));
        Self { items: page.items.into_iter().map(told).collect(), next_cursor, total: page.total }
    }
}

/// What a cursor holds. A cursor of another order would skip items.
#[derive(Serialize, Deserialize)]
struct Cursor {
    sort: String,
    #[serde(flatten)]
    place: Place,
}

fn write_cursor(place: Place, sort: &str) -> String {
    let cursor = Cursor { sort: sort.to_owned(), place };
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap_or_default())
}

fn read_cursor(text: &str, sort: &str) -> Result<Place, Problem> {
    let wrong = || Problem::bad_field("cursor", "is not one that this list gave in this order");
    let bytes = Some(text).filter(|text| text.len() <= MOST_CURSOR_BYTES);
    let bytes = bytes.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(wrong)?;
    let cursor: Cursor = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let has_nul = cursor.place.key.contains('\0') || cursor.place.id.contains('\0');
    if cursor.sort == sort && !has_nul { Ok(cursor.place) } else { Err(wrong()) }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;

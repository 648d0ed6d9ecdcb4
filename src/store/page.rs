//! Pages of a list in a stable order: after each page a cursor says where the next one begins.

use serde::{Deserialize, Serialize};

/// Which page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAsk<S> {
    /// 1 to 200.
    pub limit: usize,
    /// What the list is sorted by.
    pub sort: S,
    pub descending: bool,
    /// Where the page before ended. None: the first page.
    pub after: Option<Place>,
}

/// A place in a sorted list: the last item before it. Two items never share both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What the item is sorted by.
    pub key: String,
    pub id: String,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page begins. None: this was the last.
    pub next: Option<Place>,
    /// Of the whole list.
    pub total: usize,
}

impl<T> Page<T> {
    /// A page of what was read: one item more than asked for says that another page follows.
    pub(super) fn cut(mut items: Vec<T>, limit: usize, total: i64, place: impl Fn(&T) -> Place) -> Self {
        let next = (items.len() > limit).then(|| {
            items.truncate(limit);
            items.last().map(&place)
        });
        Self { items, next: next.flatten(), total: usize::try_from(total).unwrap_or(0) }
    }
}

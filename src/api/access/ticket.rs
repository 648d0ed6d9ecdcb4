//! Tickets: a browser's page cannot send a key with a WebSocket, and a key has no place in an address, which logs keep.
//! A ticket opens one socket, within half a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::key::no_answer;
use super::{Identity, Problem};
use crate::api::House;
use crate::api::asker::Asker;
use crate::api::problem::ProblemBody;
use crate::store::{digest, random_secret};

const LASTS: Duration = Duration::from_secs(30);
/// Unused ones of one key: more than its sockets.
const MOST_OF_ONE: usize = 16;
/// Unused ones together.
const MOST: usize = 4096;

/// Unused tickets by digest.
#[derive(Default)]
pub(in crate::api) struct Tickets(Mutex<HashMap<String, (Instant, Identity)>>);

impl Tickets {
    fn issue(&self, identity: &Identity) -> Result<String, Problem> {
        let ticket = random_secret().map_err(|error| no_answer(&error))?;
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (since, _)| since.elapsed() < LASTS);
        let own = tickets.values().filter(|(_, other)| other.key == identity.key && other.owner == identity.owner);
        if own.count() >= MOST_OF_ONE || tickets.len() >= MOST {
            let detail = "too many tickets wait to be used; use them, or wait until they have run out";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).later(LASTS));
        }
        tickets.insert(digest(&ticket), (Instant::now(), identity.clone()));
        Ok(ticket)
    }

    /// Whom a ticket stands for. It stands for nobody afterwards.
    pub(super) fn take(&self, ticket: &str) -> Option<Identity> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest(ticket));
        found.filter(|(since, _)| since.elapsed() < LASTS).map(|(_, identity)| identity)
    }

    pub(super) fn sweep(&self) {
        let mut tickets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (since, _)| since.elapsed() < LASTS);
    }
}

/// The ticket in a query. It has no character that a query writes otherwise.
pub(super) fn of_query(query: Option<&str>) -> Option<&str> {
    query?.split('&').find_map(|pair| pair.strip_prefix("ticket="))
}

/// Opens one socket, as `/ws?ticket=…`.
#[derive(Serialize, ToSchema)]
struct Issued {
    ticket: String,
    /// Seconds.
    #[schema(example = 30)]
    expires_in: u64,
}

pub(super) fn routes() -> OpenApiRouter<Arc<House>> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// A ticket that opens one WebSocket
#[utoipa::path(
    post,
    path = "/ws-ticket",
    tag = "Access",
    responses(
        (status = 200, body = Issued),
        (status = 401, body = ProblemBody, content_type = "application/problem+json"),
        (status = 403, body = ProblemBody, content_type = "application/problem+json"),
        (status = 429, body = ProblemBody, content_type = "application/problem+json"),
        (status = 503, body = ProblemBody, content_type = "application/problem+json"),
    )
)]
async fn issue(Extract(house): Extract<Arc<House>>, asker: Asker) -> Result<Json<Issued>, Problem> {
    let ticket = house.entrance.tickets.issue(&asker.identity)?;
    Ok(Json(Issued { ticket, expires_in: LASTS.as_secs() }))
}

#[cfg(test)]
#[path = "ticket_tests.rs"]
mod tests;

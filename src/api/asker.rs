//! Who a request comes from, for whoever answers and whoever counts.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::House;
use super::access::Identity;
use super::problem::Problem;
use super::rest::Recorder;
use crate::provider::Caller;
use crate::session;
use crate::session::record::Records;
use crate::store::{Owned, Scope};

/// Whoever asks. Who may come in at all is `access`'s business.
pub(super) struct Asker {
    pub(super) identity: Identity,
    /// Rides with requests to models.
    pub(super) caller: Caller,
    /// The rows that are the asker's.
    pub(super) rows: Owned,
}

impl Asker {
    /// What a session of the asker's is made of.
    pub(super) fn parts(&self, house: &House) -> session::Parts {
        Self::parts_on(house, self.rows.clone())
    }

    /// The same for a session that tells its clients itself what it stores.
    pub(super) fn quiet_parts(&self, house: &House) -> session::Parts {
        Self::parts_on(house, self.rows.clone().quiet())
    }

    fn parts_on(house: &House, rows: Owned) -> session::Parts {
        let records: Arc<dyn Records> = if house.state.recordings.load(Ordering::Relaxed) {
            Arc::new(Recorder::new(rows, &house.state.data_dir))
        } else {
            Arc::new(rows)
        };
        session::Parts { records, ..house.state.parts.clone() }
    }

    /// # Errors
    /// 403, where the asker's key allows less.
    pub(super) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.identity.scope >= scope {
            return Ok(());
        }
        let detail = "this key does not allow that; ask whoever runs the server for one that does";
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

impl FromRequestParts<Arc<House>> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, house: &Arc<House>) -> Result<Self, Problem> {
        let identity = parts.extensions.get::<Identity>().cloned();
        let identity = identity
            .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "this request was not let in"))?;
        let id = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let caller = Caller {
            owner: Some(Arc::clone(&identity.owner)),
            key: identity.key.clone(),
            request_id: id.map(Into::into),
            ..Caller::default()
        };
        let rows = house.state.store.of(&identity.owner);
        Ok(Self { identity, caller, rows })
    }
}

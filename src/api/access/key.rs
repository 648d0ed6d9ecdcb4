//! Keys as they are asked about: looked up in the database, and remembered for a moment.
//!
//! What is remembered is so short-lived that a key that is revoked opens nothing five seconds later, and an open socket
//! that asks every two seconds is closed in that time, too.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};

use super::{Identity, Problem, Proof};
use crate::provider::task::named;
use crate::store::{Key, LOCAL_OWNER, Scope, Store, digest, is_well_formed};

/// The name of the server's own key.
const SERVER_KEY: &str = "AICHAT_API_KEY";
/// For what the database said. With [`LOOK_EVERY`] less than the five seconds in which a revoked key ends.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Between two looks at whether an open socket's key lives.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between two notes of a key's last use.
const NOTED_EVERY: Duration = Duration::from_mins(1);
/// Entries that are remembered: more keys than that within two seconds are asked for again.
const MOST_REMEMBERED: usize = 10_000;

/// A key, kept as its digest: it cannot be logged, and comparing takes the same time for every guess.
#[derive(Clone)]
pub struct ApiKey(Arc<str>);

impl ApiKey {
    pub fn new(key: &str) -> Self {
        Self(digest(key).into())
    }

    fn is(&self, guess: &str) -> bool {
        let guess = digest(guess);
        let pairs = self.0.bytes().zip(guess.bytes());
        pairs.fold(0, |differences, (ours, theirs)| differences | (ours ^ theirs)) == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ApiKey(…)")
    }
}

/// The server's own key and those of the database.
pub(in crate::api) struct Keys {
    server: Option<ApiKey>,
    store: Store,
    /// Whether a key must be shown. Once it must, it must until the process ends: a key that is revoked opens nothing.
    needed: AtomicBool,
    /// When the database had no key.
    none_there: Mutex<Option<Instant>>,
    known: Memory<Arc<Key>>,
    logins: Memory<Arc<str>>,
    noted: Memory<()>,
}

impl Keys {
    /// `always`: others than this machine can connect.
    pub(super) fn new(server: Option<ApiKey>, store: Store, always: bool) -> Self {
        Self {
            needed: AtomicBool::new(always || server.is_some()),
            server,
            store,
            none_there: Mutex::default(),
            known: Memory::new(REMEMBERED),
            logins: Memory::new(REMEMBERED),
            noted: Memory::new(NOTED_EVERY),
        }
    }

    /// Whether a key must be shown.
    pub(super) async fn are_needed(&self) -> Result<bool, Problem> {
        if self.needed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let asked = *self.none_there.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|asked| asked.elapsed() < REMEMBERED) {
            return Ok(false);
        }
        let needed = self.store.has_keys().await.map_err(|error| no_answer(&error))?;
        if needed {
            self.needed.store(true, Ordering::Relaxed);
        } else {
            *self.none_there.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
        Ok(needed)
    }

    /// Whom a key stands for. None: it is none of ours, or no longer.
    pub(super) async fn identify(&self, key: &str) -> Result<Option<Identity>, Problem> {
        if let Some(own) = self.server.as_ref().filter(|own| own.is(key)) {
            return Ok(Some(servers_own(own)));
        }
        // What is no key is not looked for.
        if is_well_formed(key) { self.identify_digest(digest(key).into()).await } else { Ok(None) }
    }

    /// Whom a login's cookie stands for, by its digest.
    pub(super) async fn identify_login(&self, login: &str) -> Result<Option<Identity>, Problem> {
        let login: Arc<str> = login.into();
        let key = match self.logins.get(&login) {
            Some(key) => key,
            None => match self.store.login(&login).await.map_err(|error| no_answer(&error))? {
                Some(key) => self.logins.put(&login, key.into()),
                None => return Ok(None),
            },
        };
        let identity = self.identify_digest(Arc::clone(&key)).await?;
        Ok(identity.map(|it| Identity { proof: Some(Proof { key, login: Some(login) }), ..it }))
    }

    async fn identify_digest(&self, digest: Arc<str>) -> Result<Option<Identity>, Problem> {
        if let Some(own) = self.server.as_ref().filter(|own| own.0 == digest) {
            return Ok(Some(servers_own(own)));
        }
        let key = match self.known.get(&digest) {
            Some(key) => key,
            None => match self.store.living_key(&digest).await.map_err(|error| no_answer(&error))? {
                Some(key) => self.known.put(&digest, key.into()),
                None => return Ok(None),
            },
        };
        // It may have expired since.
        if !key.is_living() {
            return Ok(None);
        }
        self.note(&digest, &key);
        Ok(Some(Identity {
            owner: key.owner.as_str().into(),
            key: Some(key.name.as_str().into()),
            scope: key.scope,
            proof: Some(Proof { key: digest, login: None }),
        }))
    }

    /// Writes down, beside the request, that a key is in use.
    fn note(&self, digest: &Arc<str>, key: &Key) {
        if self.noted.get(digest).is_some() {
            return;
        }
        self.noted.put(digest, ());
        let (store, id) = (self.store.clone(), key.id.clone());
        tokio::spawn(named("key note", async move {
            if let Err(error) = store.note_use(&id).await {
                tracing::warn!(%error, "a key's last use could not be noted");
            }
        }));
    }

    /// Whether what somebody came in with still lets them in. While the database does not answer, it does.
    pub(in crate::api) async fn stands(&self, identity: &Identity) -> bool {
        let now = match &identity.proof {
            None => return !self.are_needed().await.unwrap_or(false),
            Some(Proof { login: Some(login), .. }) => self.identify_login(login).await,
            Some(Proof { key, login: None }) => self.identify_digest(Arc::clone(key)).await,
        };
        now.map_or(true, |now| now.is_some_and(|now| now.owner == identity.owner && now.scope >= identity.scope))
    }

    /// Completes when an identity ends: its key is revoked or over, or its browser has logged out.
    pub(in crate::api) async fn ended(&self, identity: &Identity) {
        while self.stands(identity).await {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Ends a login now.
    pub(super) async fn log_out(&self, login: &Arc<str>) -> Result<(), Problem> {
        self.store.end_login(login).await.map_err(|error| no_answer(&error))?;
        self.logins.forget(login);
        Ok(())
    }
}

fn servers_own(key: &ApiKey) -> Identity {
    let proof = Some(Proof { key: Arc::clone(&key.0), login: None });
    Identity { owner: LOCAL_OWNER.into(), key: Some(SERVER_KEY.into()), scope: Scope::Admin, proof }
}

/// Nobody is let in whom the database cannot vouch for.
pub(super) fn no_answer(error: &dyn std::fmt::Display) -> Problem {
    tracing::error!(%error, "keys could not be read");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "database_failed", "the database does not answer")
}

/// What the database said, by digest, for a while.
struct Memory<V> {
    entries: Mutex<HashMap<Arc<str>, (Instant, V)>>,
    lasts: Duration,
}

impl<V: Clone> Memory<V> {
    fn new(lasts: Duration) -> Self {
        Self { entries: Mutex::default(), lasts }
    }

    fn get(&self, digest: &Arc<str>) -> Option<V> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(digest).filter(|(since, _)| since.elapsed() < self.lasts).map(|(_, value)| value.clone())
    }

    fn put(&self, digest: &Arc<str>, value: V) -> V {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= MOST_REMEMBERED {
            entries.retain(|_, (since, _)| since.elapsed() < self.lasts);
        }
        if entries.len() < MOST_REMEMBERED {
            entries.insert(Arc::clone(digest), (Instant::now(), value.clone()));
        }
        value
    }

    fn forget(&self, digest: &Arc<str>) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }
}

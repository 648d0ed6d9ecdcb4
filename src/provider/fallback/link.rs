//! One of those who may answer, and the list of them.

use std::sync::Arc;
use std::time::Duration;

use super::breaker::{Breaker, Pass, Position};
use crate::provider::{Caller, Capability, ProviderError, ProviderReport, ProviderState};

/// A door in a chain. Clones share its record of failures.
pub struct Link<D: ?Sized> {
    /// As `served_by` names it.
    pub name: Arc<str>,
    /// Whether it runs elsewhere.
    pub remote: bool,
    place: Place<D>,
    breaker: Arc<Breaker>,
}

enum Place<D: ?Sized> {
    Here(Arc<D>),
    Missing { remedy: Arc<str> },
}

impl<D: ?Sized> Link<D> {
    pub fn new(name: impl Into<Arc<str>>, remote: bool, door: Arc<D>) -> Self {
        Self { name: name.into(), remote, place: Place::Here(door), breaker: Arc::default() }
    }

    /// Nobody is behind it; `remedy` says how to change that.
    pub fn missing(name: impl Into<Arc<str>>, remote: bool, remedy: impl Into<Arc<str>>) -> Self {
        Self { name: name.into(), remote, place: Place::Missing { remedy: remedy.into() }, breaker: Arc::default() }
    }

    /// None: it is missing.
    pub fn door(&self) -> Option<&Arc<D>> {
        match &self.place {
            Place::Here(door) => Some(door),
            Place::Missing { .. } => None,
        }
    }

    pub fn report(&self, capability: Capability) -> ProviderReport {
        let state = match (&self.place, self.breaker.position()) {
            (Place::Missing { remedy }, _) => ProviderState::Missing { remedy: remedy.to_string() },
            (Place::Here(_), Position::Closed) => ProviderState::Ready,
            (Place::Here(_), Position::Open(_)) => ProviderState::Open,
            (Place::Here(_), Position::HalfOpen) => ProviderState::HalfOpen,
        };
        ProviderReport { capability, name: self.name.to_string(), remote: self.remote, state }
    }

    /// Whether it could be asked for this caller at all.
    pub(super) fn is_for(&self, caller: &Caller) -> bool {
        self.door().is_some() && !(self.remote && caller.private)
    }

    /// The door and the right to ask it once, or why not.
    fn enter(&self, caller: &Caller) -> Result<(Arc<D>, Pass), ProviderError> {
        let unavailable = |remedy: String| Err(ProviderError::Unavailable { what: self.name.to_string(), remedy });
        let door = match &self.place {
            Place::Missing { remedy } => return unavailable(remedy.to_string()),
            Place::Here(_) if self.remote && caller.private => {
                return unavailable("it runs elsewhere, and this conversation is private".to_owned());
            }
            Place::Here(door) => Arc::clone(door),
        };
        if let Some(pass) = self.breaker.enter() {
            return Ok((door, pass));
        }
        let left = match self.breaker.position() {
            Position::Open(left) => left,
            Position::Closed | Position::HalfOpen => Duration::ZERO,
        };
        let seconds = left.as_secs_f64().ceil().max(1.0);
        unavailable(format!("it failed too often lately; it is asked again in {seconds} s"))
    }
}

impl<D: ?Sized> Clone for Link<D> {
    fn clone(&self) -> Self {
        let place = match &self.place {
            Place::Here(door) => Place::Here(Arc::clone(door)),
            Place::Missing { remedy } => Place::Missing { remedy: Arc::clone(remedy) },
        };
        Self { name: Arc::clone(&self.name), remote: self.remote, place, breaker: Arc::clone(&self.breaker) }
    }
}

/// One request's way along a chain.
pub(super) struct Walk<D: ?Sized> {
    /// What all of them do, for errors.
    what: &'static str,
    links: Arc<[Link<D>]>,
    next: usize,
    caller: Caller,
    failures: Vec<ProviderError>,
}

/// Whoever is asked now.
pub(super) struct Turn<D: ?Sized> {
    pub(super) name: Arc<str>,
    pub(super) door: Arc<D>,
    pub(super) remote: bool,
    pub(super) pass: Pass,
    /// Nobody could be asked after it.
    pub(super) is_last: bool,
}

impl<D: ?Sized> Walk<D> {
    pub(super) fn new(what: &'static str, links: &Arc<[Link<D>]>, caller: Caller) -> Self {
        Self { what, links: Arc::clone(links), next: 0, caller, failures: Vec::new() }
    }

    /// The next who may be asked; why others were not is kept.
    pub(super) fn next(&mut self) -> Option<Turn<D>> {
        while let Some(link) = self.links.get(self.next) {
            self.next += 1;
            match link.enter(&self.caller) {
                Ok((door, pass)) => {
                    let is_last = !self.links[self.next..].iter().any(|link| link.is_for(&self.caller));
                    return Some(Turn { name: Arc::clone(&link.name), door, remote: link.remote, pass, is_last });
                }
                Err(error) => self.failures.push(error),
            }
        }
        None
    }

    /// Whether the first of them is being asked.
    pub(super) fn is_at_first(&self) -> bool {
        self.next == 1
    }

    pub(super) fn failed(&mut self, name: &str, error: ProviderError) {
        tracing::warn!(provider = name, %error, "a provider failed before its first answer");
        self.failures.push(error);
    }

    /// Why nobody answered: the one reason there is, or all of them.
    pub(super) fn nothing_left(&mut self) -> ProviderError {
        let mut failures = std::mem::take(&mut self.failures);
        // That others have not the voice says less than why those who have it failed, unless these are not here at all.
        let is_voiceless = |error: &ProviderError| matches!(error, ProviderError::VoiceUnavailable { .. });
        let is_absent = |error: &ProviderError| matches!(error, ProviderError::Unavailable { .. });
        if let Some(voiceless) = failures.iter().find(|error| is_voiceless(error)) {
            if failures.iter().all(|error| is_voiceless(error) || is_absent(error)) {
                return voiceless.clone();
            }
            failures.retain(|error| !is_voiceless(error));
        }
        let shortest = |error: &ProviderError| match error {
            ProviderError::Overloaded { retry_after, .. } => Some(*retry_after),
            _ => None,
        };
        match failures.as_slice() {
            [] => ProviderError::Unavailable {
                what: self.what.to_owned(),
                remedy: "nobody is configured for it".to_owned(),
            },
            [only] => only.clone(),
            several => match several.iter().map(shortest).collect::<Option<Vec<_>>>() {
                Some(waits) => ProviderError::Overloaded {
                    what: self.what.to_owned(),
                    retry_after: waits.into_iter().min().unwrap_or_default(),
                },
                None => ProviderError::Unavailable {
                    what: self.what.to_owned(),
                    remedy: several.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
                },
            },
        }
    }
}

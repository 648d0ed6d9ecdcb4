//! One permit for all requests of a story that are made at a time.
//!
//! An engine that tells stories speaks them one after the other: each with a permit of its own would keep permits from
//! others while it only waits for the one before it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OnceCell;

use super::meter::Generating;
use super::{Gate, Permit};
use crate::provider::{ProviderError, SpeakRequest, Urgency};

/// A story and the voice that tells it.
type Key = (Arc<str>, Option<String>);

/// The stories that are being told.
#[derive(Default)]
pub(super) struct Stories(Mutex<HashMap<Key, Weak<Shared>>>);

/// What the requests of a story share: the permit, once one of them has it. Counted while it is held.
type Shared = OnceCell<(Generating, Permit)>;

/// One request's part in it.
pub(super) struct Chapter(Arc<Shared>);

impl Stories {
    /// None: the request stands alone.
    pub(super) fn chapter(&self, request: &SpeakRequest) -> Option<Chapter> {
        let key = (Arc::clone(request.story.as_ref()?), request.voice.clone());
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, shared| shared.strong_count() > 0);
        let known = told.get(&key).and_then(Weak::upgrade);
        let shared = known.unwrap_or_default();
        told.insert(key, Arc::downgrade(&shared));
        Some(Chapter(shared))
    }
}

impl Chapter {
    /// Waits for the story's permit, which this keeps for as long as it lives.
    pub(super) async fn enter(&self, gate: &Arc<Gate>, urgency: Urgency) -> Result<(), ProviderError> {
        let permit = || async {
            let permit = gate.enter(urgency)?.wait().await?;
            Ok((Generating::new(&gate.meter), permit))
        };
        self.0.get_or_try_init(permit).await.map(|_| ())
    }
}

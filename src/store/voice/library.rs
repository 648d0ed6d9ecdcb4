//! The voices as speech asks for them: by a caller and a name.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Recordings, StoredRecording, StoredVoice};
use crate::audio::{Limits, Speech, decode_file};
use crate::provider::{Caller, OwnVoice, ProviderError, VoiceBook, VoiceRecording, VoiceReference};
use crate::store::{LOCAL_OWNER, Store};

/// What is kept is never longer than 30 s; a file that says otherwise is none of ours.
const LONGEST: Duration = Duration::from_mins(1);

/// Every owner's voices, with their recordings.
#[derive(Clone, Debug)]
pub struct VoiceLibrary {
    store: Store,
    recordings: Recordings,
}

impl VoiceLibrary {
    pub fn new(store: Store, recordings: Recordings) -> Self {
        Self { store, recordings }
    }

    /// A stored voice as engines know it.
    pub fn own_voice(&self, voice: StoredVoice) -> OwnVoice {
        let reference = voice.recording.map(|stored| VoiceReference {
            key: stored.content_hash.as_str().into(),
            transcript: voice.transcript,
            recording: Arc::new(KeptRecording { recordings: self.recordings.clone(), stored }),
        });
        OwnVoice {
            name: voice.id.into(),
            language: voice.language,
            speaker: voice.speaker_description,
            scene: Some(voice.scene_prompt).filter(|scene| !scene.is_empty()),
            reference,
        }
    }
}

impl VoiceBook for VoiceLibrary {
    fn find(&self, caller: &Caller, name: &str) -> BoxFuture<'static, Result<Option<OwnVoice>, ProviderError>> {
        let rows = self.store.of(caller.owner.as_deref().unwrap_or(LOCAL_OWNER));
        let (library, name) = (self.clone(), name.to_owned());
        async move {
            // No text of the database holds it, and PostgreSQL refuses to look for it.
            if name.contains('\0') {
                return Ok(None);
            }
            let failed = |_| ProviderError::Failed { what: "the database of voices".to_owned() };
            let found = rows.voice_named(&name).await.map_err(failed)?;
            Ok(found.map(|voice| library.own_voice(voice)))
        }
        .boxed()
    }
}

/// A recording among [`Recordings`].
#[derive(Debug)]
struct KeptRecording {
    recordings: Recordings,
    stored: StoredRecording,
}

impl VoiceRecording for KeptRecording {
    fn sound(&self) -> Result<Speech, ProviderError> {
        let read = || {
            let path = self.recordings.path(&self.stored)?;
            decode_file(&path, Limits::up_to(LONGEST))
        };
        read().map_err(|error| {
            tracing::error!(%error, file = self.stored.file, "a voice's recording cannot be read");
            ProviderError::Failed { what: "the voice's recording".to_owned() }
        })
    }

    fn kept(&self, engine: &str) -> Option<Vec<u8>> {
        self.recordings.kept(&self.stored.content_hash, engine)
    }

    fn keep(&self, engine: &str, tokens: &[u8]) {
        self.recordings.keep(&self.stored.content_hash, engine, tokens);
    }
}

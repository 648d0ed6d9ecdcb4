//! A server with scripted engines for other programs: `scripts/accept` lets them loose on it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fixture::server_with;
use super::{Access, ApiKey};
use crate::provider::fake::{FakeChat, FakeEmbedder, FakeHearing, FakeSpeech};
use crate::testing;

/// The address goes to the file that SCRIPTED_ADDRESS names, once it is taken.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "serves until it is killed; scripts/accept starts it"]
async fn a_scripted_server_serves_other_programs() {
    let server = server_with(|state| {
        state.access = Access { api_key: Some(ApiKey::new("scripted")), ..Access::default() };
        state.embedder = Arc::new(FakeEmbedder);
        let usual = Some("Well, that is a good question. Let me think about it.");
        state.parts.chat = Arc::new(FakeChat { usual, window: Some(4096), ..FakeChat::default() });
        state.parts.stt = Arc::new(FakeHearing {
            usual: Some("hello there"),
            delay: Duration::from_millis(1),
            ..FakeHearing::new(&[])
        });
        state.parts.speech = Arc::new(FakeSpeech {
            first_delay: Duration::from_millis(1),
            chunk_delay: Duration::ZERO,
            ..FakeSpeech::default()
        });
    })
    .await;
    server.shelf.is_repaired.store(true, Ordering::Relaxed);
    std::fs::write(testing::path("SCRIPTED_ADDRESS"), &server.address).unwrap();
    std::future::pending::<()>().await;
}

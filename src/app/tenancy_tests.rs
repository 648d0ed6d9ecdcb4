use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::*;

#[test]
fn a_restore_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let servers = [move_in(folder.path()).unwrap(), move_in(folder.path()).unwrap()];
    let refusal = be_alone(folder.path()).unwrap_err().to_string();
    assert!(refusal.contains("a server is running"), "{refusal}");
    drop(servers);
    be_alone(folder.path()).unwrap();
}

/// Everything that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Visit for Log {
    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?}").unwrap();
    }
}

impl<S: tracing::Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

#[test]
fn a_server_says_that_it_waits_for_a_restore() {
    let folder = tempfile::tempdir().unwrap();
    let log = Log::default();
    let told = || log.0.lock().unwrap().clone();
    let restore = be_alone(folder.path()).unwrap();
    std::thread::scope(|scope| {
        // Ends with this closure, so that the server never waits for a test that has failed.
        let restore = restore;
        let subscriber = tracing_subscriber::registry().with(log.clone());
        let server = scope.spawn(|| tracing::subscriber::with_default(subscriber, || move_in(folder.path())));
        let begun = Instant::now();
        while told().is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(10), "it says nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(told().contains(&format!("waiting for a restore of {} to end", folder.path().display())), "{}", told());
        assert!(!server.is_finished(), "it waits");
        drop(restore);
        assert!(server.join().unwrap().is_some());
    });
}

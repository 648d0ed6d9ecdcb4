//! How much a server of many sessions adds to a frame's way, beside a plain echo server in the same run; and what it
//! keeps of connections that break off.
//!
//! The server and the echo are processes of their own, this program's ignored tests, so that they share no thread with
//! the clients. Engines are scripted but for Silero VAD in some sessions. `scripts/bench-sessions` does it at length.

mod aborted;
mod client;
mod servers;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep};

use client::{Peer, Tally, converse};
use servers::{Served, Serves};

use crate::testing::rounds;

/// What is asked of a server.
struct Load {
    sessions: usize,
    /// Of these, with Silero VAD.
    real: usize,
    /// Sockets of the echo server.
    echoes: usize,
    seconds: usize,
    /// So much later than the echo's 99th percentile the sessions' may be.
    most_added: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_sessions_add_little_to_a_frames_way() {
    let most_added = Duration::from_millis(500);
    bear(Load { sessions: 10, real: 1, echoes: 4, seconds: 5, most_added }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes and a quiet machine; scripts/bench-sessions runs it"]
async fn real_hundred_sessions_add_little_to_a_frames_way() {
    let sessions = rounds("LOAD_SESSIONS", 100);
    let most_added = Duration::from_millis(20);
    bear(Load {
        sessions,
        real: sessions / 10,
        echoes: sessions / 5,
        seconds: rounds("LOAD_SECONDS", 120),
        most_added,
    })
    .await;
}

async fn bear(load: Load) {
    let (served, echo) = tokio::join!(Served::start(Serves::Sessions), Served::start(Serves::Echo));
    let before = served.report().await;
    let script = client::script();
    let all = Arc::new(Barrier::new(load.sessions + load.echoes));
    let talk = |address: &str, peer, number| {
        let (script, all) = (Arc::clone(&script), Arc::clone(&all));
        tokio::spawn(converse(address.to_owned(), peer, number, script, all, load.seconds))
    };
    let session = |number| {
        let peer = if number < load.real { Peer::Listening } else { Peer::Scripted };
        talk(&served.address, peer, number)
    };
    let sessions: Vec<_> = (0..load.sessions).map(session).collect();
    let echoes: Vec<_> = (0..load.echoes).map(|number| talk(&echo.address, Peer::Echo, number)).collect();
    let (sessions, echoes) = tokio::join!(join_all(sessions), join_all(echoes));
    let (tallies, sockets): (Vec<_>, Vec<_>) = sessions.into_iter().map(Result::unwrap).unzip();
    let echoes: Vec<Tally> = echoes.into_iter().map(|outcome| outcome.unwrap().0).collect();
    // The last frames are in the sessions' inboxes: each was followed by a ping that was answered.
    let expected: u64 = tallies.iter().map(|tally| tally.vad_frames).sum();
    let mut heard = 0;
    for _ in 0..250 {
        heard = served.report().await.vad_frames - before.vad_frames;
        if heard >= expected {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    drop(sockets);
    let closed = Instant::now();
    let mut left = served.report().await;
    while left.tasks > before.tasks && closed.elapsed() < Duration::from_secs(2) {
        sleep(Duration::from_millis(50)).await;
        left = served.report().await;
    }
    let times = Times {
        pongs: sorted(&tallies, |tally| &tally.pongs),
        onsets: sorted(&tallies, |tally| &tally.onsets),
        echoed: sorted(&echoes, |tally| &tally.pongs),
    };
    print(&load, &times, &tallies);
    println!(
        "frames of voice activity: {expected} sent, {heard} heard; tasks: {} before, {} after; CPU of the server: {:.2} cores",
        before.tasks,
        left.tasks,
        left.cpu.saturating_sub(before.cpu).as_secs_f64() / load.seconds as f64,
    );
    let errors: Vec<&String> = tallies.iter().flat_map(|tally| &tally.errors).collect();
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(heard, expected, "frames were lost");
    assert!(left.tasks <= before.tasks, "{} tasks are left, {} before", left.tasks, before.tasks);
    assert!(!times.onsets.is_empty() && tallies.iter().any(|tally| tally.replies > 0));
    for late in [&times.pongs, &times.onsets] {
        let (session, plain) = (percentile(late, 99), percentile(&times.echoed, 99));
        assert!(session <= plain + load.most_added, "p99 {session:?}, of the echo {plain:?}");
    }
}

/// How long things took, sorted.
struct Times {
    /// Of sessions.
    pongs: Vec<Duration>,
    onsets: Vec<Duration>,
    /// Of the echo server.
    echoed: Vec<Duration>,
}

fn sorted(tallies: &[Tally], what: fn(&Tally) -> &[Duration]) -> Vec<Duration> {
    let mut all: Vec<Duration> = tallies.iter().flat_map(|tally| what(tally).iter().copied()).collect();
    all.sort_unstable();
    all
}

fn print(load: &Load, times: &Times, tallies: &[Tally]) {
    println!(
        "| {} sessions, {} of them with Silero, {} s | n | p50 | p99 | most |",
        load.sessions, load.real, load.seconds
    );
    println!("|---|---|---|---|---|");
    for (what, times) in [
        ("echo server: ping to its echo", &times.echoed),
        ("session: ping to pong", &times.pongs),
        ("session: the frame that begins speech to `speech_started`", &times.onsets),
    ] {
        let [median, late, most] = [percentile(times, 50), percentile(times, 99), percentile(times, 100)];
        println!("| {what} | {} | {median:.2?} | {late:.2?} | {most:.2?} |", times.len());
    }
    let sum = |what: fn(&Tally) -> usize| tallies.iter().map(what).sum::<usize>();
    println!(
        "replies: {}; pieces of audio: {}, {} of them too late",
        sum(|tally| tally.replies),
        sum(|tally| tally.pieces),
        sum(|tally| tally.late_pieces),
    );
}

/// Of sorted times.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    let place = (times.len() * percent).div_ceil(100).max(1) - 1;
    times.get(place).copied().unwrap_or_default()
}

//! How much one WebSocket, and all of them, may take: settings of docs/PROTOCOL.md's limits.

use std::fmt::Display;
use std::time::Duration;

use super::ConfigError;
use super::flags::{File, Flags};

/// The limits with their values.
#[derive(Clone, Debug, PartialEq)]
pub struct SocketLimits {
    /// Conversations at once.
    pub sessions: usize,
    /// Sockets that may wait for one.
    pub queue: usize,
    /// Conversations of one key at once.
    pub sessions_per_key: usize,
    /// Length of a message.
    pub message_bytes: usize,
    /// Messages that may wait for a client.
    pub outbound_frames: usize,
    /// Seconds of microphone that a client may send in a second.
    pub microphone_speed: f64,
    /// And so many at once after a pause.
    pub microphone_burst: Duration,
    /// The longest utterance.
    pub utterance: Duration,
    pub ping_every: Duration,
    /// A client that sent no packet for so long is gone.
    pub silent_after: Duration,
    /// A conversation whose last client is gone goes on for so long.
    pub grace: Duration,
}

impl Default for SocketLimits {
    fn default() -> Self {
        Self {
            sessions: 64,
            queue: 16,
            sessions_per_key: 4,
            message_bytes: 256 * 1024,
            outbound_frames: 64,
            microphone_speed: 2.0,
            microphone_burst: Duration::from_secs(5),
            utterance: Duration::from_secs(90),
            ping_every: Duration::from_secs(20),
            silent_after: Duration::from_secs(45),
            grace: Duration::from_secs(30),
        }
    }
}

impl SocketLimits {
    /// Those that are out of range go to `wrong` and keep their defaults.
    pub(super) fn read(flags: &Flags, file: &File, wrong: &mut Vec<ConfigError>) -> Self {
        let mut limits = Self::default();
        let mut whole = |name, flag: Option<usize>, entry: Option<usize>, range: (usize, usize), limit: &mut usize| {
            take(name, flag.or(entry), range, limit, wrong);
        };
        whole("MAX_SESSIONS", flags.max_sessions, file.max_sessions, (1, 10_000), &mut limits.sessions);
        whole("SESSION_QUEUE", flags.session_queue, file.session_queue, (0, 10_000), &mut limits.queue);
        let per_key = (flags.max_sessions_per_key, file.max_sessions_per_key);
        whole("MAX_SESSIONS_PER_KEY", per_key.0, per_key.1, (1, 10_000), &mut limits.sessions_per_key);
        let message = (flags.max_message_bytes, file.max_message_bytes);
        whole("MAX_MESSAGE_BYTES", message.0, message.1, (65_536, 16_777_216), &mut limits.message_bytes);
        whole("OUTBOUND_FRAMES", flags.outbound_frames, file.outbound_frames, (8, 1024), &mut limits.outbound_frames);
        let speed = flags.microphone_speed.or(file.microphone_speed);
        take("MICROPHONE_SPEED", speed, (1.0, 100.0), &mut limits.microphone_speed, wrong);
        let mut seconds = |name, flag: Option<u64>, entry: Option<u64>, range: (u64, u64), limit: &mut Duration| {
            let mut value = limit.as_secs();
            take(name, flag.or(entry), range, &mut value, wrong);
            *limit = Duration::from_secs(value);
        };
        let burst = (flags.microphone_burst_seconds, file.microphone_burst_seconds);
        seconds("MICROPHONE_BURST_SECONDS", burst.0, burst.1, (1, 600), &mut limits.microphone_burst);
        let utterance = (flags.max_utterance_seconds, file.max_utterance_seconds);
        seconds("MAX_UTTERANCE_SECONDS", utterance.0, utterance.1, (5, 90), &mut limits.utterance);
        seconds("PING_SECONDS", flags.ping_seconds, file.ping_seconds, (1, 3600), &mut limits.ping_every);
        seconds("SILENT_SECONDS", flags.silent_seconds, file.silent_seconds, (2, 86_400), &mut limits.silent_after);
        let grace = (flags.session_grace_seconds, file.session_grace_seconds);
        seconds("SESSION_GRACE_SECONDS", grace.0, grace.1, (0, 3600), &mut limits.grace);
        if limits.silent_after <= limits.ping_every {
            let reason = "must be more than PING_SECONDS: clients answer pings, and nothing else may come from them";
            let value = limits.silent_after.as_secs().to_string();
            wrong.push(ConfigError::Value { name: "SILENT_SECONDS", value, reason: reason.to_owned() });
            limits.ping_every = Self::default().ping_every;
            limits.silent_after = Self::default().silent_after;
        }
        limits
    }
}

fn take<T: PartialOrd + Display + Copy>(
    name: &'static str,
    value: Option<T>,
    (low, high): (T, T),
    limit: &mut T,
    wrong: &mut Vec<ConfigError>,
) {
    match value {
        Some(value) if value >= low && value <= high => *limit = value,
        Some(value) => {
            let reason = format!("must be from {low} to {high}");
            wrong.push(ConfigError::Value { name, value: value.to_string(), reason });
        }
        None => {}
    }
}

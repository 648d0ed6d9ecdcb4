//! What is measured of conversations: recorded once, where it leaves the house.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use crate::provider::limit;
use crate::session::event::{Output, Timings, TurnReport};

const SESSIONS: &str = "aichat_sessions_open";
const TURNS: &str = "aichat_turns_total";
const ERRORS: &str = "aichat_session_errors_total";
const ENDPOINT: &str = "aichat_endpoint_seconds";
const STT: &str = "aichat_stt_seconds";
const FIRST_TOKEN: &str = "aichat_llm_first_token_seconds";
const FIRST_AUDIO: &str = "aichat_tts_first_audio_seconds";
const TOTAL: &str = "aichat_turn_seconds";

/// Says what the figures mean. Once, after the recorder is installed.
pub fn describe() {
    limit::describe_metrics();
    describe_gauge!(SESSIONS, "WebSocket sessions that are open");
    describe_counter!(TURNS, "Replies that ended, by outcome: complete or interrupted");
    describe_counter!(ERRORS, "Errors told to clients by sessions, by code");
    describe_histogram!(ENDPOINT, Unit::Seconds, "End of speech to the decision that it was the end");
    describe_histogram!(STT, Unit::Seconds, "That decision to the transcript");
    describe_histogram!(FIRST_TOKEN, Unit::Seconds, "Asking the language model to its first text");
    describe_histogram!(FIRST_AUDIO, Unit::Seconds, "Asking for the first sentence's speech to its first sample");
    describe_histogram!(TOTAL, Unit::Seconds, "End of speech, or text message, to the reply's first audio");
}

/// Counts a session while it lives.
pub(super) struct OpenSession(());

impl OpenSession {
    pub(super) fn new() -> Self {
        gauge!(SESSIONS).increment(1.0);
        Self(())
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        gauge!(SESSIONS).decrement(1.0);
    }
}

pub(super) fn record(output: &Output) {
    match output {
        Output::TurnComplete(report) => record_turn(report),
        Output::Interrupted { .. } => counter!(TURNS, "outcome" => "interrupted").increment(1),
        Output::Error(complaint) => counter!(ERRORS, "code" => complaint.code.as_str()).increment(1),
        _ => {}
    }
}

fn record_turn(report: &TurnReport) {
    counter!(TURNS, "outcome" => "complete").increment(1);
    let Timings { endpoint_ms, stt_ms, llm_first_token_ms, tts_first_audio_ms, total_ms } = report.timings;
    let stages = [
        (ENDPOINT, endpoint_ms),
        (STT, stt_ms),
        (FIRST_TOKEN, llm_first_token_ms),
        (FIRST_AUDIO, tts_first_audio_ms),
        (TOTAL, total_ms),
    ];
    for (name, millis) in stages {
        if let Some(millis) = millis {
            histogram!(name).record(millis as f64 / 1000.0);
        }
    }
}

#[cfg(test)]
#[path = "meter_tests.rs"]
mod tests;

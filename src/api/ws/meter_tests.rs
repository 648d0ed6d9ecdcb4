use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;

use super::{OpenSession, describe, record};
use crate::provider::{ProviderError, Usage};
use crate::session::event::{Complaint, Output, ServedBy, Timings, Turn, TurnReport};

#[test]
fn a_turn_is_measured_once_where_it_has_the_stage() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        describe();
        let first = OpenSession::new();
        let _second = OpenSession::new();
        drop(first);
        let timings = Timings { stt_ms: Some(250), total_ms: Some(1_500), ..Timings::default() };
        record(&Output::TurnComplete(Box::new(TurnReport {
            turn: Turn(1),
            character_id: "c".into(),
            item_id: "i".into(),
            sequence_number: 1,
            timings,
            served_by: ServedBy::default(),
            usage: Usage::default(),
        })));
        record(&Output::Interrupted {
            turn: Turn(2),
            item_id: "i".into(),
            heard_text: String::new(),
            heard: Duration::ZERO,
        });
        record(&Output::Error(Complaint::of(&ProviderError::Failed { what: "speech".into() }, None)));
        let text = handle.render();
        for line in [
            "aichat_sessions_open 1",
            "aichat_turns_total{outcome=\"complete\"} 1",
            "aichat_turns_total{outcome=\"interrupted\"} 1",
            "aichat_session_errors_total{code=\"provider_failed\"} 1",
            "aichat_stt_seconds_count 1",
            "aichat_turn_seconds_sum 1.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("aichat_endpoint_seconds_count"), "a text turn has no end point");
    });
}

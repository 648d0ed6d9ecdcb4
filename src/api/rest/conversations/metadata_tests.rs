use serde_json::json;

use super::*;

#[test]
fn what_a_session_stores_gets_the_names_of_the_contract() {
    let stored = json!({
        "timings": {"endpoint_ms": null, "stt_ms": 80, "llm_first_token_ms": 20, "tts_first_audio_ms": 9, "total_ms": 300},
        "served_by": {"stt": "whisper-base", "llm": "openai/gpt-4o-mini", "tts": null},
        "usage": {"prompt_tokens": 12, "cached_tokens": 3, "completion_tokens": 7, "cost_usd": 0.5,
                  "first_token": {"secs": 0, "nanos": 5}, "total": {"secs": 1, "nanos": 0}},
        "error": "it broke", "more": [1],
    });
    let told = serde_json::to_value(Metadata::of(&stored)).unwrap();
    assert_eq!(
        told,
        json!({
            "model": "openai/gpt-4o-mini", "provider": "openai",
            "timings": {"endpoint_ms": null, "stt_ms": 80, "llm_first_token_ms": 20, "tts_first_audio_ms": 9,
                        "total_ms": 300},
            "tokens": {"prompt": 12, "cached": 3, "completion": 7}, "cost": 0.5, "error": "it broke",
        })
    );
    let heard = json!({"spoken": true, "language": "en", "served_by": "whisper-base"});
    let told = serde_json::to_value(Metadata::of(&heard)).unwrap();
    assert_eq!(told, json!({"language": "en", "spoken": true}));
    let local = Metadata::of(&json!({"model": "smollm2"}));
    assert_eq!(local.provider.as_deref(), Some("local"));
    for odd in [json!(null), json!([]), json!({"timings": 3, "usage": "much", "error": {}, "cost": "1"})] {
        let told = serde_json::to_value(Metadata::of(&odd)).unwrap();
        assert!(told.get("timings").is_none() && told.get("error").is_none(), "{told}");
    }
}

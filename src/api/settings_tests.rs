//! What a client sets over its socket: each field, for all and for one.

use serde_json::json;

use super::fixture::server;

#[tokio::test]
async fn models_and_parameters_are_set_for_all_and_for_one() {
    let server = server().await;
    let mut client = server.connect("?character_ids=mira-001").await;
    let started = client.next().await;
    for name in ["model", "stt_model", "tts_model"] {
        assert!(started["settings"].as_object().unwrap()[name].is_null(), "{started}");
    }
    assert_eq!(started["settings"]["characters"], json!({}));
    let own = json!({"model": "hers", "temperature": 0.5, "top_p": 0.5, "top_k": 5, "max_tokens": 50, "seed": 5,
                     "stop": ["x"], "system_prompt": "Be a pirate.", "tts_model": "parrot", "speed": 0.5});
    let all = json!({"model": "m", "temperature": 0.25, "top_p": 0.25, "top_k": 2, "max_tokens": 20, "seed": 2,
                     "stop": ["y"], "system_prompt": "Be brief.", "stt_model": "s", "languages": ["en"],
                     "tts_model": "t", "speed": 1.5, "output": "text", "audio_format": "wav", "lead_ms": 400,
                     "vad": null, "turn_taking": "all", "summarize_history": true, "characters": {"mira-001": own}});
    let mut message = all.clone();
    (message["type"], message["ref"]) = (json!("settings"), json!("r"));
    client.send(message).await;
    let applied = client.next().await;
    assert_eq!((&applied["type"], &applied["ref"]), (&json!("settings_applied"), &json!("r")), "{applied}");
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(applied[name], *value, "{name}");
        assert!(started["settings"].as_object().unwrap().contains_key(name), "{name} is shown at the start");
    }
    let shown = started["settings"].as_object().unwrap().len();
    assert_eq!(shown, all.as_object().unwrap().len(), "all that there is");
    server.will_say("Arr.");
    client.say("hello").await;
    client.until("turn_complete").await;
    let asked = server.chat.asked.lock().unwrap().pop().unwrap();
    assert_eq!((asked.model.as_deref(), asked.sampling.top_k, asked.sampling.seed), (Some("hers"), 5, Some(5)));
    assert!(asked.messages[0].content.starts_with("Be a pirate."), "{:?}", asked.messages[0]);
    // Who joins this conversation is told the same.
    let query = format!("?conversation_id={}", started["conversation_id"].as_str().unwrap());
    let joined = server.connect(&query).await.next().await;
    for (name, value) in all.as_object().unwrap() {
        assert_eq!(joined["settings"][name], *value, "{name}");
    }
}

use serde_json::json;

use super::*;

fn refusal(value: &Value) -> BadField {
    SettingsPatch::read(value).expect_err("the patch is wrong")
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let patch = SettingsPatch::read(&json!({
        "temperature": 0.2, "seed": 7, "languages": ["en", "de"], "vad": {"silence_ms": 500, "mode": "server"}, "output": "text",
        "summarize_history": true
    }))
    .unwrap();
    let settings = Settings::default().patched(&patch).unwrap();
    let mut expected = Settings { temperature: 0.2, seed: Some(7), output: OutputKind::Text, ..Settings::default() };
    expected.languages = vec!["en".to_owned(), "de".to_owned()];
    expected.summarize_history = true;
    expected.vad = Some(VadSettings { silence_ms: 500, mode: VadMode::Server, ..VadSettings::default() });
    assert_eq!(settings, expected);

    let back = SettingsPatch::read(&json!({"seed": null, "vad": null})).unwrap();
    let settings = settings.patched(&back).unwrap();
    assert_eq!((settings.seed, settings.vad), (None, None));
    let again = settings.patched(&SettingsPatch::read(&json!({"vad": {"threshold": 0.7}})).unwrap()).unwrap();
    assert_eq!(again.vad.map(|vad| (vad.threshold, vad.prefix_ms)), Some((0.7, 300)));
}

#[test]
fn every_wrong_field_is_named() {
    for (value, field) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"temperature": 2.5}), "temperature"),
        (json!({"temperature": null}), "temperature"),
        (json!({"top_k": -1}), "top_k"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"lead_ms": 100}), "lead_ms"),
        (json!({"lead_ms": 2001}), "lead_ms"),
        (json!({"speed": 9}), "speed"),
        (json!({"languages": ["English"]}), "languages"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": "x"}), "stop"),
        (json!({"audio_format": "ogg"}), "audio_format"),
        (json!({"output": "video"}), "output"),
        (json!({"summarize_history": "yes"}), "summarize_history"),
        (json!({"vad": 3}), "vad"),
        (json!({"vad": {"mode": "psychic"}}), "vad.mode"),
        (json!({"vad": {"threshold": 1.5}}), "vad.threshold"),
        (json!({"vad": {"volume": 1}}), "vad.volume"),
        (json!({"model": "other"}), "model"),
        (json!([1]), "settings"),
    ] {
        let error = refusal(&value);
        assert_eq!(error.field, field, "{value}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
    }
}

#[test]
fn settings_are_shown_by_their_wire_names() {
    let shown = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(shown["output"], "audio");
    assert_eq!(shown["audio_format"], "pcm");
    assert_eq!(shown["lead_ms"], 300);
    assert_eq!(shown["summarize_history"], false);
    assert_eq!(shown["vad"], json!({"threshold": 0.5, "silence_ms": 300, "prefix_ms": 300, "mode": "semantic"}));
}

use serde_json::{Value, json};

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
    let many: serde_json::Map<_, _> = (0..33).map(|number| (format!("c{number}"), json!({}))).collect();
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
        (json!({"languages": vec!["en"; 129]}), "languages"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": "x"}), "stop"),
        (json!({"audio_format": "ogg"}), "audio_format"),
        (json!({"output": "video"}), "output"),
        (json!({"summarize_history": "yes"}), "summarize_history"),
        (json!({"vad": 3}), "vad"),
        (json!({"vad": {"mode": "psychic"}}), "vad.mode"),
        (json!({"vad": {"threshold": 1.5}}), "vad.threshold"),
        (json!({"vad": {"volume": 1}}), "vad.volume"),
        (json!({"model": ""}), "model"),
        (json!({"model": 7}), "model"),
        (json!({"stt_model": "two words"}), "stt_model"),
        (json!({"tts_model": "x".repeat(201)}), "tts_model"),
        (json!({"characters": null}), "characters"),
        (json!({"characters": {"": {}}}), "characters"),
        (json!({"characters": many}), "characters"),
        (json!({"characters": {"mira-001": null}}), "characters.mira-001"),
        (json!({"characters": {"mira-001": {"speed": 9}}}), "characters.mira-001.speed"),
        (json!({"characters": {"mira-001": {"model": ""}}}), "characters.mira-001.model"),
        (json!({"characters": {"mira-001": {"volume": 9}}}), "characters.mira-001.volume"),
        (json!([1]), "settings"),
    ] {
        let error = refusal(&value);
        assert_eq!(error.field, field, "{value}");
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
    }
}

#[test]
fn what_holds_for_all_cannot_be_set_for_one() {
    let shared = json!({
        "stt_model": "m", "languages": [], "summarize_history": true, "output": "text", "audio_format": "wav",
        "lead_ms": 400, "vad": null, "turn_taking": "all", "characters": {}
    });
    for (name, value) in shared.as_object().unwrap() {
        let error = refusal(&json!({"characters": {"mira-001": {name: value}}}));
        assert_eq!(error.field, format!("characters.mira-001.{name}"));
        assert!(error.message.contains("holds for all"), "{error}");
    }
}

#[test]
fn what_is_set_for_one_is_over_what_holds_for_all_whenever_it_was_set() {
    let patch = |value: Value| SettingsPatch::read(&value).unwrap();
    let one =
        patch(json!({"model": "a", "characters": {"mira-001": {"model": "b", "temperature": 0.1, "stop": ["x"]}}}));
    let all = patch(json!({"temperature": 0.9, "top_k": 3, "characters": {"mira-001": {"stop": []}}}));
    let settings = Settings::default().patched(&one).unwrap().patched(&all).unwrap();
    let (mira, max) = (settings.clone().of("mira-001"), settings.of("max-001"));
    assert_eq!((mira.model.as_deref(), mira.temperature, mira.top_k, mira.stop.len()), (Some("b"), 0.1, 3, 0));
    assert_eq!((max.model.as_deref(), max.temperature, max.top_k), (Some("a"), 0.9, 3));
    assert!(mira.characters.is_empty() && max.characters.is_empty());
}

#[test]
fn a_sum_of_patches_is_all_of_them_in_turn() {
    let patches = [
        json!({"vad": {"threshold": 0.7}, "model": "a", "seed": 3, "stop": ["x"], "system_prompt": "Be brief."}),
        json!({"vad": null, "temperature": 0.3, "characters": {"mira-001": {"speed": 2, "model": "b"}}}),
        json!({"vad": {"silence_ms": 500}, "model": null, "stt_model": "s", "tts_model": "t", "languages": ["en"]}),
        json!({"vad": {"mode": "server"}, "seed": null, "characters": {"mira-001": {"model": null}, "max-001": {}}}),
        json!({"top_p": 0.5, "top_k": 4, "max_tokens": 9, "summarize_history": true, "output": "text"}),
        json!({"audio_format": "wav", "lead_ms": 500, "turn_taking": "all", "speed": 0.5, "stop": []}),
    ];
    let patches = patches.map(|patch| SettingsPatch::read(&patch).unwrap());
    let vad = VadSettings { prefix_ms: 700, ..VadSettings::default() };
    let server = Settings { vad: Some(vad), ..Settings::default() };
    for from in 0..patches.len() {
        let mut sum = SettingsPatch::default();
        let mut in_turn = server.clone();
        for patch in &patches[from..] {
            sum.merge(patch);
            in_turn = in_turn.patched(patch).unwrap();
            assert_eq!(server.patched(&sum).unwrap(), in_turn, "from {from} to {patch:?}");
        }
        let written = serde_json::to_value(&sum).unwrap();
        assert_eq!(SettingsPatch::read(&written).unwrap(), sum, "as a journal keeps it");
    }
}

#[test]
fn settings_are_shown_by_their_wire_names() {
    let shown = serde_json::to_value(Settings::default()).unwrap();
    assert_eq!(shown["output"], "audio");
    assert_eq!(shown["audio_format"], "pcm");
    assert_eq!(shown["lead_ms"], 300);
    assert_eq!(shown["summarize_history"], false);
    assert_eq!([&shown["model"], &shown["stt_model"], &shown["tts_model"]], [&Value::Null; 3]);
    assert_eq!(shown["characters"], json!({}));
    assert_eq!(shown["vad"], json!({"threshold": 0.5, "silence_ms": 300, "prefix_ms": 300, "mode": "semantic"}));
}

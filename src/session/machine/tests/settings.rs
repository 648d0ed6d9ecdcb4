//! Whose settings hold: in one order, whoever joins and leaves.

use super::*;
use crate::session::event::AppliedSettings;

fn patch(value: &Value) -> SettingsPatch {
    SettingsPatch::read(value).unwrap()
}

fn set(value: &Value) -> Event {
    asked(Input::Settings(patch(value)))
}

/// This is stored with the conversation by now.
fn stored(settings: Value) -> Event {
    asked(Input::Stored(settings))
}

/// Each has something of its own.
fn pair() -> [Character; 2] {
    let [olivia, max, _] = company();
    let olivia = Character { parameters: json!({"temperature": 0.9, "top_k": 9}), ..olivia };
    [olivia, Character { model: Some("his-own".to_owned()), ..max }]
}

/// These take part from now on.
fn cast(machine: &mut Machine, characters: &[Character]) -> Vec<Effect> {
    let now = Instant::now();
    machine.step(now, asked(Input::Characters { character_ids: vec!["somebody".to_owned()] }));
    machine.step(now, Event::Cast { reference: None, outcome: Ok(characters.to_vec()) })
}

/// How the first to answer is asked to think and to speak.
fn answer(machine: &mut Machine, words: &str) -> (ChatRequest, Voicing) {
    let begun = machine.step(Instant::now(), text(words)).into_iter().find_map(|effect| match effect {
        Effect::Think { request, voicing, .. } => Some((*request, *voicing.unwrap())),
        _ => None,
    });
    begun.unwrap()
}

fn temperatures(machine: &mut Machine) -> [String; 2] {
    ["Olivia, hello.", "Max, hello."].map(|words| answer(machine, words).0.sampling.temperature.to_string())
}

fn applied(effects: Vec<Effect>) -> Option<AppliedSettings> {
    effects.into_iter().find_map(|effect| match effect {
        Effect::Tell(Told { output: Output::SettingsApplied(applied), .. }) => Some(*applied),
        _ => None,
    })
}

#[test]
fn what_a_client_set_stays_whoever_joins_and_leaves() {
    let [olivia, max] = pair();
    let mut machine = machine_of(std::slice::from_ref(&olivia), None);
    assert_eq!(temperatures(&mut machine)[0], "0.9");
    let applied = applied(machine.step(Instant::now(), set(&json!({"temperature": 0.1})))).unwrap();
    assert_eq!((applied.settings.temperature, applied.settings.top_k), (0.1, 9));
    cast(&mut machine, &[olivia.clone(), max.clone()]);
    assert_eq!(temperatures(&mut machine), ["0.1", "0.1"]);
    cast(&mut machine, std::slice::from_ref(&max));
    cast(&mut machine, &[max, olivia]);
    assert_eq!(temperatures(&mut machine), ["0.1", "0.1"]);
}

#[test]
fn the_conversations_settings_stay_whoever_joins() {
    let [olivia, max] = pair();
    let mut machine = machine_of(std::slice::from_ref(&max), None);
    machine.base.stored = patch(&json!({"temperature": 0.4, "top_k": 4, "characters": {"max-001": {"top_k": 5}}}));
    machine.step(Instant::now(), set(&json!({"temperature": 0.2, "top_k": 6})));
    cast(&mut machine, &[olivia, max]);
    assert_eq!(temperatures(&mut machine), ["0.2", "0.2"]);
    assert_eq!(answer(&mut machine, "Max, hello.").0.sampling.top_k, 5, "his, wherever it was set");
    machine.base.changed = SettingsPatch::default();
    machine.cast.settle(&machine.base);
    assert_eq!(temperatures(&mut machine), ["0.4", "0.4"], "over a character's own");
}

#[test]
fn what_is_stored_with_the_conversation_meanwhile_holds_from_the_next_reply_on() {
    let [olivia, max] = pair();
    let mut machine = machine_of(&[max, olivia], None);
    machine.base.languages = vec!["de".to_owned()];
    let mut store = |settings: Value| machine.step(Instant::now(), stored(settings));
    let told = applied(store(json!({"temperature": 0.4, "turn_taking": "all", "vad": null, "languages": ["de"]})));
    let told = told.unwrap();
    assert_eq!((told.settings.temperature, told.settings.turn_taking), (0.4, TurnTaking::All));
    assert_eq!(
        (told.settings.vad, told.settings.languages),
        (Settings::default().vad, vec![]),
        "the ear's, which goes on"
    );
    assert_eq!(told.changed, SettingsPatch::default(), "no client has set it");
    assert!(store(json!({"temperature": 0.4, "turn_taking": "all"})).is_empty(), "a new title changes no settings");
    assert_eq!(temperatures(&mut machine), ["0.4", "0.4"], "over a character's own");
    machine.step(Instant::now(), set(&json!({"temperature": 0.2})));
    machine.step(Instant::now(), stored(json!({"temperature": 0.5, "characters": {"max-001": {"top_k": 5}}})));
    assert_eq!(temperatures(&mut machine), ["0.2", "0.2"], "under what clients set");
    assert_eq!(answer(&mut machine, "Max, hello.").0.sampling.top_k, 5);
    machine.step(Instant::now(), stored(json!({"top_k": 8, "languages": ["de", "xx"]})));
    assert_eq!(answer(&mut machine, "Max, hello.").0.sampling.top_k, 8, "only what is not possible is left out");
    machine.step(Instant::now(), stored(json!({"characters": {"max-001": {"top_k": 5}}})));
    let told = applied(machine.step(Instant::now(), stored(json!({"temperature": "hot"})))).unwrap();
    assert_eq!(told.settings.characters.len(), 0, "what cannot be is ignored");
}

#[test]
fn a_model_is_the_sessions_then_the_characters_own() {
    let mut machine = machine_of(&pair(), None);
    let models = |machine: &mut Machine| ["Olivia, hello.", "Max, hello."].map(|words| answer(machine, words).0.model);
    let named = |name: &str| Some(name.to_owned());
    assert_eq!(models(&mut machine), [None, named("his-own")]);
    let now = Instant::now();
    let effects = machine.step(now, set(&json!({"model": "one-for-all"})));
    assert_eq!(applied(effects).unwrap().settings.model, named("one-for-all"));
    assert_eq!(models(&mut machine), [named("one-for-all"), named("one-for-all")]);
    machine.step(now, set(&json!({"characters": {"olivia-001": {"model": "hers"}, "max-001": {"model": null}}})));
    assert_eq!(models(&mut machine), [named("hers"), named("his-own")]);
    machine.step(now, set(&json!({"model": null})));
    assert_eq!(models(&mut machine), [named("hers"), named("his-own")]);
}

#[test]
fn what_is_set_for_one_is_hers_alone_and_hers_again_when_she_comes_back() {
    let [olivia, max] = pair();
    let mut machine = machine_of(&[olivia.clone(), max.clone()], None);
    let own = json!({"temperature": 0.3, "top_p": 0.7, "top_k": 2, "max_tokens": 30, "seed": 7, "stop": ["x"],
                     "system_prompt": "Be a pirate.", "tts_model": "parrot", "speed": 1.5, "model": "hers"});
    let effects = machine.step(Instant::now(), set(&json!({"characters": {"olivia-001": own}})));
    let settings = applied(effects).unwrap().settings;
    assert_eq!((settings.temperature, settings.tts_model), (0.9, None), "what holds for all is as it was");
    assert_eq!(settings.characters["olivia-001"], patch(&own));
    for _ in 0..2 {
        let (asked, voicing) = answer(&mut machine, "Olivia, hello.");
        let sampling = &asked.sampling;
        assert_eq!((sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens), (0.3, 0.7, 2, 30));
        assert_eq!(
            (sampling.seed, &sampling.stop[..], asked.model.as_deref()),
            (Some(7), &["x".to_owned()][..], Some("hers"))
        );
        assert!(asked.messages[0].content.starts_with("Be a pirate."), "{:?}", asked.messages[0]);
        assert_eq!((voicing.model.as_deref(), voicing.speed), (Some("parrot"), 1.5));
        let (asked, voicing) = answer(&mut machine, "Max, hello.");
        assert_eq!((asked.model.as_deref(), asked.sampling.seed), (Some("his-own"), None));
        assert_eq!((voicing.model, voicing.speed), (None, 1.0));
        cast(&mut machine, std::slice::from_ref(&max));
        cast(&mut machine, &[max.clone(), olivia.clone()]);
    }
    // For one reply something else may hold.
    let terms = patch(&json!({"temperature": 1.5, "model": "for-once"}));
    let character_ids = vec!["olivia-001".to_owned()];
    let effects = machine.step(Instant::now(), asked(Input::SpeakUp { character_ids, terms }));
    let request =
        effects.into_iter().find_map(|it| if let Effect::Think { request, .. } = it { Some(request) } else { None });
    let request = request.unwrap();
    assert_eq!((request.sampling.temperature, request.model.as_deref()), (1.5, Some("for-once")));
}

#[test]
fn nothing_is_set_for_somebody_who_takes_no_part() {
    let mut machine = machine_of(&pair(), None);
    let before = machine.settings.clone();
    let wrong = set(&json!({"temperature": 0.5, "characters": {"max-001": {"speed": 2}, "zoe-001": {"speed": 2}}}));
    let effects = machine.step(Instant::now(), wrong);
    let [Effect::Tell(Told { output: Output::Error(complaint), .. })] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(complaint.code, ErrorCode::BadField);
    assert_eq!(complaint.message, "characters.zoe-001: does not take part in this conversation");
    assert_eq!((machine.settings.clone(), answer(&mut machine, "Max, hello.").1.speed), (before, 1.0));
}

#[test]
fn what_holds_for_all_follows_the_first_character() {
    let [olivia, max] = pair();
    let mut machine = machine_of(&[olivia.clone(), max.clone()], None);
    machine.step(Instant::now(), set(&json!({"top_p": 0.5, "vad": null})));
    let settings = applied(cast(&mut machine, std::slice::from_ref(&max))).unwrap().settings;
    assert_eq!((settings.temperature, settings.top_p, settings.vad), (Settings::default().temperature, 0.5, None));
    assert!(applied(cast(&mut machine, &[max, olivia])).is_none(), "nothing has changed");
}

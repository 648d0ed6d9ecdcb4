//! Texts, prompts and limits, against the wording that the model was trained on.

use super::limits::{attempt_seed, is_worth_another, most_frames, needed_frames, seed_of};
use super::prompt::{Part, QUIET_ROOM, Reference, Said, Script, Setting, Voice};
use super::story::{Story, pieces};
use super::text::{description, fit_to_speak, is_musical};
use super::tokens::PromptTokens;
use crate::engine::EngineError;
use crate::nn::higgs::{Codes, HiggsConfig, Outcome, Segment};
use crate::testing;

fn columns(rows: u32) -> Codes {
    Codes::from_rows(8, (0..rows * 8).map(|index| index % 1024).collect()).unwrap()
}

fn reference(transcript: &str, rows: u32) -> Reference {
    Reference::new(&HiggsConfig::published(), transcript, &columns(rows))
}

/// With speech shown as its frames.
fn shown(script: &Script) -> String {
    let parts = script.parts().iter().map(|part| match part {
        Part::Words(words) => words.clone(),
        Part::Speech(speech) => format!("{{{}}}", speech.len()),
    });
    parts.collect()
}

fn setting(voice: Voice, scene: Option<&str>) -> Setting {
    Setting { voice, scene: scene.map(str::to_owned) }
}

fn prompt(voice: Voice, scene: Option<&str>, text: &str) -> String {
    shown(&Script::new(&setting(voice, scene), &[], text))
}

const ANSWER: &str = "<|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>";

fn turn(role: &str, content: &str) -> String {
    format!("<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>")
}

fn spoken(frames: usize) -> String {
    turn("assistant", &format!("<|audio_out_bos|>{{{frames}}}<|audio_eos|>"))
}

#[test]
fn a_free_voice_is_asked_for_in_a_quiet_room_or_anywhere() {
    assert_eq!(
        prompt(Voice::Free, Some(QUIET_ROOM), "The sun rises in the east."),
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nGenerate audio following instruction.\n\n\
         <|scene_desc_start|>\nAudio is recorded from a quiet room.\n<|scene_desc_end|><|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nThe sun rises in the east.<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n<|audio_out_bos|>"
    );
    let system = turn("system", "Generate audio following instruction.");
    assert_eq!(prompt(Voice::Free, None, "Hi."), format!("<|begin_of_text|>{system}{}{ANSWER}", turn("user", "Hi.")));
    // A scene of blanks is none; another is where it belongs.
    assert_eq!(prompt(Voice::Free, Some(" \n "), "Hi."), prompt(Voice::Free, None, "Hi."));
    assert!(
        prompt(Voice::Free, Some("A busy  street."), "Hi.").contains("_start|>\nA busy street.\n<|scene_desc_end|>")
    );
}

#[test]
fn a_described_voice_is_speaker_0_of_the_scene() {
    let voice = || Voice::Described("British accent".to_owned());
    let system = |scene: &str| {
        turn(
            "system",
            &format!("Generate audio following instruction.\n\n<|scene_desc_start|>\n{scene}\n<|scene_desc_end|>"),
        )
    };
    let rest = format!("{}{ANSWER}", turn("user", "Hi."));
    assert_eq!(
        prompt(voice(), Some(QUIET_ROOM), "Hi."),
        format!("<|begin_of_text|>{}{rest}", system(&format!("{QUIET_ROOM}\n\nSPEAKER0: British accent")))
    );
    assert_eq!(prompt(voice(), None, "Hi."), format!("<|begin_of_text|>{}{rest}", system("SPEAKER0: British accent")));
}

#[test]
fn a_cloned_voice_is_a_turn_that_it_spoke() {
    let clone = || Voice::Cloned(reference("I said (this)", 91));
    let rest = format!("{}{}{}{ANSWER}", turn("user", "I said this."), spoken(100), turn("user", "Hi."));
    assert_eq!(prompt(clone(), None, "Hi."), format!("<|begin_of_text|>{rest}"));
    let scene = "Generate audio following instruction.\n\n<|scene_desc_start|>\nA hall.\n<|scene_desc_end|>";
    assert_eq!(prompt(clone(), Some("A hall."), "Hi."), format!("<|begin_of_text|>{}{rest}", turn("system", scene)));
}

#[test]
fn a_described_cast_has_the_instruction_for_its_tags() {
    let cast = || Voice::DescribedCast(vec!["feminine".to_owned(), "masculine".to_owned()]);
    let text = "[SPEAKER0] Hello.\n[SPEAKER1] Goodbye.";
    let system = |scene: &str| {
        turn(
            "system",
            &format!(
                "You are an AI assistant designed to convert text into speech.\nIf the user's message includes a \
                 [SPEAKER*] tag, do not read out the tag and generate speech for the following text, using the \
                 specified voice.\nIf no speaker tag is present, select a suitable voice on your own.\n\n\
                 <|scene_desc_start|>\n{scene}SPEAKER0: feminine\nSPEAKER1: masculine\n<|scene_desc_end|>"
            ),
        )
    };
    let rest = format!("{}{ANSWER}", turn("user", text));
    assert_eq!(prompt(cast(), None, text), format!("<|begin_of_text|>{}{rest}", system("")));
    let scene = format!("{QUIET_ROOM}\n\n");
    assert_eq!(prompt(cast(), Some(QUIET_ROOM), text), format!("<|begin_of_text|>{}{rest}", system(&scene)));
}

#[test]
fn a_cloned_cast_spoke_a_turn_each_or_is_heard_in_the_scene() {
    let cast = || vec![reference("One.", 11), reference("Two.", 21)];
    let text = "[SPEAKER1] Hello.";
    let rest = format!("{}{ANSWER}", turn("user", text));
    let turns = [turn("user", "[SPEAKER0] One."), spoken(20), turn("user", "[SPEAKER1] Two."), spoken(30)].concat();
    assert_eq!(prompt(Voice::ClonedCast(cast()), None, text), format!("<|begin_of_text|>{turns}{rest}"));
    let system = "Generate audio following instruction.\n\n<|scene_desc_start|>\nA hall.\n\n\
                  SPEAKER0: <|audio_bos|>{20}<|audio_eos|>\nSPEAKER1: <|audio_bos|>{30}<|audio_eos|>\n<|scene_desc_end|>";
    assert_eq!(
        prompt(Voice::HeardCast(cast()), Some("A hall."), text),
        format!("<|begin_of_text|>{}{rest}", turn("system", system))
    );
}

#[test]
fn texts_are_made_fit_to_speak() {
    let cases = [
        ("Hello", "Hello."),
        ("  Hello,  you \n\n\n there  ", "Hello, you\nthere."),
        ("你好，世界。", "你好, 世界."),
        ("Say （softly） this (now)!", "Say softly this now !"),
        ("It is 20°C, or 68°F", "It is 20 degrees Celsius, or 68 degrees Fahrenheit."),
        ("Funny [laugh]", "Funny <SE>[Laughter]</SE>"),
        ("[humming start] la la [humming end]", "<SE_s>[Humming]</SE_s> la la <SE_e>[Humming]</SE_e>"),
        (
            "[music] [applause] [cheering] [cough] a",
            "<SE>[Music]</SE> <SE>[Applause]</SE> <SE>[Cheering]</SE> <SE>[Cough]</SE> a.",
        ),
        ("[sing start] a [sing end]", "<SE_s>[Singing]</SE_s> a <SE_e>[Singing]</SE_e>"),
        ("[music start] a [music end]", "<SE_s>[Music]</SE_s> a <SE_e>[Music]</SE_e>"),
        ("“Why?”", "\"Why?\""),
        ("Wait…", "Wait..."),
        ("one;", "one;"),
        ("", ""),
        (" \n ...", ""),
        // Nothing that is said becomes part of the prompt.
        ("a<|eot_id|>b <|audio_eos|>", "a< |eot_id|>b < |audio_eos|>."),
    ];
    for (text, fit) in cases {
        assert_eq!(fit_to_speak(text), fit, "{text:?}");
        // What is fit already stays.
        assert_eq!(fit_to_speak(fit), fit, "{text:?}");
    }
    assert_eq!(description("a\nvoice <|eot_id|>"), "a voice < |eot_id|>");
    assert!(is_musical(&fit_to_speak("[sing start] la")) && !is_musical("I sing."));
}

/// A checkpoint's own tokenizer is not ours to keep: this one has bytes and the same markers, with other numbers.
fn tokens() -> (PromptTokens, HiggsConfig) {
    let folder = testing::fixture("higgs_lm/wide");
    let config = HiggsConfig::from_folder(&folder).unwrap();
    (PromptTokens::load(&folder, &config).unwrap(), config)
}

#[test]
fn a_script_has_its_markers_as_ids_and_its_texts_as_bytes() {
    let (tokens, config) = tokens();
    let voice = Voice::Cloned(Reference::new(&config, "Ah.", &columns(3)));
    let prompt = tokens.prompt(&Script::new(&setting(voice, None), &[], "Oh <|eot_id|>")).unwrap();
    let [Segment::Text(before), Segment::Audio(frames), Segment::Text(after)] = prompt.segments() else {
        panic!("{prompt:?}")
    };
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let (begin, start, end, over, speak, spoken) = (256, 262, 263, 265, 269, 268);
    let head = |role: &str| [vec![start], bytes(role), vec![end], bytes("\n\n")].concat();
    let expected = [vec![begin], head("user"), bytes("Ah."), vec![over], head("assistant"), vec![speak]].concat();
    assert_eq!(before, &expected);
    assert_eq!(frames.len(), 12);
    let said = bytes("Oh < |eot_id|>.");
    let expected = [vec![spoken, over], head("user"), said, vec![over], head("assistant"), vec![speak]].concat();
    assert_eq!(after, &expected);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let folder = testing::fixture("higgs_lm/wide");
    let config = HiggsConfig::from_folder(&folder).unwrap();
    let refused = |folder: &std::path::Path, config: &HiggsConfig| match PromptTokens::load(folder, config) {
        Err(EngineError::BadFile { path, reason }) => format!("{} {reason}", path.display()),
        _ => panic!("it should be refused"),
    };
    assert!(
        refused(&folder, &HiggsConfig { speech_begin: 270, ..config.clone() })
            .contains("<|audio_out_bos|> is the id 269")
    );
    assert!(refused(&folder, &HiggsConfig { vocabulary: 260, ..config.clone() }).contains("another model"));
    let at = tempfile::tempdir().unwrap();
    assert!(refused(at.path(), &config).contains("tokenizer.json"));
    let text = std::fs::read_to_string(folder.join("tokenizer.json")).unwrap();
    std::fs::write(at.path().join("tokenizer.json"), text.replace("<|scene_desc_end|>", "<|something|>")).unwrap();
    assert!(refused(at.path(), &config).contains("<|scene_desc_end|> is no token"));
    std::fs::write(at.path().join("tokenizer.json"), &text[..100]).unwrap();
    assert!(refused(at.path(), &config).contains("tokenizer.json"));
}

const PLENTY: usize = 10_000;

fn keep(story: &mut Story, text: &str, rows: u32) {
    story.keep(&HiggsConfig::published(), text, &columns(rows), Outcome::Spoken);
}

/// The texts of the turns that the assistant spoke, and their frames.
fn context(story: &Story, most: usize) -> Vec<(String, usize)> {
    let script = story.script("Next.", most);
    let parts = script.parts();
    let pairs = parts.windows(2).filter_map(|pair| match pair {
        [Part::Words(words), Part::Speech(speech)] => {
            let said = words.rsplit("user<|end_header_id|>\n\n").next().unwrap().split("<|eot_id|>").next().unwrap();
            Some((said.to_owned(), speech.len()))
        }
        _ => None,
    });
    pairs.collect()
}

fn texts(story: &Story, most: usize) -> Vec<String> {
    context(story, most).into_iter().map(|(text, _)| text).collect()
}

#[test]
fn a_recorded_voice_hears_its_recording_and_what_it_said_last() {
    let mut story = Story::new(setting(Voice::Cloned(reference("Reference.", 91)), None));
    assert_eq!(context(&story, PLENTY), [("Reference.".to_owned(), 100)]);
    for (text, rows) in [("One.", 60), ("Two.", 70), ("Three.", 80)] {
        keep(&mut story, text, rows);
    }
    assert_eq!(texts(&story, PLENTY), ["Reference.", "Two.", "Three."]);
    assert_eq!(context(&story, PLENTY)[2].1, 89);
    // The latest go first where there is room for few; the recording is never left out.
    assert_eq!(texts(&story, 100), ["Reference.", "Three."]);
    assert_eq!(texts(&story, 0), ["Reference."]);
}

#[test]
fn a_voice_without_a_recording_keeps_the_first_that_it_said() {
    let mut story = Story::new(setting(Voice::Free, None));
    assert_eq!(texts(&story, PLENTY), Vec::<String>::new());
    // Too short to tell a voice by.
    keep(&mut story, "Ah.", 20);
    for text in ["One.", "Two.", "Three.", "Four."] {
        keep(&mut story, text, 60);
    }
    assert_eq!(texts(&story, PLENTY), ["One.", "Three.", "Four."]);
    assert_eq!(texts(&story, 70), ["One."]);
    // What stands first stays, so that what was read of it need not be read again.
    let before = shown(&story.script("Next.", PLENTY));
    keep(&mut story, "Five.", 60);
    let after = shown(&story.script("Next.", PLENTY));
    let shared = before.bytes().zip(after.bytes()).take_while(|(a, b)| a == b).count();
    assert!(before[..shared].contains("One.") && before[..shared].contains("{69}"));
}

#[test]
fn speech_that_ran_away_is_no_context() {
    let config = HiggsConfig::published();
    let mut story = Story::new(setting(Voice::Free, None));
    for outcome in [Outcome::CutOff, Outcome::Empty, Outcome::Broken] {
        story.keep(&config, "No.", &columns(80), outcome);
    }
    story.keep(&config, "No.", &Codes::new(8), Outcome::Spoken);
    assert!(texts(&story, PLENTY).is_empty());
}

#[test]
fn long_texts_are_cut_between_sentences() {
    assert_eq!(pieces("Just this."), ["Just this."]);
    assert_eq!(pieces("  \n\n "), Vec::<String>::new());
    assert_eq!(pieces("One here.\n\nTwo there."), ["One here.", "Two there."]);
    let sentence = "The quick brown fox jumps over the lazy dog again today. ";
    let long = sentence.repeat(40);
    let cut = pieces(&long);
    assert!(cut.len() >= 4, "{}", cut.len());
    for piece in &cut {
        assert!(piece.split_whitespace().count() <= 70);
        assert!(piece.ends_with("today."), "{piece}");
    }
    assert_eq!(cut.join(" "), long.trim());
    // Even where nothing ends.
    let endless = "word ".repeat(1000);
    let cut = pieces(&endless);
    assert!(cut.iter().all(|piece| piece.split_whitespace().count() <= 90));
    assert_eq!(cut.join(" "), endless.trim());
}

#[test]
fn a_text_has_time_enough_and_not_much_more() {
    // What people take, in seconds: from slow to very slow.
    let cases = [
        ("Yes.", 0.5, 8.0),
        ("The sun rises in the east and sets in the west.", 2.5, 16.0),
        ("太阳从东边升起,在西边落下.", 3.0, 18.0),
        ("Call 0171 2345678 now.", 5.0, 22.0),
        ("<SE>[Laughter]</SE>", 2.0, 15.0),
        ("<SE_s>[Humming]</SE_s> la la <SE_e>[Humming]</SE_e>", 20.0, 90.0),
    ];
    for (text, least, most) in cases {
        let seconds = most_frames(text) as f64 / 25.0;
        assert!((least * 2.0..most).contains(&seconds), "{text}: {seconds}");
    }
    // Twice what it needs, but for the silence around it.
    let piece = "The quick brown fox jumps over the lazy dog again. ".repeat(12);
    assert!((1500..3200).contains(&most_frames(&piece)), "{}", most_frames(&piece));
    assert!((most_frames(&piece) + 75).abs_diff(2 * needed_frames(&piece)) <= 2);
    assert!(most_frames("......") < 120);
}

#[test]
fn what_nobody_has_heard_is_tried_again() {
    for outcome in [Outcome::Empty, Outcome::CutOff, Outcome::Broken] {
        assert!(is_worth_another(outcome, 0, false) && is_worth_another(outcome, 1, false));
        assert!(!is_worth_another(outcome, 2, false));
        assert!(!is_worth_another(outcome, 0, true));
    }
    assert!(!is_worth_another(Outcome::Spoken, 0, false));
    assert_eq!(attempt_seed(7, 0), 7);
    assert!(attempt_seed(7, 1) != 7 && attempt_seed(7, 1) != attempt_seed(7, 2));
    // Pinned: a character sounds the same after an update.
    assert_eq!(seed_of("Ada"), 0xF9AE_E019_A006_C49B);
    assert_ne!(seed_of("Ada"), seed_of("Bob"));
}

#[test]
fn what_was_said_takes_its_frames() {
    assert_eq!(Said::new(&HiggsConfig::published(), "A.", &columns(11)).frames(), 20);
}

//! How a prompt is cut, and who else speaks, does not change what is spoken.

use candle_core::Device;

use super::{OPTIONS, expected, folder, greedy, largest_difference, logits_after, tiny};
use crate::nn::higgs::{
    Codes, Higgs, HiggsConfig, HiggsError, LoadOptions, Outcome, Precision, Prompt, Segment, Speaker, SpeechSettings,
    Utterance,
};

/// Products of another number of rows add up in another order.
const ROUNDING: f32 = 5e-5;

pub(super) fn step_all(higgs: &mut Higgs, utterances: &mut [Utterance], slots: &[usize]) {
    let speakers = utterances.iter_mut().zip(slots).map(|(utterance, slot)| Speaker { slot: *slot, utterance });
    higgs.step(&mut speakers.collect::<Vec<_>>()).unwrap();
}

/// Three prompts of different lengths, one with a reference.
fn prompts(config: &HiggsConfig) -> [Prompt; 3] {
    let text = |from: u32, length: u32| Segment::Text((from..from + length).chain([269]).collect());
    [expected().mixed_prompt(config), Prompt::new([text(40, 11)]), Prompt::new([text(97, 23)])]
}

fn settings() -> SpeechSettings {
    SpeechSettings { temperature: 1.0, top_k: 12, top_p: 0.9, most_frames: 30, ..SpeechSettings::default() }
}

fn alone(prompt: &Prompt, seed: u64) -> Utterance {
    let mut higgs = tiny("boson");
    higgs.prefill(2, prompt, usize::MAX).unwrap();
    let mut utterance = Utterance::new(higgs.config(), settings(), seed, &prompt.heard(higgs.config(), 7));
    while utterance.outcome().is_none() {
        step_all(&mut higgs, std::slice::from_mut(&mut utterance), &[2]);
    }
    utterance
}

#[test]
fn chunks_of_a_prompt_give_what_the_whole_gives() {
    let begin = [16; 8];
    let mut whole = tiny("boson");
    let prompt = expected().mixed_prompt(whole.config());
    assert_eq!(whole.prefill(0, &prompt, usize::MAX).unwrap(), 0);
    let whole = logits_after(&mut whole, 0, &begin);
    for most in [1, 2, 5, 7, 31] {
        let mut higgs = tiny("boson");
        let mut calls = 0;
        while higgs.prefill(3, &prompt, most).unwrap() > 0 {
            calls += 1;
        }
        assert_eq!(calls, (prompt.len() - 1) / most);
        let difference = largest_difference(&logits_after(&mut higgs, 3, &begin), &whole);
        assert!(difference < ROUNDING, "by {most}: {difference}");
    }
}

/// More rows than attend at once.
#[test]
fn a_long_prompt_gives_what_short_pieces_give() {
    let options = LoadOptions { positions: 600, ..OPTIONS };
    let [one, two] = [usize::MAX, 100].map(|most| {
        let mut higgs = Higgs::load(&folder("boson"), &Device::Cpu, options).unwrap();
        let prompt = Prompt::new([Segment::Text((0..590).map(|index| index * 7 % 256).collect())]);
        while higgs.prefill(1, &prompt, most).unwrap() > 0 {}
        logits_after(&mut higgs, 1, &[16; 8])
    });
    assert!(largest_difference(&one, &two) < 2e-4, "{}", largest_difference(&one, &two));
}

/// One step at a time over kept keys and values is what reading everything again gives.
#[test]
fn a_step_gives_what_reading_everything_again_gives() {
    let mut higgs = tiny("transformers");
    let prompt = expected().mixed_prompt(higgs.config());
    higgs.prefill(0, &prompt, usize::MAX).unwrap();
    let frames = Codes::from_rows(8, (0..8 * 20).map(|index| index * 5 % 18).collect()).unwrap();
    for (count, frame) in frames.rows().enumerate() {
        let stepped = logits_after(&mut higgs, 0, frame);
        let so_far = Codes::from_rows(8, frames.values()[..(count + 1) * 8].to_vec()).unwrap();
        let all = Prompt::new(prompt.segments().iter().cloned().chain([Segment::Audio(so_far.into())]));
        let rows = higgs.model.read(&higgs.slots, 1, &all, 0..all.len()).unwrap();
        let last = rows.narrow(0, all.len() - 1, 1).unwrap();
        let logits: Vec<f32> = higgs.model.logits(&last).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        assert!(largest_difference(&stepped, &logits) < ROUNDING);
    }
}

#[test]
fn rows_of_a_batch_speak_what_each_speaks_alone() {
    let mut higgs = tiny("boson");
    let prompts = prompts(higgs.config());
    let alone: Vec<Utterance> = prompts.iter().zip(10..).map(|(prompt, seed)| alone(prompt, seed)).collect();
    // Neighbouring slots, slots apart, and in another order than the rows.
    for slots in [[0, 1, 2], [0, 1, 3], [3, 0, 2]] {
        let mut utterances: Vec<Utterance> = prompts
            .iter()
            .zip(10..)
            .map(|(prompt, seed)| Utterance::new(higgs.config(), settings(), seed, &prompt.heard(higgs.config(), 7)))
            .collect();
        for (prompt, slot) in prompts.iter().zip(slots) {
            higgs.reset(slot, 0).unwrap();
            higgs.prefill(slot, prompt, usize::MAX).unwrap();
        }
        for _ in 0..30 {
            step_all(&mut higgs, &mut utterances, &slots);
        }
        for (utterance, alone) in utterances.iter().zip(&alone) {
            assert_eq!(utterance.frames(), alone.frames(), "slots {slots:?}");
            assert_eq!(utterance.outcome(), alone.outcome());
        }
    }
}

#[test]
fn a_slot_that_waits_between_two_that_speak_keeps_what_it_holds() {
    let mut higgs = tiny("boson");
    let prompts = prompts(higgs.config());
    let alone = alone(&prompts[1], 11);
    let mut utterances: Vec<Utterance> = prompts
        .iter()
        .zip(10..)
        .map(|(prompt, seed)| Utterance::new(higgs.config(), settings(), seed, &prompt.heard(higgs.config(), 7)))
        .collect();
    for (slot, prompt) in prompts.iter().enumerate() {
        higgs.prefill(slot, prompt, usize::MAX).unwrap();
    }
    let [first, waiting, last] = utterances.as_mut_slice() else { panic!("three") };
    let step = |higgs: &mut Higgs, speakers: Vec<(usize, &mut Utterance)>| {
        let speakers = speakers.into_iter().map(|(slot, utterance)| Speaker { slot, utterance });
        higgs.step(&mut speakers.collect::<Vec<_>>()).unwrap();
    };
    // It waits at its beginning, and again in its midst.
    for _ in 0..5 {
        step(&mut higgs, vec![(0, first), (2, last)]);
    }
    for _ in 0..5 {
        step(&mut higgs, vec![(1, waiting)]);
    }
    for _ in 0..5 {
        step(&mut higgs, vec![(0, first), (2, last)]);
    }
    while waiting.outcome().is_none() {
        step(&mut higgs, vec![(1, waiting)]);
    }
    assert_eq!(waiting.frames(), alone.frames());
}

/// Slots that are admitted late, cancelled, and used again by others.
#[test]
fn who_comes_and_goes_does_not_change_what_the_others_speak() {
    let mut higgs = tiny("boson");
    let [long, one, two] = prompts(higgs.config());
    let expected = [alone(&long, 1), alone(&one, 2), alone(&two, 3)];
    let begin = |higgs: &Higgs, prompt: &Prompt, seed| {
        Utterance::new(higgs.config(), settings(), seed, &prompt.heard(higgs.config(), 7))
    };
    higgs.prefill(0, &long, usize::MAX).unwrap();
    let mut first = begin(&higgs, &long, 1);
    higgs.prefill(1, &two, usize::MAX).unwrap();
    let mut cancelled = begin(&higgs, &two, 99);
    for _ in 0..5 {
        let mut speakers = [Speaker { slot: 1, utterance: &mut cancelled }, Speaker { slot: 0, utterance: &mut first }];
        higgs.step(&mut speakers).unwrap();
    }
    higgs.reset(1, 0).unwrap();
    higgs.prefill(1, &one, usize::MAX).unwrap();
    let mut second = begin(&higgs, &one, 2);
    for _ in 0..4 {
        let mut speakers = [Speaker { slot: 0, utterance: &mut first }, Speaker { slot: 1, utterance: &mut second }];
        higgs.step(&mut speakers).unwrap();
    }
    higgs.prefill(3, &two, usize::MAX).unwrap();
    let mut third = begin(&higgs, &two, 3);
    for _ in 0..30 {
        let mut speakers = [
            Speaker { slot: 0, utterance: &mut first },
            Speaker { slot: 1, utterance: &mut second },
            Speaker { slot: 3, utterance: &mut third },
        ];
        higgs.step(&mut speakers).unwrap();
    }
    for (utterance, alone) in [first, second, third].iter().zip(&expected) {
        assert_eq!(utterance.frames(), alone.frames());
    }
}

#[test]
fn a_copied_prefix_is_as_good_as_a_read_one() {
    let mut higgs = tiny("boson");
    let first = expected().mixed_prompt(higgs.config());
    let other = Prompt::new(first.segments()[..2].iter().cloned().chain([Segment::Text(vec![66, 67, 68, 269])]));
    let shared = first.shared(&other);
    assert_eq!(shared, first.len() - 9);
    higgs.prefill(0, &other, usize::MAX).unwrap();
    let read = logits_after(&mut higgs, 0, &[16; 8]);
    higgs.prefill(1, &first, usize::MAX).unwrap();
    // What the slot held before does not matter.
    higgs.prefill(3, &first, usize::MAX).unwrap();
    higgs.copy_prefix(1, 3, shared).unwrap();
    assert_eq!(higgs.length(3), shared);
    assert_eq!(higgs.prefill(3, &other, usize::MAX).unwrap(), 0);
    let copied = logits_after(&mut higgs, 3, &[16; 8]);
    assert!(largest_difference(&read, &copied) < ROUNDING);
    // The slot that was copied from goes on as if nothing had been.
    let mut again = tiny("boson");
    again.prefill(0, &first, usize::MAX).unwrap();
    let difference = largest_difference(&logits_after(&mut higgs, 1, &[16; 8]), &logits_after(&mut again, 0, &[16; 8]));
    assert!(difference < ROUNDING);
}

#[test]
fn a_full_slot_is_cut_off_and_the_others_go_on() {
    let options = LoadOptions { slots: 2, positions: 20, ..OPTIONS };
    let mut higgs = Higgs::load(&folder("boson"), &Device::Cpu, options).unwrap();
    let [short, long] = [8, 16].map(|length| Prompt::new([Segment::Text(vec![65; length])]));
    let settings = SpeechSettings { temperature: 1.0, ..settings() };
    let mut utterances = [1, 2].map(|seed| Utterance::new(higgs.config(), settings, seed, &Codes::new(8)));
    higgs.prefill(0, &short, usize::MAX).unwrap();
    higgs.prefill(1, &long, usize::MAX).unwrap();
    for _ in 0..5 {
        step_all(&mut higgs, &mut utterances, &[0, 1]);
    }
    assert_eq!(utterances[1].outcome(), Some(Outcome::CutOff));
    assert_eq!(utterances[1].frames().len(), 5);
    assert_eq!((utterances[0].outcome(), utterances[0].frames().len()), (None, 6));
}

#[test]
fn calls_that_break_the_rules_are_refused_and_nothing_is_read() {
    let mut higgs = tiny("boson");
    let good = Prompt::new([Segment::Text(vec![65; 10])]);
    let refused = |higgs: &mut Higgs, slot: usize, prompt: &Prompt| match higgs.prefill(slot, prompt, usize::MAX) {
        Err(error @ HiggsError::BadCall { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused(&mut higgs, 4, &good).contains("4 slots"));
    assert!(refused(&mut higgs, 0, &Prompt::default()).contains("empty"));
    assert!(refused(&mut higgs, 0, &Prompt::new([Segment::Text(vec![284])])).contains("id 284"));
    let codes =
        |codebooks, code| Prompt::new([Segment::Audio(Codes::from_rows(codebooks, vec![code; 8]).unwrap().into())]);
    assert!(refused(&mut higgs, 0, &codes(8, 18)).contains("code 18"));
    assert!(refused(&mut higgs, 0, &codes(4, 3)).contains("4 codebooks"));
    assert!(refused(&mut higgs, 0, &Prompt::new([Segment::Text(vec![65; 96])])).contains("no room"));
    assert_eq!(higgs.length(0), 0);
    higgs.prefill(0, &good, usize::MAX).unwrap();
    assert!(refused(&mut higgs, 0, &Prompt::new([Segment::Text(vec![65; 5])])).contains("reset"));
    assert!(higgs.copy_prefix(0, 1, 11).unwrap_err().to_string().contains("11 were asked for"));
    assert!(higgs.copy_prefix(0, 9, 3).is_err());
    let mut utterances = [1, 2].map(|seed| Utterance::new(higgs.config(), greedy(), seed, &Codes::new(8)));
    let [one, two] = &mut utterances;
    let mut twice = [Speaker { slot: 0, utterance: one }, Speaker { slot: 0, utterance: two }];
    assert!(higgs.step(&mut twice).unwrap_err().to_string().contains("twice"));
    let mut unread = [Speaker { slot: 2, utterance: &mut utterances[0] }];
    assert!(higgs.step(&mut unread).unwrap_err().to_string().contains("no prompt"));
    assert!(utterances.iter().all(|utterance| utterance.frames().len() == 1));
}

/// What is not finite must not reach a slot's next utterance, nor the neighbours.
#[test]
fn a_broken_utterance_leaves_a_clean_slot() {
    let mut higgs = tiny("boson");
    let [_, one, two] = prompts(higgs.config());
    let expected = [alone(&one, 1), alone(&two, 2)];
    higgs.prefill(0, &one, usize::MAX).unwrap();
    higgs.prefill(1, &two, usize::MAX).unwrap();
    for memory in [&higgs.slots.keys[0], &higgs.slots.values[1]] {
        let broken = (memory.narrow(0, 1, 1).unwrap() * f64::NAN).unwrap();
        memory.slice_set(&broken, 0, 1).unwrap();
    }
    let mut utterances = [1, 2].map(|seed| Utterance::new(higgs.config(), settings(), seed, &Codes::new(8)));
    step_all(&mut higgs, &mut utterances, &[0, 1]);
    assert_eq!(utterances[1].outcome(), Some(Outcome::Broken));
    assert_eq!(higgs.length(1), 0);
    higgs.prefill(1, &two, usize::MAX).unwrap();
    utterances[1] = Utterance::new(higgs.config(), settings(), 2, &Codes::new(8));
    for _ in 0..30 {
        step_all(&mut higgs, &mut utterances, &[0, 1]);
    }
    for (utterance, alone) in utterances.iter().zip(&expected) {
        assert_eq!(utterance.frames(), alone.frames());
    }
}

/// Widths that both kinds of blocks divide.
fn blocky() -> HiggsConfig {
    HiggsConfig {
        vocabulary: 64,
        hidden: 256,
        intermediate: 512,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        codes: 30,
        speech_begin: 1,
        ..HiggsConfig::published()
    }
}

/// Quantized weights of the same seed are near the floats, nearer with more bits, and speak.
#[test]
fn quantized_weights_are_near_the_floats() {
    let folder = tempfile::tempdir().unwrap();
    super::checkpoints::write_random(folder.path(), &blocky(), 5);
    let prompt = Prompt::new([Segment::Text((0..20).collect())]);
    let [float, eight, four] = [Precision::Float, Precision::Q8_0, Precision::Q4K].map(|precision| {
        let mut higgs = Higgs::load(folder.path(), &Device::Cpu, LoadOptions { precision, ..OPTIONS }).unwrap();
        higgs.prefill(0, &prompt, usize::MAX).unwrap();
        logits_after(&mut higgs, 0, &[30; 8])
    });
    let size = float.iter().fold(0.0, |size: f32, logit| size.max(logit.abs()));
    let (eight, four) = (largest_difference(&float, &eight) / size, largest_difference(&float, &four) / size);
    assert!(eight < 0.05, "{eight}");
    assert!(four < 0.5 && four > eight, "{four}");
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused() {
    let options = LoadOptions { precision: Precision::Q4K, ..OPTIONS };
    let error = Higgs::load(&folder("boson"), &Device::Cpu, options).err().unwrap();
    assert!(error.to_string().contains("multiple of 256"), "{error}");
}

#[test]
fn a_random_model_speaks() {
    let mut higgs = Higgs::random(blocky(), &Device::Cpu, OPTIONS).unwrap();
    higgs.prefill(0, &Prompt::new([Segment::Text(vec![3; 5])]), usize::MAX).unwrap();
    let mut utterance = Utterance::new(higgs.config(), settings(), 1, &Codes::new(8));
    while utterance.outcome().is_none() {
        step_all(&mut higgs, std::slice::from_mut(&mut utterance), &[0]);
    }
    assert_ne!(utterance.outcome(), Some(Outcome::Broken));
}

#[test]
fn a_model_goes_to_its_thread() {
    fn goes<T: Send>() {}
    goes::<Higgs>();
    goes::<Utterance>();
    goes::<Prompt>();
}

//! The same numbers as transformers, in both layouts.

use candle_core::{DType, Device, Tensor};

use super::{
    Expected, Generated, LAYOUTS, OPTIONS, expected, folder, greedy, largest_difference, logits_after, tensors, tiny,
};
use crate::nn::higgs::{
    Codes, EndPolicy, Higgs, LoadOptions, Outcome, RepetitionRule, Segment, SpeechSettings, Utterance,
};

const TOLERANCE: f32 = 1e-4;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_position_of_a_mixed_prompt_has_transformers_logits() {
    let (expected, tensors) = (expected(), tensors());
    for layout in LAYOUTS {
        let higgs = tiny(layout);
        let prompt = expected.mixed_prompt(higgs.config());
        assert_eq!(prompt.len(), expected.mixed.len());
        let rows = higgs.model.read(&higgs.slots, 0, &prompt, 0..prompt.len()).unwrap();
        let logits = values(&higgs.model.logits(&rows).unwrap());
        let difference = largest_difference(&logits, &values(&tensors["mixed.logits"]));
        assert!(difference < TOLERANCE, "{layout}: {difference}");
        // Not only where much is averaged.
        assert!(logits.iter().any(|logit| logit.abs() > 1.0));
    }
}

#[test]
fn each_layer_alone_has_transformers_hidden_states() {
    let (expected, tensors) = (expected(), tensors());
    for layers in [0, 1] {
        let mut higgs = tiny("transformers");
        higgs.model.keep_layers(layers);
        let prompt = expected.mixed_prompt(higgs.config());
        let rows = higgs.model.read(&higgs.slots, 0, &prompt, 0..prompt.len()).unwrap();
        let difference = largest_difference(&values(&rows), &values(&tensors[&format!("mixed.hidden.{layers}")]));
        assert!(difference < TOLERANCE, "after {layers} layers: {difference}");
    }
}

/// As the fixture's script bends the head's logits.
fn bend(logits: &mut [f32], case: &Generated, step: usize) {
    if let Some(temper) = case.temper {
        for logit in logits.iter_mut() {
            *logit *= temper;
        }
    }
    if let Some((at, codebook)) = case.force {
        for book in logits.chunks_exact_mut(18) {
            book[16] -= 1e5;
            book[17] -= 1e5;
        }
        if step == at {
            logits[codebook * 18 + 17] += 1e6;
        }
    }
}

fn speak(higgs: &mut Higgs, expected: &Expected, case: &Generated, ending: EndPolicy) -> Utterance {
    let prompt = expected.prompt(higgs.config(), case);
    higgs.reset(0, 0).unwrap();
    assert_eq!(higgs.prefill(0, &prompt, usize::MAX).unwrap(), 0);
    let settings = SpeechSettings {
        repetition: case.repetition.then(RepetitionRule::default),
        most_frames: case.steps,
        ending,
        ..greedy()
    };
    let heard = prompt.heard(higgs.config(), 7);
    let mut utterance = Utterance::new(higgs.config(), settings, 1, &heard);
    while utterance.outcome().is_none() {
        let frames = utterance.frames();
        let (step, frame) = (frames.len(), frames.row(frames.len() - 1).to_vec());
        let mut logits = logits_after(higgs, 0, &frame);
        bend(&mut logits, case, step);
        utterance.advance(&mut logits);
    }
    utterance
}

fn rows(codes: &Codes) -> Vec<Vec<u32>> {
    codes.rows().map(<[u32]>::to_vec).collect()
}

#[test]
fn what_is_spoken_greedily_is_what_transformers_speaks() {
    let expected = expected();
    for layout in LAYOUTS {
        let mut higgs = tiny(layout);
        for case in &expected.generated {
            let utterance = speak(&mut higgs, &expected, case, EndPolicy::Transformers);
            assert_eq!(rows(utterance.frames()), case.frames, "{layout}, {}", case.name);
        }
    }
    // Every codebook ends one of them, some before all codebooks speak.
    for codebook in 0..8 {
        assert!(expected.generated.iter().any(|case| case.force.is_some_and(|(_, forced)| forced == codebook)));
    }
}

/// Both ways to end give the same columns up to the first frame in which they differ: the end's.
#[test]
fn the_other_way_to_end_speaks_the_same_columns() {
    let expected = expected();
    let mut higgs = tiny("transformers");
    for case in expected.generated.iter().filter(|case| case.name.starts_with("end")) {
        let (step, codebook) = case.force.unwrap();
        let theirs = speak(&mut higgs, &expected, case, EndPolicy::Transformers);
        let ours = speak(&mut higgs, &expected, case, EndPolicy::Boson);
        let columns = (step - codebook).saturating_sub(1);
        assert_eq!((ours.columns(), theirs.columns()), (columns, columns), "{}", case.name);
        let outcome = if columns == 0 { Outcome::Empty } else { Outcome::Spoken };
        assert_eq!((ours.outcome(), theirs.outcome()), (Some(outcome), Some(outcome)), "{}", case.name);
        // Of the last columns some codes were drawn after the frames had begun to differ.
        let same = columns.saturating_sub(7 - codebook);
        assert_eq!(ours.speech(0, same), theirs.speech(0, same), "{}", case.name);
    }
}

#[test]
fn logits_along_the_way_are_transformers() {
    let (expected, tensors) = (expected(), tensors());
    for name in ["plain", "reference"] {
        let mut higgs = tiny("boson");
        let case = expected.case(name);
        let prompt = expected.prompt(higgs.config(), case);
        higgs.prefill(0, &prompt, usize::MAX).unwrap();
        let all = values(&tensors[&format!("{name}.logits")]);
        // The first of them follow the prompt, where nothing is drawn.
        for (frame, logits) in case.frames.iter().zip(all.chunks_exact(144).skip(1)) {
            let difference = largest_difference(&logits_after(&mut higgs, 0, frame), logits);
            assert!(difference < TOLERANCE, "{name}: {difference}");
        }
    }
}

/// transformers pads on the left and masks; here each row has its own length.
#[test]
fn rows_of_a_batch_are_those_of_transformers_batch() {
    let expected = expected();
    let mut higgs = tiny("transformers");
    let prompts = [expected.mixed_prompt(higgs.config()), expected.prompt(higgs.config(), expected.case("plain"))];
    let settings = SpeechSettings { most_frames: 12, ending: EndPolicy::Transformers, ..greedy() };
    let mut utterances =
        prompts.each_ref().map(|prompt| Utterance::new(higgs.config(), settings, 1, &prompt.heard(higgs.config(), 7)));
    for (slot, prompt) in prompts.iter().enumerate() {
        higgs.prefill(slot, prompt, usize::MAX).unwrap();
    }
    for _ in 0..12 {
        super::slots::step_all(&mut higgs, &mut utterances, &[0, 1]);
    }
    for (utterance, batch) in utterances.iter().zip(&expected.batch) {
        assert_eq!(&rows(utterance.frames()), batch);
    }
}

/// The layouts' rotary scalings are written differently and are the same function.
#[test]
fn both_layouts_are_one_model() {
    let expected = expected();
    let [one, two] = LAYOUTS.map(|layout| {
        let higgs = tiny(layout);
        let prompt = expected.mixed_prompt(higgs.config());
        let rows = higgs.model.read(&higgs.slots, 0, &prompt, 0..prompt.len()).unwrap();
        values(&higgs.model.logits(&rows).unwrap())
    });
    assert!(largest_difference(&one, &two) < 1e-5);
}

/// 1024 codes, stored in bf16: what the codec can make sound of.
#[test]
fn a_model_of_the_codecs_size_speaks_what_transformers_speaks() {
    #[derive(serde::Deserialize)]
    struct Wide {
        ids: Vec<u32>,
        force: (usize, usize),
        frames: Vec<Vec<u32>>,
    }
    let wide: Wide = serde_json::from_slice(&std::fs::read(folder("wide/expected.json")).unwrap()).unwrap();
    let mut higgs = Higgs::load(&folder("wide"), &Device::Cpu, LoadOptions { slots: 1, ..OPTIONS }).unwrap();
    let prompt = crate::nn::higgs::Prompt::new([Segment::Text(wide.ids)]);
    higgs.prefill(0, &prompt, usize::MAX).unwrap();
    let settings = SpeechSettings { ending: EndPolicy::Transformers, ..greedy() };
    let mut utterance = Utterance::new(higgs.config(), settings, 1, &Codes::new(8));
    while utterance.outcome().is_none() {
        let frames = utterance.frames();
        let (step, frame) = (frames.len(), frames.row(frames.len() - 1).to_vec());
        let mut logits = logits_after(&mut higgs, 0, &frame);
        for book in logits.chunks_exact_mut(1026) {
            book[1024] -= 1e5;
            book[1025] -= 1e5;
        }
        if step == wide.force.0 {
            logits[wide.force.1 * 1026 + 1025] += 1e6;
        }
        utterance.advance(&mut logits);
    }
    assert_eq!(rows(utterance.frames()), wide.frames);
    assert_eq!(utterance.outcome(), Some(Outcome::Spoken));
    assert_eq!(utterance.columns(), 49);
}

use super::*;

const PLAIN: SamplingOptions = SamplingOptions { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };

fn draws(options: SamplingOptions, logits: &[f32], count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(options, 42);
    (0..count).map(|_| sampler.choose(&mut logits.to_vec(), &[]).unwrap()).collect()
}

#[test]
fn zero_temperature_takes_the_first_of_the_likeliest() {
    let greedy = SamplingOptions { temperature: 0.0, ..PLAIN };
    assert_eq!(draws(greedy, &[1.0, 3.0, 3.0, f32::NEG_INFINITY], 3), [1, 1, 1]);
}

#[test]
fn the_seed_decides() {
    let logits: Vec<f32> = (0..100).map(|token| (token % 7) as f32 * 0.3).collect();
    assert_eq!(draws(PLAIN, &logits, 50), draws(PLAIN, &logits, 50));
    let mut other = Sampler::new(PLAIN, 43);
    let others: Vec<_> = (0..50).map(|_| other.choose(&mut logits.clone(), &[]).unwrap()).collect();
    assert_ne!(draws(PLAIN, &logits, 50), others);
}

#[test]
fn frequencies_follow_the_softmax() {
    let logits = [1.0f32, 0.0, -1.0, -30.0];
    let total: f32 = logits.iter().map(|logit| logit.exp()).sum();
    let drawn = draws(PLAIN, &logits, 20_000);
    for (token, logit) in (0..3).zip(logits) {
        let share = drawn.iter().filter(|drawn| **drawn == token).count() as f32 / drawn.len() as f32;
        assert!((share - logit.exp() / total).abs() < 0.015, "token {token}: {share}");
    }
    assert!(!drawn.contains(&3));
}

#[test]
fn top_k_and_top_p_cut_the_tail() {
    let logits = [2.0, 1.9, 1.8, 1.7, 1.6];
    let top_k = draws(SamplingOptions { top_k: 2, ..PLAIN }, &logits, 500);
    assert!(top_k.iter().all(|token| *token < 2) && top_k.contains(&1));
    // The weights are about 0.24, 0.22, 0.20, …: three make 0.6.
    let top_p = draws(SamplingOptions { top_p: 0.6, ..PLAIN }, &logits, 500);
    assert!(top_p.iter().all(|token| *token < 3) && top_p.contains(&2));
    let only_best = draws(SamplingOptions { top_p: 0.0, ..PLAIN }, &logits, 50);
    assert!(only_best.iter().all(|token| *token == 0));
}

#[test]
fn repetition_lowers_recent_tokens_once() {
    let mut logits = [4.0, -4.0, 3.5, 1.0];
    let options = SamplingOptions { temperature: 0.0, repetition_penalty: 2.0, ..PLAIN };
    let chosen = Sampler::new(options, 0).choose(&mut logits, &[0, 1, 0, 99]).unwrap();
    assert_eq!((chosen, logits.map(f32::to_bits)), (2, [2.0f32, -8.0, 3.5, 1.0].map(f32::to_bits)));
    let mut old = vec![3u32; PENALTY_WINDOW];
    old.insert(0, 2);
    let mut logits = [0.0, 0.0, 5.0, 4.0];
    Sampler::new(options, 0).choose(&mut logits, &old).unwrap();
    assert_eq!(logits.map(f32::to_bits), [0.0f32, 0.0, 5.0, 2.0].map(f32::to_bits), "out of the window, free again");
}

#[test]
fn broken_logits_are_an_error() {
    for logits in [vec![], vec![1.0, f32::NAN], vec![f32::NEG_INFINITY; 3], vec![f32::INFINITY, 0.0]] {
        let mut logits: Vec<f32> = logits;
        assert_eq!(Sampler::new(PLAIN, 0).choose(&mut logits, &[]), Err(NotFinite));
    }
}

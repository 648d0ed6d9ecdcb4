use std::thread;

use super::*;

#[test]
fn nobody_gives_way_to_nobody() {
    let begun = Instant::now();
    Precedence::default().give_way();
    assert!(begun.elapsed() < PATIENCE / 2);
}

#[test]
fn a_step_waits_until_the_last_hurry_is_over() {
    let precedence = Precedence::default();
    let (first, second) = (precedence.hurry(Urgent::Answer), precedence.hurry(Urgent::Interruption));
    let begun = Instant::now();
    let step = {
        let precedence = precedence.clone();
        thread::spawn(move || precedence.give_way())
    };
    drop(first);
    thread::sleep(Duration::from_millis(50));
    assert!(!step.is_finished());
    drop(second);
    step.join().unwrap();
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn patience_ends() {
    let precedence = Precedence::default();
    let _hurry = precedence.hurry(Urgent::Interruption);
    let begun = Instant::now();
    precedence.give_way();
    assert!(begun.elapsed() >= PATIENCE);
}

#[test]
fn speech_gives_way_to_interruptions_only_and_to_none_before_an_answer() {
    let precedence = Precedence::default();
    let begun = Instant::now();
    let answer = precedence.hurry(Urgent::Answer);
    let left = precedence.give_way_to_interruption(PATIENCE);
    let _interruption = precedence.hurry(Urgent::Interruption);
    let left = precedence.give_way_to_interruption(left);
    assert!(begun.elapsed() < PATIENCE / 2 && left > PATIENCE / 2);
    drop(answer);
    assert_eq!(precedence.give_way_to_interruption(left), Duration::ZERO);
    // The next answer that is waited for ends the wait.
    let speech = {
        let precedence = precedence.clone();
        thread::spawn(move || precedence.give_way_to_interruption(20 * PATIENCE))
    };
    thread::sleep(Duration::from_millis(50));
    let _answer = precedence.hurry(Urgent::Answer);
    assert!(speech.join().unwrap() > 10 * PATIENCE);
}

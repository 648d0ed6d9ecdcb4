use std::collections::VecDeque;

use super::*;
use crate::testing::Babble;

/// A microphone beside a loudspeaker.
struct Scene {
    detector: EchoDetector,
    reply: Babble,
    /// What was played and is still to be heard, at 16 kHz.
    air: VecDeque<f32>,
    noise: Babble,
}

impl Scene {
    /// The loudspeaker is heard so much later.
    fn new(delay_millis: usize) -> Self {
        let air = vec![0.0; delay_millis * 16].into();
        Self { detector: EchoDetector::default(), reply: Babble::new(1), air, noise: Babble::new(9) }
    }

    /// One frame: the loudspeaker as loud as this at the microphone, somebody at it, who plays.
    fn frame(&mut self, echo: f32, user: Option<&mut Babble>, is_playing: bool) -> bool {
        let whole: Vec<f32> = (0..1536).map(|_| if is_playing { self.reply.sample() } else { 0.0 }).collect();
        let played = std::array::from_fn(|n| whole[2 * n]);
        self.air.extend(whole.iter().step_by(3));
        let spoken: Vec<f32> = user.map_or_else(|| vec![0.0; 1536], |user| (0..1536).map(|_| user.sample()).collect());
        let heard = std::array::from_fn(|n| {
            let noise = 0.002 * (self.noise.draw() - 0.5);
            echo * self.air.pop_front().unwrap_or_default() + spoken[3 * n] + noise
        });
        self.detector.hear(&heard, &played);
        self.detector.is_echo()
    }

    /// How many of so many frames are an echo.
    fn frames(&mut self, count: usize, echo: f32, mut user: Option<&mut Babble>) -> usize {
        (0..count).filter(|_| self.frame(echo, user.as_deref_mut(), true)).count()
    }
}

#[test]
fn an_echo_is_known_whatever_its_delay_and_loudness() {
    for (delay, echo) in [(0, 1.0), (50, 0.1), (203, 0.1), (777, 0.03), (1_900, 0.3)] {
        let mut scene = Scene::new(delay);
        let first = scene.frames(delay / 32 + 60, echo, None);
        assert!(first > 0, "{delay} ms later, {echo}: nothing in 2 s");
        assert_eq!(scene.frames(300, echo, None), 300, "{delay} ms later, {echo}");
    }
}

#[test]
fn a_voice_beside_a_reply_is_no_echo() {
    for seed in 2..8 {
        let mut scene = Scene::new(200);
        let mut user = Babble::new(seed);
        assert_eq!(scene.frames(100, 0.0, None), 0);
        assert_eq!(scene.frames(300, 0.0, Some(&mut user)), 0, "seed {seed}");
    }
}

#[test]
fn a_voice_over_an_echo_is_soon_known_and_so_is_the_echo_after_it() {
    let mut scene = Scene::new(200);
    scene.frames(200, 0.1, None);
    let mut user = Babble::new(3);
    scene.frames(20, 0.1, Some(&mut user));
    let taken_for_echo = scene.frames(60, 0.1, Some(&mut user));
    assert!(taken_for_echo <= 6, "{taken_for_echo} of 60");
    // Whoever was so much louder is forgotten in 2 to 3 s.
    scene.frames(90, 0.1, None);
    assert_eq!(scene.frames(60, 0.1, None), 60);
}

#[test]
fn a_known_delay_makes_the_next_reply_an_echo_at_once_and_nobody_else() {
    let mut scene = Scene::new(200);
    scene.frames(200, 0.1, None);
    for _ in 0..200 {
        scene.frame(0.1, None, false);
    }
    assert!(!scene.detector.is_echo());
    let mut user = Babble::new(4);
    assert_eq!((0..100).filter(|_| scene.frame(0.1, Some(&mut user), false)).count(), 0, "nothing is played");
    for _ in 0..100 {
        scene.frame(0.1, None, false);
    }
    assert!(scene.frames(30, 0.1, None) > 15, "within half a second");
    assert_eq!(scene.frames(60, 0.1, None), 60);
    // With headphones on, a voice at the onset of a reply is a voice.
    for _ in 0..400 {
        scene.frame(0.0, None, false);
    }
    assert_eq!(scene.frames(100, 0.0, Some(&mut user)), 0);
}

#[test]
fn the_first_echo_may_be_one_before_it_surely_is() {
    let mut scene = Scene::new(64);
    let mut doubted = 0;
    while !scene.frame(0.1, None, true) {
        doubted += usize::from(scene.detector.may_be_echo());
        assert!(doubted < 60);
    }
    assert!(doubted > 5);
    assert!(!scene.detector.may_be_echo(), "it surely is");
}

#[test]
fn silence_and_hiss_are_nothing() {
    let mut detector = EchoDetector::default();
    let mut noise = Babble::new(5);
    for _ in 0..100 {
        let heard = std::array::from_fn(|_| 0.01 * (noise.draw() - 0.5));
        detector.hear(&heard, &[0.0; PLAYED_FRAME]);
        assert!(!detector.is_echo() && !detector.may_be_echo());
    }
    for _ in 0..100 {
        let played = std::array::from_fn(|_| 0.1 * (noise.draw() - 0.5));
        detector.hear(&[0.0; HEARD_FRAME], &played);
        assert!(!detector.is_echo() && !detector.may_be_echo());
    }
}

#[test]
fn a_voice_somewhat_louder_than_a_loud_echo_is_a_voice() {
    for seed in 3..8 {
        let mut scene = Scene::new(200);
        scene.frames(200, 0.5, None);
        let mut user = Babble::new(seed);
        scene.frames(30, 0.5, Some(&mut user));
        let taken_for_echo = scene.frames(100, 0.5, Some(&mut user));
        assert!(taken_for_echo <= 50, "seed {seed}: {taken_for_echo} of 100");
    }
}

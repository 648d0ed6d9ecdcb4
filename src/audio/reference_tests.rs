//! What is kept of a recording, where frames of speech are those that the test says.

use super::*;

/// A recording in frames: `(frames, amplitude)`, and its probabilities, which are certain where it is loud.
fn recorded(parts: &[(usize, f32)]) -> (Speech, Vec<f32>) {
    let frames = parts.iter().flat_map(|(frames, level)| std::iter::repeat_n(*level, *frames));
    let levels: Vec<f32> = frames.collect();
    let sample = |level: &f32| std::iter::repeat_n(*level, STEP).enumerate();
    let samples =
        levels.iter().flat_map(|level| sample(level).map(|(at, level)| if at % 2 == 0 { level } else { -level }));
    let probabilities = levels.iter().map(|level| if *level > 0.01 { 0.95 } else { 0.02 }).collect();
    (Speech::new(samples.collect()), probabilities)
}

fn prepared(parts: &[(usize, f32)]) -> Result<Reference, ReferenceError> {
    let (audio, probabilities) = recorded(parts);
    prepare(&audio, &probabilities)
}

fn frames(reference: &Reference) -> usize {
    reference.audio.as_slice().len() / STEP
}

fn peak(audio: &Speech) -> f32 {
    audio.as_slice().iter().fold(0.0, |peak: f32, sample| peak.max(sample.abs()))
}

#[test]
fn silence_around_goes_and_speech_gets_its_loudness() {
    for level in [0.02, 0.1, 0.6] {
        let reference = prepared(&[(60, 0.0), (150, level), (90, 0.0)]).unwrap();
        assert_eq!(frames(&reference), BEFORE + 150 + AFTER);
        assert!((peak(&reference.audio) - LOUDNESS).abs() < 1e-3, "{level}: {}", peak(&reference.audio));
        assert!(reference.speech > 0.9 && !reference.is_cut);
    }
    // A click is not made louder than full scale for the sake of a whisper.
    let (audio, probabilities) = recorded(&[(150, 0.02)]);
    let mut samples = audio.as_slice().to_vec();
    samples[9000] = 0.9;
    let reference = prepare(&Speech::new(samples), &probabilities).unwrap();
    assert!((peak(&reference.audio) - PEAK).abs() < 1e-3);
    // What is barely there comes up by 30 dB and no more.
    let faint: Vec<f32> = vec![0.95; 150];
    let (audio, _) = recorded(&[(150, 0.0031)]);
    assert!((peak(&prepare(&audio, &faint).unwrap().audio) - 0.0031 * MOST_GAIN).abs() < 1e-3);
}

#[test]
fn too_little_is_told_and_silence_too() {
    assert_eq!(prepared(&[(600, 0.0)]), Err(ReferenceError::Silent));
    assert_eq!(prepared(&[]), Err(ReferenceError::Silent));
    assert_eq!(prepared(&[(600, 0.001)]), Err(ReferenceError::Silent));
    let Err(ReferenceError::TooShort { seconds }) = prepared(&[(300, 0.0), (40, 0.3), (300, 0.0)]) else {
        panic!("it is too short");
    };
    assert!((1.2..1.8).contains(&seconds), "{seconds}");
    let told = ReferenceError::TooShort { seconds }.to_string();
    assert!(told.contains("where 3 are needed; record 3 to 30 s"), "{told}");
}

#[test]
fn what_is_too_long_is_cut_to_its_best_part_at_pauses() {
    // Ten sentences of about six seconds with pauses of half a second; the middle ones are without gaps.
    let mut parts = vec![(40, 0.0)];
    for sentence in 0..10 {
        let broken = !(3..=7).contains(&sentence);
        for _ in 0..6 {
            parts.extend(if broken { [(20, 0.3), (11, 0.0)] } else { [(28, 0.3), (3, 0.0)] });
        }
        parts.push((16, 0.0));
    }
    let reference = prepared(&parts).unwrap();
    let seconds = reference.audio.len().seconds();
    assert!(reference.is_cut && seconds <= 30.0 && seconds > 20.0, "{seconds}");
    assert!(reference.speech > 0.75, "{}", reference.speech);
    // It begins and ends in a pause: no word is cut.
    let quiet = |part: &[f32]| part.iter().all(|sample| sample.abs() < 1e-3);
    let samples = reference.audio.as_slice();
    assert!(quiet(&samples[..STEP]) && quiet(&samples[samples.len() - STEP..]));
    // Who never pauses is cut all the same.
    let endless = prepared(&[(2000, 0.3)]).unwrap();
    assert!(endless.is_cut && (29.0..=30.0).contains(&endless.audio.len().seconds()));
}

#[test]
fn what_the_detector_takes_for_noise_is_kept_by_its_loudness() {
    let (audio, _) = recorded(&[(60, 0.0), (150, 0.4), (60, 0.0)]);
    let reference = prepare(&audio, &vec![0.1; 270]).unwrap();
    assert_eq!((frames(&reference), reference.speech), (BEFORE + 150 + AFTER, 0.0));
}

#[test]
fn an_exact_thirty_seconds_stay_whole() {
    let whole = LONGEST.as_usize() / STEP;
    let reference = prepared(&[(whole, 0.3)]).unwrap();
    assert!(!reference.is_cut);
    assert_eq!(frames(&reference), whole);
    assert!(!prepared(&[(8, 0.0), (150, 0.3)]).unwrap().is_cut);
}

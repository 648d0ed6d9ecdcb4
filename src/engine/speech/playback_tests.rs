use super::*;

#[test]
fn who_runs_dry_first_goes_first() {
    let second = Duration::from_secs(1);
    let mut early = Playback::new(Duration::ZERO, Urgency::Later);
    early.extend(2 * second, second);
    assert_eq!(early.dry_at(), 3 * second);
    // Silence is worse than running dry soon, and somebody who is not urgent can bear some of it.
    assert_eq!(Playback::new(2 * second, Urgency::First).dry_at(), 2 * second);
    assert_eq!(Playback::new(2 * second, Urgency::Later).dry_at(), 3 * second);
    // Who had to wait listens on from where the sound came.
    early.extend(second, 10 * second);
    assert_eq!(early.dry_at(), 11 * second);
}

#[test]
fn silence_is_waited_for_until_it_ends() {
    let second = Duration::from_secs(1);
    let mut urgent = Playback::new(second, Urgency::First);
    assert!(urgent.is_waited_for() && !urgent.is_running_dry(9 * second));
    urgent.extend(second, 2 * second);
    assert!(!urgent.is_waited_for());
    assert!(!urgent.is_running_dry(2 * second) && urgent.is_running_dry((3 * second).saturating_sub(DRY / 2)));
    assert!(!Playback::new(second, Urgency::Later).is_waited_for());
}

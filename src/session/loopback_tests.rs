use super::*;

fn piece(value: f32) -> Speech {
    Speech::new(vec![value; 4])
}

/// In tenths.
fn taken<const N: usize>(playing: &mut Playing) -> [i32; N] {
    playing.take::<N>().map(|sample| (10.0 * sample).round() as i32)
}

#[tokio::test(start_paused = true)]
async fn the_ear_takes_what_was_sent_in_order_and_then_silence() {
    let (loopback, mut playing) = loopback();
    let until = Instant::now() + Duration::from_millis(200);
    assert_eq!(taken(&mut playing), [0; 2]);
    loopback.play(&piece(0.1), until);
    loopback.play(&Speech::default(), until);
    loopback.play(&piece(0.2), until);
    assert_eq!(taken(&mut playing), [1, 1, 1]);
    assert_eq!(taken(&mut playing), [1, 2, 2, 2, 2, 0]);
    loopback.play(&piece(0.3), until);
    loopback.stop();
    assert_eq!(taken(&mut playing), [0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_played_while_the_ear_was_deaf_is_gone() {
    let (loopback, mut playing) = loopback();
    playing.take::<1>();
    let begun = Instant::now();
    let at = |millis: u64| begun + Duration::from_millis(millis);
    loopback.play(&piece(0.1), at(100));
    // A frame that comes late is compared with what was played then.
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(taken(&mut playing), [1; 2]);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    loopback.play(&piece(0.2), at(2100));
    assert!(playing.hear().await);
    assert_eq!(playing.pieces.len(), 1, "nothing piles up");
    tokio::time::sleep(Duration::from_millis(90)).await;
    assert_eq!(taken(&mut playing), [2; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_microphone_that_gives_little_lets_nothing_pile_up() {
    let (loopback, mut playing) = loopback();
    for _ in 0..100 {
        playing.take::<1>();
        loopback.play(&piece(0.1), Instant::now() + Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(playing.hear().await && playing.pieces.len() <= 3);
    }
}

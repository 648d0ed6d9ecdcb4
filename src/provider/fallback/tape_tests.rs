use futures::FutureExt;

use super::*;
use crate::audio::Samples;

fn seconds(count: u64) -> Mic {
    Mic::silence(Samples::from_millis(count * 1000))
}

async fn length(audio: BoxStream<'static, Mic>) -> Duration {
    audio.fold(Duration::ZERO, |sum, block| async move { sum + block.duration() }).await
}

#[tokio::test(start_paused = true)]
async fn it_plays_from_the_beginning_again_and_ends_the_playback_before() {
    let (tape, _task) = Tape::record(stream::iter([seconds(1), seconds(2)]).chain(stream::pending()).boxed());
    let mut first = tape.play().unwrap();
    assert_eq!(first.next().await.unwrap().duration(), Duration::from_secs(1));
    let mut second = tape.play().unwrap();
    assert!(first.next().await.is_none(), "it was taken over");
    assert_eq!(second.next().await.unwrap().duration(), Duration::from_secs(1));
    assert_eq!(second.next().await.unwrap().duration(), Duration::from_secs(2));
    assert!(second.next().now_or_never().is_none(), "the microphone is still open");
    tape.forget();
    assert!(tape.play().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_long_is_let_go_and_heard_whole() {
    let blocks = 4 * 3600 / 10;
    let (tape, _task) = Tape::record(stream::iter((0..blocks).map(|_| seconds(10))).boxed());
    let audio = tape.play().unwrap();
    // The pump runs ahead no further than its bound.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(tape.reel().held <= KEPT + Duration::from_secs(10));
    assert_eq!(length(audio).await, Duration::from_hours(4));
    assert!(tape.reel().blocks.is_empty() && tape.play().is_none());
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_an_answer_begins_where_the_audio_ends() {
    let slow = stream::iter(0..3).then(|_| async {
        sleep(Duration::from_secs(5)).await;
        seconds(2)
    });
    let (tape, _task) = Tape::record(slow.boxed());
    let began = tokio::time::Instant::now();
    tape.overdue(Duration::from_secs(10)).await;
    assert_eq!(began.elapsed().as_secs(), 15 + 10 + 6);
}

use futures::FutureExt;
use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn who_waits_is_seated_in_order_and_told_where_it_stands() {
    let seats = Seats::new(2, 3);
    let (first, second) = (seats.try_seat().unwrap(), seats.try_seat().unwrap());
    assert!(seats.try_seat().is_none());
    let a = seats.queue_up().unwrap();
    let b = seats.queue_up().unwrap();
    let c = seats.queue_up().unwrap();
    assert!(seats.queue_up().is_none(), "the queue is full");
    assert_eq!([&a, &b, &c].map(|place| place.standing().position), [1, 2, 3]);
    assert_eq!(seats.last().position, 4);
    assert_eq!(b.standing().wait, FIRST_GUESS, "two places, two ends");

    sleep(4 * SECOND).await;
    drop(first);
    // Nothing but the first gets the place that is free now, neither another nor a newcomer.
    assert!(b.seat().now_or_never().is_none());
    assert!(seats.try_seat().is_none());
    let third = a.seat().now_or_never().unwrap();
    let mut moves = b.moves();
    drop(a);
    assert!(moves.changed().now_or_never().is_some());
    assert_eq!(b.standing().position, 1);
    assert_eq!(b.standing().wait, (FIRST_GUESS * 3 + 4 * SECOND) / 4 / 2, "what was measured counts");

    // Who leaves makes room behind it.
    drop(b);
    assert_eq!(c.standing().position, 1);
    assert!(c.seat().now_or_never().is_none());
    drop(second);
    let fourth = c.seat().now_or_never().unwrap();
    drop((c, third, fourth));
    assert!(seats.try_seat().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_told_follows_how_long_places_are_held() {
    let seats = Seats::new(4, 8);
    for _ in 0..40 {
        let seat = seats.try_seat().unwrap();
        sleep(20 * SECOND).await;
        drop(seat);
    }
    let wait = seats.last().wait;
    assert!(wait > 4 * SECOND && wait < 6 * SECOND, "a place in four of 20 s: {wait:?}");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_comes_finds_whoever_waits() {
    let seats = Seats::new(1, 8);
    let seat = seats.try_seat().unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..5)
        .map(|number| {
            let (place, order) = (seats.queue_up().unwrap(), Arc::clone(&order));
            tokio::spawn(async move {
                let seat = place.seat().await;
                drop(place);
                order.lock().unwrap().push(number);
                sleep(SECOND).await;
                drop(seat);
            })
        })
        .collect();
    sleep(SECOND).await;
    waiters[2].abort();
    drop(seat);
    seats.all_free().now_or_never();
    for (number, waiter) in waiters.into_iter().enumerate() {
        assert_eq!(waiter.await.is_ok(), number != 2);
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 3, 4]);
    seats.all_free().await;
}

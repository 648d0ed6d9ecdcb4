use tokio::time::advance;

use super::*;

fn call(breaker: &Arc<Breaker>, fails: bool) -> bool {
    let Some(mut pass) = breaker.enter() else { return false };
    if fails {
        pass.failed();
    } else {
        pass.succeeded();
    }
    true
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
    let breaker = Arc::new(Breaker::default());
    for _ in 0..4 {
        assert!(call(&breaker, true));
    }
    assert!(call(&breaker, false), "four are no five");
    for _ in 0..5 {
        assert!(call(&breaker, true));
    }
    assert_eq!(breaker.position(), Position::Open(REST));
    assert!(!call(&breaker, false));
    advance(REST.saturating_sub(Duration::from_millis(1))).await;
    assert!(!call(&breaker, false));
    advance(Duration::from_millis(1)).await;
    assert_eq!(breaker.position(), Position::HalfOpen);
    let mut probe = breaker.enter().unwrap();
    assert!(breaker.enter().is_none(), "one question at a time");
    probe.succeeded();
    assert_eq!(breaker.position(), Position::Closed);
    assert!(call(&breaker, true) && breaker.position() == Position::Closed, "the past is forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_failed_probe_opens_it_again_and_a_dropped_one_decides_nothing() {
    let breaker = Arc::new(Breaker::default());
    for _ in 0..5 {
        call(&breaker, true);
    }
    advance(REST).await;
    drop(breaker.enter().unwrap());
    assert!(call(&breaker, true), "the dropped probe made room");
    assert_eq!(breaker.position(), Position::Open(REST));
    advance(REST).await;
    assert!(call(&breaker, false));
    assert_eq!(breaker.position(), Position::Closed);
}

#[tokio::test(start_paused = true)]
async fn half_of_twenty_calls_open_it() {
    let breaker = Arc::new(Breaker::default());
    for round in 0..19 {
        assert!(call(&breaker, round % 2 == 0), "{round}");
    }
    assert_eq!(breaker.position(), Position::Closed, "nineteen are too few to judge by");
    assert!(call(&breaker, false));
    assert!(matches!(breaker.position(), Position::Open(_)), "ten of twenty failed");
    let steady = Arc::new(Breaker::default());
    for round in 0..200 {
        assert!(call(&steady, round % 3 == 0), "a third may fail for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_late_changes_nothing() {
    let breaker = Arc::new(Breaker::default());
    let mut late = breaker.enter().unwrap();
    for _ in 0..5 {
        call(&breaker, true);
    }
    late.succeeded();
    assert_eq!(breaker.position(), Position::Open(REST));
}

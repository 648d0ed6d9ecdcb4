use tokio::time::{advance, pause};

use super::*;
use crate::store::Scope;

fn of(owner: &str) -> Identity {
    Identity { owner: owner.into(), key: Some(owner.into()), scope: Scope::User, proof: None }
}

#[tokio::test]
async fn a_ticket_is_good_once_and_for_half_a_minute() {
    pause();
    let tickets = Tickets::default();
    let ticket = tickets.issue(&of("a")).unwrap();
    assert!(tickets.take("another").is_none());
    assert_eq!(tickets.take(&ticket), Some(of("a")));
    assert!(tickets.take(&ticket).is_none());
    let late = tickets.issue(&of("a")).unwrap();
    advance(Duration::from_secs(30)).await;
    assert!(tickets.take(&late).is_none());
    let unused = tickets.issue(&of("a")).unwrap();
    advance(Duration::from_secs(30)).await;
    tickets.sweep();
    assert!(tickets.0.lock().unwrap().is_empty());
    assert!(tickets.take(&unused).is_none());
}

#[tokio::test]
async fn nobody_can_hoard_them() {
    pause();
    let tickets = Tickets::default();
    for _ in 0..MOST_OF_ONE {
        tickets.issue(&of("a")).unwrap();
    }
    assert_eq!(tickets.issue(&of("a")).unwrap_err().code, "rate_limited");
    for number in 0..MOST - MOST_OF_ONE {
        tickets.issue(&of(&format!("b{}", number / MOST_OF_ONE))).unwrap();
    }
    assert_eq!(tickets.issue(&of("c")).unwrap_err().code, "rate_limited");
    advance(LASTS).await;
    tickets.issue(&of("a")).unwrap();
}

#[test]
fn a_ticket_is_found_in_a_query() {
    assert_eq!(of_query(Some("conversation_id=x&ticket=abc&protocol=json")), Some("abc"));
    assert_eq!(of_query(Some("ticket=")), Some(""));
    for without in [None, Some(""), Some("myticket=abc"), Some("ticket")] {
        assert_eq!(of_query(without), None);
    }
}

use super::*;
use crate::api::access::Proof;
use crate::store::Scope;

fn of_key(key: &str) -> Identity {
    let proof = Some(Proof { key: key.into(), login: None });
    Identity { owner: "local".into(), key: None, scope: Scope::User, proof }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_key_has_its_own_bucket_and_learns_when_to_come_back() {
    let rates = Rates::new(60);
    for _ in 0..20 {
        rates.spend_key(&of_key("a")).unwrap();
    }
    let problem = rates.spend_key(&of_key("a")).unwrap_err();
    assert_eq!((problem.status, problem.code), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    let response = axum::response::IntoResponse::into_response(problem);
    assert_eq!(response.headers()["retry-after"], "1");
    rates.spend_key(&of_key("b")).unwrap();
    let nobody = Identity { proof: None, ..of_key("a") };
    for _ in 0..1000 {
        rates.spend_key(&nobody).unwrap();
    }
}

#[test]
fn addresses_elsewhere_are_counted_by_network_and_this_machine_is_not() {
    let rates = Rates::new(6000);
    for number in 0..200 {
        rates.spend_address(Some(address(&format!("2001:db8:0:1::{number:x}")))).unwrap();
        rates.spend_address(Some(address("192.0.2.1"))).unwrap();
    }
    rates.spend_address(Some(address("2001:db8:0:1:ffff::1"))).unwrap_err();
    rates.spend_address(Some(address("192.0.2.1"))).unwrap_err();
    rates.spend_address(Some(address("192.0.2.2"))).unwrap();
    rates.spend_address(Some(address("2001:db8:0:2::1"))).unwrap();
    for _ in 0..1000 {
        rates.spend_address(Some(address("127.0.0.1"))).unwrap();
        rates.spend_address(None).unwrap();
    }
    let free = Rates::new(0);
    for _ in 0..1000 {
        free.spend_address(Some(address("192.0.2.1"))).unwrap();
        free.spend_key(&of_key("a")).unwrap();
    }
}

#[test]
fn small_limits_are_kept_and_guesses_are_few_from_everywhere() {
    let rates = Rates::new(3);
    let taken = (0..10).filter(|_| rates.spend_key(&of_key("a")).is_ok()).count();
    assert_eq!(taken, 3);
    for from in ["127.0.0.1", "192.0.2.1"] {
        let taken = (0..100).filter(|_| rates.spend_login(Some(address(from))).is_ok()).count();
        assert_eq!(taken, 10, "{from}");
    }
}

#[test]
fn what_could_begin_anew_is_forgotten() {
    let rate: Rate<u32> = Rate::new(Quota::per_second(NonZeroU32::MAX));
    for key in 0..1000 {
        rate.spend(&key).unwrap();
    }
    assert_eq!(rate.0.len(), 1000);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    rate.sweep();
    assert_eq!(rate.0.len(), 0);
}

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Attendance, Socket};
use crate::api::ws::call::Client;

const FIRST: Client = Client(1);
const SECOND: Client = Client(2);

fn both() -> Attendance {
    let socket = |visit| Socket { visit, replaced: oneshot::channel().0, _keyed: None };
    Attendance { sockets: [(FIRST, socket(1)), (SECOND, socket(2))].into(), ..Attendance::default() }
}

#[test]
fn whoever_lost_the_microphone_has_it_again_when_the_other_leaves() {
    let mut attendance = both();
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    assert_eq!(attendance.speak(FIRST, at(0)), (true, None));
    assert_eq!(attendance.speak(SECOND, at(20)), (true, Some(FIRST)));
    for frame in 2..100 {
        assert_eq!(attendance.speak(FIRST, at(frame * 20)), (false, None), "its microphone runs on");
    }
    attendance.leave(SECOND, 2);
    for frame in 100..200 {
        assert_eq!(attendance.speak(FIRST, at(frame * 20)), (true, None));
    }
}

#[test]
fn whoever_lost_the_microphone_has_it_again_after_a_pause() {
    let mut attendance = both();
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    attendance.speak(FIRST, at(0));
    attendance.speak(SECOND, at(20));
    assert_eq!(attendance.speak(FIRST, at(500)), (false, None));
    assert_eq!(attendance.speak(FIRST, at(1_499)), (false, None));
    assert_eq!(attendance.speak(FIRST, at(2_499)), (true, Some(SECOND)));
}

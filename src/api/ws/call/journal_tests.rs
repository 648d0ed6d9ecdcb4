use std::sync::Arc;

use tokio::sync::mpsc;

use super::*;
use crate::api::wire::Notice;
use crate::api::ws::call::Log;
use crate::session::event::Started;
use crate::session::settings::Settings;

/// One that has told one thing.
fn call() -> Arc<Call> {
    let scene = Started {
        session_id: "s".to_owned(),
        conversation_id: "c".to_owned(),
        awaits_title: false,
        characters: Vec::new(),
        settings: Settings::default(),
    };
    let call = Call::new("local".into(), scene, "secret".to_owned(), Log::new(8), mpsc::channel(1).0);
    call.log.announce(Notice::ServerDraining);
    call
}

#[tokio::test(start_paused = true)]
async fn the_last_page_is_written_again_after_a_failure_and_then_nothing_is_waited_for() {
    let (call, hall, mut journal) = (call(), Hall::default(), Journal::after(0));
    let store = async {
        let mut pages = Vec::new();
        for is_written in [false, true] {
            hall.pages.come.notified().await;
            let (page, outcome) = hall.pages.waiting.lock().unwrap().pop().unwrap();
            outcome.send(is_written).unwrap();
            pages.push(page);
        }
        pages
    };
    let begun = Instant::now();
    let ((), pages) = tokio::join!(journal.finish(&call, &hall), store);
    let took = begun.elapsed();
    assert!((RETRY..RETRY + Duration::from_millis(10)).contains(&took), "{took:?}");
    assert_eq!((pages[0].first_seq, pages[0].last_seq, &pages[0]), (1, 1, &pages[1]));
    assert!(hall.pages.waiting.lock().unwrap().is_empty(), "all of it is written");
}

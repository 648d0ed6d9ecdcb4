use std::sync::Arc;
use std::time::Instant;

use candle_core::Device;
use tokio::sync::Semaphore;

use super::super::model::tests::tiny;
use super::super::reply;
use super::*;
use crate::provider::{ChatMessage, Delta, Role, Sampling};

type Replies = mpsc::Receiver<Result<Delta, ProviderError>>;

/// The thread's desk without the thread, on a small model with random weights.
struct Office {
    desk: Desk,
    commands: mpsc::Sender<Command>,
    inbox: mpsc::Receiver<Command>,
    permits: Arc<Semaphore>,
}

const PERMITS: usize = 16;

impl Office {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        std::fs::write(&path, tiny("llama")).unwrap();
        let (commands, inbox) = mpsc::channel(32);
        let desk = Desk::new(Model::load("tiny", &path, &Device::Cpu).unwrap());
        Self { desk, commands, inbox, permits: Arc::new(Semaphore::new(PERMITS)) }
    }

    fn ask(&self, text: &str) -> Replies {
        let sampling = Sampling { temperature: 0.0, max_tokens: 100, ..Sampling::default() };
        let messages = vec![ChatMessage::new(Role::User, text)];
        let request = Box::new(ChatRequest { messages, sampling, ..ChatRequest::default() });
        let (out, replies) = reply::channel(100);
        let permit = Arc::clone(&self.permits).try_acquire_owned().unwrap();
        let order = ReplyOrder { request, out, asked: Instant::now(), permit };
        assert!(self.commands.try_send(Command::Reply(order)).is_ok());
        replies
    }

    fn turn(&mut self) {
        assert!(self.desk.take_in(&mut self.inbox));
        self.desk.step();
    }

    /// Questions whose replies take more than 40 steps.
    fn long_questions(&mut self, count: usize) -> Vec<String> {
        let mut long = Vec::new();
        for question in (0..100).map(|number| format!("question {number}")) {
            let _replies = self.ask(&question);
            for _ in 0..40 {
                if self.under_way() > 0 {
                    self.turn();
                }
            }
            if self.under_way() > 0 {
                long.push(question);
            }
            self.desk.batch.evict(|_| true);
            if long.len() == count {
                return long;
            }
        }
        panic!("of a hundred replies {} were long", long.len())
    }

    fn under_way(&self) -> usize {
        PERMITS - self.permits.available_permits()
    }
}

/// Tokens told of so far, and the error if one came.
fn told(replies: &mut Replies) -> (usize, Option<ProviderError>) {
    let mut texts = 0;
    while let Ok(item) = replies.try_recv() {
        match item {
            Ok(Delta::Text(_)) => texts += 1,
            Ok(_) => {}
            Err(error) => return (texts, Some(error)),
        }
    }
    (texts, None)
}

#[test]
fn who_leaves_frees_the_slot_before_the_next_step() {
    let mut office = Office::new();
    let slots = office.desk.model.cache.slots();
    let mut replies: Vec<_> = (0..slots).map(|number| office.ask(&format!("question {number}"))).collect();
    let waiting = office.ask("one too many");
    office.turn();
    assert!(office.desk.batch.is_full() && office.desk.waiting.len() == 1);
    // One that writes or is about to, one that still reads, and the one that waits.
    drop((replies.remove(0), replies.pop(), waiting));
    let next = office.ask("the next");
    office.turn();
    assert!(office.desk.waiting.is_empty() && office.under_way() < slots);
    drop((replies, next));
    let last = office.ask("the last");
    office.turn();
    assert_eq!(office.under_way(), 1);
    drop(last);
}

#[test]
fn replies_go_on_while_a_long_prompt_is_read() {
    let mut office = Office::new();
    office.desk.model.chunk = 8;
    let mut writing = office.ask("hello");
    for _ in 0..12 {
        office.turn();
    }
    told(&mut writing);
    let mut reading = office.ask(&"a long story ".repeat(10));
    let mut steps = 0;
    while told(&mut reading).0 == 0 {
        office.turn();
        steps += 1;
    }
    let (texts, error) = told(&mut writing);
    // Bytes that are no whole characters are told later.
    assert!(error.is_none() && steps > 10 && texts * 3 > steps, "{texts} texts in {steps} steps");
}

#[test]
fn one_that_fails_leaves_the_others_alone() {
    let questions = Office::new().long_questions(3);
    let mut office = Office::new();
    let mut replies: Vec<_> = questions.iter().map(|question| office.ask(question)).collect();
    for _ in 0..4 {
        office.turn();
    }
    // Memory for the first slot only: what the others have read is not there, and every call with them fails.
    office.desk.model.cache = office.desk.model.decoder.cache(1, 256).unwrap();
    let ticket = first(&mut office);
    let held = office.desk.batch.tokens(ticket).to_vec();
    let span = Span { slot: 0, start: 0, tokens: &held, wants: Wants::Nothing };
    office.desk.model.decoder.forward(&mut office.desk.model.cache, &[span]).unwrap();
    let before = told(&mut replies[0]).0;
    for _ in 0..20 {
        if office.under_way() > 0 {
            office.turn();
        }
    }
    let after = told(&mut replies[0]);
    assert!(after.1.is_none() && after.0 > 0, "{before} {after:?}");
    for failed in &mut replies[1..] {
        let (texts, end) = told(failed);
        assert!(matches!(end, Some(ProviderError::Failed { .. })), "{texts} texts, {end:?}");
    }
    assert!(office.under_way() <= 1);
}

/// The turn of the sequence in the first slot.
fn first(office: &mut Office) -> Ticket {
    let turns = office.desk.batch.choose(1).turns;
    turns.iter().map(|turn| turn.ticket).find(|ticket| ticket.slot == 0).unwrap()
}

#[test]
fn a_panic_ends_one_reply() {
    let error = guarded::<()>("tiny", || panic!("on purpose")).unwrap_err();
    assert!(matches!(error, ProviderError::Failed { what } if what == "tiny"));
}

#[test]
fn what_is_prepared_gives_way_and_is_found_again() {
    let mut office = Office::new();
    office.desk.model.chunk = 16;
    let text = "a long story ".repeat(10);
    let request = ChatRequest { messages: vec![ChatMessage::new(Role::User, text.clone())], ..ChatRequest::default() };
    office.desk.prepare(&request);
    for _ in 0..4 {
        office.turn();
    }
    let mut reply = office.ask(&text);
    office.turn();
    assert!(office.desk.prepared.is_empty());
    while told(&mut reply).0 == 0 {
        office.turn();
    }
    let ticket = first(&mut office);
    assert_eq!(office.desk.batch.cached(ticket), 4 * 16);
}

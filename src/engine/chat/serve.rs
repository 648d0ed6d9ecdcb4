//! The model thread's loop: takes requests in, lets all sequences advance by a step together, gives tokens out.
//!
//! A step is one call of the model: one token of every reply, and beside them a chunk of the prompts that are to be
//! read. Whoever is no longer listened to is dropped before the next step. Prompts that are prepared ahead are read only
//! while nobody waits for a reply.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::model::Model;
use super::prompt::Language;
use super::reply::{Reply, ReplyOrder, Written};
use crate::engine::batch::{Batch, Copying, Ticket, Turn};
use crate::engine::failure;
use crate::engine::precedence::Precedence;
use crate::nn::decoder::{Span, Wants};
use crate::provider::{ChatRequest, ProviderError};

/// Prompts to prepare that wait; the oldest is forgotten.
const MOST_PREPARED: usize = 4;

pub(super) enum Command {
    Reply(ReplyOrder),
    /// The permit goes as soon as the thread has looked at it.
    Prepare(Box<ChatRequest>, OwnedSemaphorePermit),
}

/// Runs until nobody can command any more.
pub(super) fn serve(model: Model, mut inbox: mpsc::Receiver<Command>, precedence: &Precedence) {
    let mut desk = Desk::new(model);
    while desk.take_in(&mut inbox) {
        precedence.give_way();
        desk.step();
    }
}

/// What a slot works on.
enum Job {
    Reply(Box<Reply>),
    /// Only read: its slot is the first to go.
    Prepared,
}

struct Desk {
    model: Model,
    batch: Batch<Job>,
    /// First come, first served. Their permits bound them.
    waiting: VecDeque<ReplyOrder>,
    prepared: VecDeque<Vec<u32>>,
    /// Logits while a token is chosen.
    row: Vec<f32>,
}

impl Desk {
    fn new(model: Model) -> Self {
        let batch = Batch::new(model.cache.slots());
        Self { model, batch, waiting: VecDeque::new(), prepared: VecDeque::new(), row: Vec::new() }
    }

    /// Takes in what has come, and waits where there is nothing to do. False: the engine is gone.
    fn take_in(&mut self, inbox: &mut mpsc::Receiver<Command>) -> bool {
        loop {
            // Whoever has gone gives up the slot, or the place in the queue.
            self.batch.evict(|job| matches!(job, Job::Reply(reply) if reply.is_abandoned()));
            self.waiting.retain(|order| !order.out.is_closed());
            self.admit();
            let idle = self.batch.is_empty() && self.prepared.is_empty();
            match if idle { inbox.blocking_recv() } else { inbox.try_recv().ok() } {
                Some(Command::Reply(order)) => self.waiting.push_back(order),
                Some(Command::Prepare(request, permit)) => {
                    drop(permit);
                    self.prepare(&request);
                }
                None => return !idle,
            }
        }
    }

    fn admit(&mut self) {
        if !self.waiting.is_empty() {
            // What was prepared so far may be the beginning of what comes.
            self.batch.evict(|job| matches!(job, Job::Prepared));
            self.prepared.clear();
        }
        while !self.batch.is_full() {
            let Some(order) = self.waiting.pop_front() else { break };
            let listener = order.out.clone();
            let name = &self.model.name;
            match guarded(name, || Ok(Reply::begin(order, &self.model.language))) {
                Ok(Some((reply, tokens))) => drop(self.batch.admit(tokens, Job::Reply(Box::new(reply)))),
                Ok(None) => {}
                Err(error) => drop(listener.try_send(Err(error))),
            }
        }
    }

    fn prepare(&mut self, request: &ChatRequest) {
        let name = &self.model.name;
        match guarded(name, || self.model.language.beginning(request)) {
            Ok(tokens) if tokens.is_empty() => {}
            Ok(tokens) => {
                if self.prepared.len() == MOST_PREPARED {
                    self.prepared.pop_front();
                }
                self.prepared.push_back(tokens);
            }
            Err(error) => tracing::debug!(%error, "a prompt cannot be prepared"),
        }
    }

    /// All sequences advance by one call of the model.
    fn step(&mut self) {
        if self.batch.is_empty()
            && let Some(tokens) = self.prepared.pop_front()
            && !self.batch.holds(&tokens)
        {
            drop(self.batch.admit(tokens, Job::Prepared));
        }
        let plan = self.batch.choose(self.model.chunk);
        if !self.copy(&plan.copies) || plan.turns.is_empty() {
            return;
        }
        let Err(error) = self.advance(&plan.turns) else { return };
        if let [turn] = plan.turns[..] {
            self.fail(turn.ticket, error);
            return;
        }
        // Whose fault it was shows when each goes alone.
        for turn in plan.turns {
            if let Err(error) = self.advance(&[turn]) {
                self.fail(turn.ticket, error);
            }
        }
    }

    /// False: the slots from the first failure on have lost what they were to get, their replies have failed, and the
    /// plan is void.
    fn copy(&mut self, copies: &[Copying]) -> bool {
        let Model { cache, name, .. } = &mut self.model;
        let done = copies.iter().position(|copying| {
            let copied = cache.copy(copying.from, copying.to, copying.positions);
            copied
                .inspect_err(|error| tracing::warn!(model = name.as_str(), %error, "a slot cannot be copied"))
                .is_err()
        });
        let Some(done) = done else { return true };
        for copying in &copies[done..] {
            if let Some(Job::Reply(reply)) = self.batch.lose(copying.to) {
                reply.fail(ProviderError::Failed { what: self.model.name.clone() });
            }
        }
        false
    }

    /// One call of the model, and a token for each sequence of which it has read all.
    fn advance(&mut self, turns: &[Turn]) -> Result<(), ProviderError> {
        let Model { name, language, decoder, cache, .. } = &mut self.model;
        let (name, batch) = (name.as_str(), &self.batch);
        let span = |turn: &Turn| Span {
            slot: turn.ticket.slot,
            start: turn.start,
            tokens: &batch.tokens(turn.ticket)[turn.start..turn.end],
            wants: if turn.last { Wants::Last } else { Wants::Nothing },
        };
        let spans: Vec<Span<'_>> = turns.iter().map(span).collect();
        let logits = guarded(name, move || decoder.forward(cache, &spans).map_err(|error| failure(name, &error)))?;
        let mut rows = (0..logits.rows()).map(|row| logits.row(row));
        for turn in turns {
            self.batch.read(*turn);
            let Some(row) = turn.last.then(|| rows.next()).flatten() else { continue };
            // Rows that pad the vocabulary stand for no token.
            self.row.clear();
            self.row.extend_from_slice(&row[..language.tokenizer.len()]);
            give_out(name, language, &mut self.batch, turn.ticket, &mut self.row);
        }
        Ok(())
    }

    fn fail(&mut self, ticket: Ticket, error: ProviderError) {
        if let Some(Job::Reply(reply)) = self.batch.finish(ticket) {
            reply.fail(error);
        }
    }
}

/// Chooses the sequence's next token and tells its listener.
fn give_out(name: &str, language: &Language, batch: &mut Batch<Job>, ticket: Ticket, logits: &mut [f32]) {
    let Some((job, so_far)) = batch.work(ticket) else { return };
    let Job::Reply(reply) = job else {
        batch.finish(ticket);
        return;
    };
    let outcome = match guarded(name, || reply.write(name, language, logits, so_far)) {
        Ok(Written::Nothing) => return batch.again(ticket),
        Ok(Written::Token(token)) => return batch.write(ticket, token),
        Ok(Written::End(reason)) => Ok((reason, batch.cached(ticket))),
        Err(error) => Err(error),
    };
    if let Some(Job::Reply(reply)) = batch.finish(ticket) {
        match outcome {
            Ok((reason, cached)) => reply.finish(reason, cached),
            Err(error) => reply.fail(error),
        }
    }
}

/// A panic in `work` is the end of one reply, not of the thread.
fn guarded<T>(model: &str, work: impl FnOnce() -> Result<T, ProviderError>) -> Result<T, ProviderError> {
    let outcome = catch_unwind(AssertUnwindSafe(work));
    outcome.unwrap_or_else(|_| Err(ProviderError::Failed { what: model.to_owned() }))
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;

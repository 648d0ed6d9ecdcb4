//! One request from its reservation to its entry in the books.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::books::Link;
use super::{Entry, Outcome, Reservation, Usd, Used};
use crate::provider::{Caller, Flow, ProviderError, task};

/// Items between a provider and its listener: enough that a burst does not wait, and no more than a breath of text.
const ITEMS: usize = 32;

/// Adds up what a stream's items say that the request took.
pub(super) trait Tally<T>: Send + Sync + 'static {
    /// Whether the item is the terminal one.
    fn see(&mut self, item: &T) -> bool;
    /// What was used, and what the provider says that it cost. Of a request without an end no less than it can have used;
    /// `most` is what was set aside for it.
    fn used(&self, most: &Used) -> (Used, Option<Usd>);
}

/// Runs a request under the books. A free one starts at once; one that costs starts when its money is set aside.
pub(super) fn watch<T: Send + 'static>(
    link: &Arc<Link>,
    caller: Caller,
    most: Used,
    tally: impl Tally<T>,
    start: impl FnOnce() -> Flow<T> + Send + 'static,
) -> Flow<T> {
    let (items, listener) = mpsc::channel(ITEMS);
    let request = Request { link: Arc::clone(link), caller, most, called: Instant::now(), first_item: None, tally };
    if link.price.is_none() {
        let flow = start();
        tokio::spawn(task::named("counted request", request.run(None, flow, items)));
    } else {
        // It outlives its listener, to settle.
        tokio::spawn(task::named("paid request", async move {
            match request.reserve().await {
                Ok(reservation) => request.run(Some(reservation), start(), items).await,
                // Without a listener nobody is told.
                Err(error) => drop(items.send(Err(error)).await),
            }
        }));
    }
    stream::unfold(listener, |mut listener| async { Some((listener.recv().await?, listener)) }).boxed()
}

struct Request<C> {
    link: Arc<Link>,
    caller: Caller,
    most: Used,
    called: Instant,
    first_item: Option<Duration>,
    tally: C,
}

impl<C> Request<C> {
    async fn reserve(&self) -> Result<Reservation, ProviderError> {
        let most_usd = self.link.price.map_or(Usd::ZERO, |price| price.of(&self.most));
        let entry = self.entry(Used::default(), Usd::ZERO, Outcome::Completed);
        self.link.books.reserve(most_usd, entry).await
    }

    fn entry(&self, used: Used, cost: Usd, outcome: Outcome) -> Entry {
        Entry {
            capability: self.link.capability,
            model: Arc::clone(&self.link.name),
            remote: self.link.price.is_some(),
            caller: self.caller.clone(),
            used,
            cost,
            estimated: false,
            outcome,
        }
    }

    /// Passes the items on and enters the request when it has ended.
    async fn run<T>(
        mut self,
        reservation: Option<Reservation>,
        mut flow: Flow<T>,
        items: mpsc::Sender<Result<T, ProviderError>>,
    ) where
        C: Tally<T>,
    {
        let outcome = loop {
            let item = tokio::select! {
                item = flow.next() => item,
                () = items.closed() => break Outcome::Cancelled,
            };
            let Some(item) = item else { break Outcome::Failed };
            let (ends, failed) = match &item {
                Ok(item) => {
                    self.first_item.get_or_insert_with(|| self.called.elapsed());
                    (self.tally.see(item), false)
                }
                Err(_) => (true, true),
            };
            if items.send(item).await.is_err() && !ends {
                break Outcome::Cancelled;
            }
            match (ends, failed) {
                (true, true) => break Outcome::Failed,
                (true, false) => break Outcome::Completed,
                (false, _) => {}
            }
        };
        drop(flow);
        let entry = self.finished(outcome);
        self.link.books.settle(reservation, entry).await;
    }

    fn finished<T>(&self, outcome: Outcome) -> Entry
    where
        C: Tally<T>,
    {
        let (mut used, said) = self.tally.used(&self.most);
        used.first_item = self.first_item;
        used.total = self.called.elapsed();
        // Whoever failed before its first item did nothing that it could charge for.
        let free = outcome == Outcome::Failed && self.first_item.is_none();
        let computed = || self.link.price.map_or(Usd::ZERO, |price| price.of(&used));
        let cost = if free { Usd::ZERO } else { said.unwrap_or_else(computed) };
        let estimated = outcome != Outcome::Completed && !free && self.link.price.is_some();
        Entry { estimated, ..self.entry(used, cost, outcome) }
    }
}

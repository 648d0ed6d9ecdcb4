//! Places for conversations, and the queue of those who wait for one.
//!
//! Who finds no place waits in order of arrival, up to a bound, and can ask where it stands and how long that will
//! take, going by how long places were held lately. Leaving is dropping, for a place as for a place in the queue.

use std::collections::VecDeque;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

/// How long a conversation is taken to last before one has ended here.
const FIRST_GUESS: Duration = Duration::from_mins(3);

/// All of them.
pub(in crate::api) struct Seats {
    places: Arc<Semaphore>,
    /// How many places there are.
    all: usize,
    /// How many may wait.
    longest: usize,
    queue: Mutex<Queue>,
    /// Says that somebody left the queue.
    moved: watch::Sender<()>,
}

struct Queue {
    /// The numbers of those who wait, in order.
    waiting: VecDeque<u64>,
    arrivals: u64,
    /// How long a seat was held lately, on average.
    held: Duration,
}

/// A place, until it is dropped.
pub(in crate::api) struct Seat {
    _place: OwnedSemaphorePermit,
    seats: Arc<Seats>,
    since: Instant,
}

/// A place in the queue, until it is dropped.
pub(in crate::api) struct Place {
    number: u64,
    seats: Arc<Seats>,
}

/// Where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) struct Standing {
    /// From 1, who is next.
    pub(in crate::api) position: usize,
    /// How long it will take, as far as one can tell.
    pub(in crate::api) wait: Duration,
}

impl Seats {
    pub(in crate::api) fn new(all: usize, longest: usize) -> Arc<Self> {
        let queue = Queue { waiting: VecDeque::new(), arrivals: 0, held: FIRST_GUESS };
        let places = Arc::new(Semaphore::new(all));
        Arc::new(Self { places, all, longest, queue: Mutex::new(queue), moved: watch::Sender::new(()) })
    }

    /// A place for a moment, which says nothing of how long conversations last. None: there is none free, or others
    /// wait for it.
    pub(in crate::api) fn try_place(&self) -> Option<OwnedSemaphorePermit> {
        if !self.queue().waiting.is_empty() {
            return None;
        }
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// The same for a conversation.
    pub(in crate::api) fn try_seat(self: &Arc<Self>) -> Option<Seat> {
        self.try_place().map(|place| self.seat(place))
    }

    /// The end of the queue. None: it is full.
    pub(in crate::api) fn queue_up(self: &Arc<Self>) -> Option<Place> {
        let mut queue = self.queue();
        if queue.waiting.len() >= self.longest {
            return None;
        }
        let number = queue.arrivals;
        queue.arrivals += 1;
        queue.waiting.push_back(number);
        drop(queue);
        Some(Place { number, seats: Arc::clone(self) })
    }

    /// Where one more would stand.
    pub(in crate::api) fn last(&self) -> Standing {
        let queue = self.queue();
        self.standing(&queue, queue.waiting.len())
    }

    /// Waits until nobody has a place.
    pub(in crate::api) async fn all_free(&self) {
        // It is never closed.
        let _ = self.places.acquire_many(u32::try_from(self.all).unwrap_or(u32::MAX)).await;
    }

    fn standing(&self, queue: &Queue, ahead: usize) -> Standing {
        let position = ahead + 1;
        // Of so many that each last as long, one ends so often.
        let wait =
            queue.held * u32::try_from(position).unwrap_or(u32::MAX) / u32::try_from(self.all.max(1)).unwrap_or(1);
        Standing { position, wait }
    }

    fn seat(self: &Arc<Self>, place: OwnedSemaphorePermit) -> Seat {
        Seat { _place: place, seats: Arc::clone(self), since: Instant::now() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is locked.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut queue = self.seats.queue();
        queue.held = (queue.held * 3 + self.since.elapsed()) / 4;
    }
}

impl Place {
    pub(in crate::api) fn standing(&self) -> Standing {
        let queue = self.seats.queue();
        let ahead = queue.waiting.iter().position(|waiting| *waiting == self.number).unwrap_or_default();
        self.seats.standing(&queue, ahead)
    }

    /// Says when somebody has left the queue.
    pub(in crate::api) fn moves(&self) -> watch::Receiver<()> {
        self.seats.moved.subscribe()
    }

    /// Waits for a place, which only the first in the queue gets. Dropping the future loses nothing but the place that
    /// comes at that moment to the next.
    pub(in crate::api) async fn seat(&self) -> Seat {
        let mut moves = self.moves();
        while self.standing().position > 1 {
            // Its sender lives as long as this.
            let _ = moves.changed().await;
        }
        match Arc::clone(&self.seats.places).acquire_owned().await {
            Ok(place) => self.seats.seat(place),
            // It is never closed; were it, nobody would get a place.
            Err(_) => pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.seats.queue().waiting.retain(|waiting| *waiting != self.number);
        self.seats.moved.send_replace(());
    }
}

#[cfg(test)]
#[path = "seats_tests.rs"]
mod tests;

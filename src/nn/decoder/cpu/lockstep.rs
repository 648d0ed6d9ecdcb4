//! Threads that walk one job together, step by step.
//!
//! A forward is some three hundred short steps, each of which needs all of the step before. Entering a thread pool for
//! each would cost more than many of them take. So the threads enter once, share each step's items between them as
//! they come, and meet at a barrier that spins. Between jobs they sleep.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the barrier's loop before a thread lets others run: some 30 µs, as long as an ordinary wait. On a busy
/// machine the thread that is waited for may need this very core.
const SPINS: usize = 2_000;

type Job = dyn Fn(&Worker<'_>) + Sync;

pub(super) struct Lockstep {
    state: Arc<State>,
    handles: Vec<JoinHandle<()>>,
}

struct State {
    threads: usize,
    orders: Mutex<Orders>,
    wake: Condvar,
    /// Threads at the barrier, and how often it has opened.
    arrived: AtomicUsize,
    opened: AtomicUsize,
    /// The first item of the step that nobody has taken.
    next: AtomicUsize,
    /// Helpers that still run the job.
    running: AtomicUsize,
    broken: AtomicBool,
}

#[derive(Default)]
struct Orders {
    number: usize,
    job: Option<Pointer>,
    stop: bool,
    panic: Option<Box<dyn Any + Send>>,
}

/// The job of a caller that waits until nobody runs it.
#[derive(Clone, Copy)]
struct Pointer(*const Job);

#[expect(unsafe_code, reason = "a borrowed job goes to threads that outlive the borrow")]
// SAFETY: the job is `Sync`, and `Lockstep::run` does not return before every thread is done with it.
unsafe impl Send for Pointer {}

/// One thread's part in a job.
pub(super) struct Worker<'a> {
    /// From 0 on; 0 is the caller's own thread.
    pub(super) index: usize,
    state: &'a State,
}

impl Lockstep {
    /// `threads` counts the caller's, at least 1.
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let state = Arc::new(State {
            threads: threads.max(1),
            orders: Mutex::default(),
            wake: Condvar::new(),
            arrived: AtomicUsize::new(0),
            opened: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        });
        let mut lockstep = Self { state, handles: Vec::new() };
        for index in 1..threads {
            let state = lockstep.state.clone();
            let thread = std::thread::Builder::new().name(format!("decoder-{index}"));
            lockstep.handles.push(thread.spawn(move || help(&state, index))?);
        }
        Ok(lockstep)
    }

    pub(super) fn threads(&self) -> usize {
        self.state.threads
    }

    /// Runs `job` on every thread at once and waits for all of them. A panic in one of them goes on here.
    pub(super) fn run(&mut self, job: &(dyn Fn(&Worker<'_>) + Sync)) {
        let state = &*self.state;
        state.running.store(state.threads - 1, Ordering::Relaxed);
        let mut orders = state.orders();
        orders.number += 1;
        orders.job = Some(Pointer(forever(job)));
        drop(orders);
        state.wake.notify_all();
        state.take_part(0, job);
        let mut spins = 0;
        while state.running.load(Ordering::Acquire) > 0 {
            pause(&mut spins);
        }
        let mut orders = state.orders();
        orders.job = None;
        if let Some(panic) = orders.panic.take() {
            drop(orders);
            // Nobody runs: the next job begins at a whole barrier.
            state.arrived.store(0, Ordering::Relaxed);
            state.next.store(0, Ordering::Relaxed);
            state.broken.store(false, Ordering::Relaxed);
            resume_unwind(panic);
        }
    }
}

/// Forgets how long a job is borrowed.
#[expect(unsafe_code, reason = "a borrowed job goes to threads that outlive the borrow")]
fn forever(job: &(dyn Fn(&Worker<'_>) + Sync)) -> *const Job {
    // SAFETY: only the lifetime changes; `Lockstep::run` waits for whoever holds the pointer.
    unsafe { std::mem::transmute::<&(dyn Fn(&Worker<'_>) + Sync), &'static Job>(job) }
}

impl Drop for Lockstep {
    fn drop(&mut self) {
        self.state.orders().stop = true;
        self.state.wake.notify_all();
        for handle in self.handles.drain(..) {
            // A helper catches its jobs' panics, so there is no other end than the ordinary one.
            handle.join().unwrap_or_default();
        }
    }
}

impl State {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_part(&self, index: usize, job: &(dyn Fn(&Worker<'_>) + Sync)) {
        let worker = Worker { index, state: self };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(&worker))) {
            // The first panic is the cause; those of the threads that waited for this one follow from it.
            if !self.broken.swap(true, Ordering::AcqRel) {
                self.orders().panic = Some(panic);
            }
        }
    }
}

fn help(state: &State, index: usize) {
    let mut done = 0;
    loop {
        let mut orders = state.orders();
        while orders.number == done && !orders.stop {
            orders = state.wake.wait(orders).unwrap_or_else(PoisonError::into_inner);
        }
        if orders.stop {
            return;
        }
        done = orders.number;
        let job = orders.job;
        drop(orders);
        if let Some(Pointer(job)) = job {
            #[expect(unsafe_code, reason = "a borrowed job goes to threads that outlive the borrow")]
            // SAFETY: `Lockstep::run` keeps the job alive until `running` has fallen to zero.
            state.take_part(index, unsafe { &*job });
        }
        state.running.fetch_sub(1, Ordering::Release);
    }
}

impl Worker<'_> {
    /// One step: shares `items` between the threads, up to `together` at a time, and waits for the last of them.
    pub(super) fn share(&self, items: usize, together: usize, mut work: impl FnMut(Range<usize>)) {
        loop {
            let start = self.state.next.fetch_add(together, Ordering::Relaxed);
            if start >= items {
                break;
            }
            work(start..items.min(start + together));
        }
        self.meet();
    }

    /// Waits until every thread is here.
    fn meet(&self) {
        let state = self.state;
        let opened = state.opened.load(Ordering::Acquire);
        if state.arrived.fetch_add(1, Ordering::AcqRel) + 1 == state.threads {
            state.arrived.store(0, Ordering::Relaxed);
            state.next.store(0, Ordering::Relaxed);
            state.opened.store(opened.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while state.opened.load(Ordering::Acquire) == opened {
            assert!(!state.broken.load(Ordering::Relaxed), "another thread of the forward panicked");
            pause(&mut spins);
        }
    }
}

fn pause(spins: &mut usize) {
    *spins += 1;
    if *spins < SPINS {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

#[cfg(test)]
#[path = "lockstep_tests.rs"]
mod tests;

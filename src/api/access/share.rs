//! Shares of what there is a bounded number of, so that nobody takes all.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Who has how many.
pub(in crate::api) struct Shares<K: Eq + Hash> {
    taken: Mutex<HashMap<K, usize>>,
}

impl<K: Eq + Hash> Default for Shares<K> {
    fn default() -> Self {
        Self { taken: Mutex::default() }
    }
}

/// One of them, until it is dropped.
pub(in crate::api) struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    who: K,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// None: `who` has `most` already.
    pub(in crate::api) fn take(self: &Arc<Self>, who: K, most: usize) -> Option<Share<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&who).copied().unwrap_or_default();
        (count < most).then(|| {
            taken.insert(who.clone(), count + 1);
            Share { shares: Arc::clone(self), who }
        })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.who) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.who);
            }
        }
    }
}

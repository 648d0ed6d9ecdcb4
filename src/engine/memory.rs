//! One ledger of device memory: every model reserves its weights, caches and activations here before it loads.
//!
//! Pure bookkeeping in bytes, no allocation. What does not fit is refused at load, with figures, instead of failing in
//! the middle of a reply. A [`Reservation`] gives its bytes back when it is dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::EngineError;

/// The budgets of all devices. Clones share one ledger.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger(Arc<Mutex<Accounts>>);

#[derive(Debug, Default)]
struct Accounts {
    devices: BTreeMap<String, Account>,
    next_entry: u64,
}

#[derive(Debug, Default)]
struct Account {
    budget: u64,
    entries: BTreeMap<u64, (String, u64)>,
}

impl Account {
    fn reserved(&self) -> u64 {
        self.entries.values().map(|(_, bytes)| bytes).sum()
    }
}

/// One device's line in the ledger, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLine {
    pub device: String,
    pub budget: u64,
    pub reserved: u64,
    /// Who reserved how much, in the order of reservation.
    pub entries: Vec<(String, u64)>,
}

impl MemoryLedger {
    /// Sets what may be reserved on `device`, replacing an earlier budget. What is reserved already stays.
    pub fn set_budget(&self, device: &str, bytes: u64) {
        self.accounts().devices.entry(device.to_owned()).or_default().budget = bytes;
    }

    /// Books `bytes` for `what` on `device`.
    ///
    /// # Errors
    /// [`EngineError::DoesNotFit`], also on a device without a budget.
    pub fn reserve(&self, device: &str, what: &str, bytes: u64) -> Result<Reservation, EngineError> {
        let mut accounts = self.accounts();
        let entry = accounts.next_entry;
        let free = accounts.devices.get(device).map_or(0, |account| account.budget.saturating_sub(account.reserved()));
        match accounts.devices.get_mut(device) {
            Some(account) if bytes <= free => account.entries.insert(entry, (what.to_owned(), bytes)),
            _ => {
                return Err(EngineError::DoesNotFit {
                    what: what.to_owned(),
                    needed_mb: bytes.div_ceil(1 << 20),
                    free_mb: free >> 20,
                });
            }
        };
        accounts.next_entry += 1;
        Ok(Reservation { ledger: self.clone(), device: device.to_owned(), entry })
    }

    /// What is reserved now, for reports.
    pub fn snapshot(&self) -> Vec<DeviceLine> {
        let line = |(device, account): (&String, &Account)| DeviceLine {
            device: device.clone(),
            budget: account.budget,
            reserved: account.reserved(),
            entries: account.entries.values().cloned().collect(),
        };
        self.accounts().devices.iter().map(line).collect()
    }

    /// A panic elsewhere cannot leave the books half written: every change is one insert or one remove.
    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that are booked while this lives.
#[derive(Debug)]
pub struct Reservation {
    ledger: MemoryLedger,
    device: String,
    entry: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(account) = self.ledger.accounts().devices.get_mut(&self.device) {
            account.entries.remove(&self.entry);
        }
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;

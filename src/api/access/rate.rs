//! How often anybody may ask: requests by key and by address, and guesses at a key.
//!
//! Each is a bucket that fills at the limit's pace (GCRA). Programs on this machine are not counted by address, or one
//! of them could lock out the others.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::{Identity, Problem};

/// Attempts to log in, a minute and at once: a person's typing errors, and little for a machine.
const LOGINS_PER_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// Of a minute's requests, so many may come at once: a thirtieth, but not fewer than a page needs to begin.
const BURST_SHARE: u32 = 30;
const LEAST_BURST: u32 = 20;

pub(super) struct Rates {
    keys: Option<Rate<Arc<str>>>,
    addresses: Option<Rate<IpAddr>>,
    logins: Rate<IpAddr>,
}

impl Rates {
    /// 0: any number.
    pub(super) fn new(per_minute: u32) -> Self {
        let quota = NonZeroU32::new(per_minute).map(|limit| {
            let burst = (per_minute / BURST_SHARE).max(LEAST_BURST).min(per_minute);
            Quota::per_minute(limit).allow_burst(NonZeroU32::new(burst).unwrap_or(limit))
        });
        Self {
            keys: quota.map(Rate::new),
            addresses: quota.map(Rate::new),
            logins: Rate::new(Quota::per_minute(LOGINS_PER_MINUTE)),
        }
    }

    pub(super) fn spend_address(&self, client: Option<IpAddr>) -> Result<(), Problem> {
        match (&self.addresses, client) {
            (Some(rate), Some(client)) if !client.is_loopback() => rate.spend(&network(client)),
            _ => Ok(()),
        }
    }

    pub(super) fn spend_key(&self, identity: &Identity) -> Result<(), Problem> {
        match (&self.keys, &identity.proof) {
            (Some(rate), Some(proof)) => rate.spend(&proof.key),
            _ => Ok(()),
        }
    }

    /// An attempt to log in.
    pub(super) fn spend_login(&self, client: Option<IpAddr>) -> Result<(), Problem> {
        client.map_or(Ok(()), |client| self.logins.spend(&network(client)))
    }

    /// Forgets whoever could begin anew.
    pub(super) fn sweep(&self) {
        self.keys.iter().for_each(Rate::sweep);
        self.addresses.iter().for_each(Rate::sweep);
        self.logins.sweep();
    }
}

/// One bucket for each key.
struct Rate<K: Clone + Eq + Hash>(DefaultKeyedRateLimiter<K>);

impl<K: Clone + Eq + Hash> Rate<K> {
    fn new(quota: Quota) -> Self {
        Self(RateLimiter::keyed(quota))
    }

    fn spend(&self, key: &K) -> Result<(), Problem> {
        self.0.check_key(key).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            let detail = "too many requests; wait as long as Retry-After says";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail).later(wait)
        })
    }

    fn sweep(&self) {
        self.0.retain_recent();
        self.0.shrink_to_fit();
    }
}

/// What one customer has of addresses: one of the old ones, 2^64 of the new ones.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
#[path = "rate_tests.rs"]
mod tests;

//! Bytes of requests that are in memory: bounded in the process, and for each caller.
//!
//! A message that is there as soon as its call is looked at, and is not large, is not counted: it is answered at once,
//! and the transport bounds what a connection can bring. Counted is what waits for more, and what is large.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderValue;

use super::message::fields::Weight;
use crate::{domain::id::AccountId, grpc::status::Refusal};

/// A message of fewer bytes is not counted unless it has to wait for more.
pub const UNCOUNTED_BYTES_MAX: usize = 64 * 1024;
/// What a call that waits takes beside its message.
pub const CALL_BYTES: usize = 1_024;
/// The part of all that one caller may take.
const SHARE: usize = 4;

/// What requests may take of the process's memory.
pub struct RequestMemory {
    bytes_max: usize,
    share_bytes_max: usize,
    keys: RandomState,
    taken: Mutex<Taken>,
}

/// Who takes memory.
#[derive(Hash)]
pub enum Taker {
    /// All who call without a caller.
    Open,
    /// A bearer, by its header.
    Bearer(HeaderValue),
    /// All keys of an account.
    Account(AccountId),
}

#[derive(Default)]
struct Taken {
    all: usize,
    /// By a hash: two callers may share a share, and do not for long.
    by_caller: HashMap<u64, usize>,
}

/// What one call has taken; given back when this is dropped.
pub struct Reservation {
    memory: Arc<RequestMemory>,
    taker: Taker,
    bytes: usize,
}

impl RequestMemory {
    /// Of `bytes_max` bytes in all. A caller's share is a quarter, and no less than the largest message.
    pub fn new(bytes_max: usize, message_bytes_max: usize) -> Arc<Self> {
        let share_bytes_max = (bytes_max / SHARE).max(message_bytes_max + CALL_BYTES);
        Arc::new(Self { bytes_max, share_bytes_max, keys: RandomState::new(), taken: Mutex::default() })
    }

    /// Nothing as yet.
    pub fn reservation(self: &Arc<Self>, taker: Taker) -> Reservation {
        Reservation { memory: self.clone(), taker, bytes: 0 }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// Takes so many bytes instead of those that were taken before.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if the caller, or all callers, would have too much.
    pub fn set(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes == self.bytes {
            return Ok(());
        }
        let key = self.memory.keys.hash_one(&self.taker);
        let mut taken = self.memory.taken();
        let all = taken.all - self.bytes + bytes;
        let own = taken.by_caller.get(&key).copied().unwrap_or(0) - self.bytes + bytes;
        if bytes > self.bytes && (all > self.memory.bytes_max || own > self.memory.share_bytes_max) {
            return Err(Refusal::no_room());
        }
        taken.all = all;
        if own == 0 {
            taken.by_caller.remove(&key);
        } else {
            taken.by_caller.insert(key, own);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Takes what a message's entries will take once it is decoded, if that is much.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn weigh(&mut self, weight: Weight) -> Result<(), Refusal> {
        if weight.bytes() > UNCOUNTED_BYTES_MAX { self.set(self.bytes + weight.bytes()) } else { Ok(()) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // Giving back is never refused.
        _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str) -> Taker {
        Taker::Account(AccountId::parse("account_id", id).expect("an id"))
    }

    #[test]
    fn nobody_takes_more_than_a_share_and_all_together_no_more_than_there_is() {
        let memory = RequestMemory::new(1_000, 0);
        let mut mine = memory.reservation(account("mine"));
        memory.reservation(account("mine")).set(1_025).expect_err("more than a share");
        mine.set(1_000).expect("room");
        let mut theirs = memory.reservation(account("theirs"));
        theirs.set(1).expect_err("there is no more");
        mine.set(500).expect("less");
        theirs.set(400).expect("room again");
        drop((mine, theirs));
        assert_eq!(memory.taken().all, 0);
        assert!(memory.taken().by_caller.is_empty());
    }

    #[test]
    fn a_share_is_a_quarter() {
        let memory = RequestMemory::new(100_000, 10);
        let mut first = memory.reservation(account("a"));
        first.set(20_000).expect("room");
        let mut second = memory.reservation(account("a"));
        second.set(6_000).expect_err("the same caller");
        second.set(5_000).expect("up to the share");
        memory.reservation(Taker::Open).set(25_000).expect("another's share");
    }
}

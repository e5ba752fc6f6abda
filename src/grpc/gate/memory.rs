//! Bounds the bytes of requests that are held in memory, in total and by caller.
//!
//! A small message that is complete when its call is first polled is not counted: it is answered at once, and the
//! transport bounds how many bytes a connection can bring. Incomplete and large messages are counted.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::HeaderValue;

use super::message::fields::DecodeOverhead;
use crate::{domain::id::AccountId, grpc::status::Refusal};

/// Messages smaller than this are not counted unless they have to wait for more bytes.
pub const UNCOUNTED_BYTES_MAX: usize = 64 * 1024;
/// The bytes counted for a waiting call in addition to its message.
pub const CALL_BYTES: usize = 1_024;
/// One caller may have at most 1/`OWNER_SHARE` of all memory.
const OWNER_SHARE: usize = 4;

/// The memory that requests of this process may take.
pub struct RequestMemory {
    bytes_max: usize,
    owner_bytes_max: usize,
    keys: RandomState,
    reserved: Mutex<ReservedBytes>,
}

/// The caller that a reservation is charged to.
#[derive(Hash)]
pub enum MemoryOwner {
    /// All calls without an authenticated caller.
    Anonymous,
    /// A bearer, identified by its `authorization` header.
    Bearer(HeaderValue),
    /// All keys of an account.
    Account(AccountId),
}

#[derive(Default)]
struct ReservedBytes {
    all: usize,
    /// Reserved bytes by a hash of the owner: a collision makes two owners share a share for a short time.
    by_owner: HashMap<u64, usize>,
}

/// The bytes that one call has reserved, released on drop.
pub struct MemoryReservation {
    memory: Arc<RequestMemory>,
    owner: MemoryOwner,
    bytes: usize,
}

impl RequestMemory {
    /// Creates a budget of `bytes_max` in total. A caller's share is a quarter, but at least the largest message.
    pub fn new(bytes_max: usize, message_bytes_max: usize) -> Arc<Self> {
        let owner_bytes_max = (bytes_max / OWNER_SHARE).max(message_bytes_max + CALL_BYTES);
        Arc::new(Self { bytes_max, owner_bytes_max, keys: RandomState::new(), reserved: Mutex::default() })
    }

    /// Creates an empty reservation for an owner.
    pub fn reservation(self: &Arc<Self>, owner: MemoryOwner) -> MemoryReservation {
        MemoryReservation { memory: self.clone(), owner, bytes: 0 }
    }

    fn reserved(&self) -> MutexGuard<'_, ReservedBytes> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryReservation {
    /// Replaces the reserved number of bytes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if this caller, or all callers together, would exceed their bound.
    pub fn set(&mut self, bytes: usize) -> Result<(), Refusal> {
        if bytes == self.bytes {
            return Ok(());
        }
        let key = self.memory.keys.hash_one(&self.owner);
        let mut reserved = self.memory.reserved();
        let all = reserved.all - self.bytes + bytes;
        let own = reserved.by_owner.get(&key).copied().unwrap_or(0) - self.bytes + bytes;
        if bytes > self.bytes && (all > self.memory.bytes_max || own > self.memory.owner_bytes_max) {
            return Err(Refusal::no_room());
        }
        reserved.all = all;
        if own == 0 {
            reserved.by_owner.remove(&key);
        } else {
            reserved.by_owner.insert(key, own);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Adds the memory that decoded entries take in addition to the message, if that is much.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn add_decode_overhead(&mut self, overhead: DecodeOverhead) -> Result<(), Refusal> {
        if overhead.bytes() > UNCOUNTED_BYTES_MAX { self.set(self.bytes + overhead.bytes()) } else { Ok(()) }
    }
}

impl Drop for MemoryReservation {
    fn drop(&mut self) {
        // Shrinking a reservation never fails.
        _ = self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(id: &str) -> MemoryOwner {
        MemoryOwner::Account(AccountId::parse("account_id", id).expect("an id"))
    }

    #[test]
    fn no_owner_exceeds_its_share_and_all_together_not_the_total() {
        let memory = RequestMemory::new(1_000, 0);
        let mut mine = memory.reservation(account("mine"));
        memory.reservation(account("mine")).set(1_025).expect_err("more than a share");
        mine.set(1_000).expect("reservation");
        let mut theirs = memory.reservation(account("theirs"));
        theirs.set(1).expect_err("there is no more");
        mine.set(500).expect("less");
        theirs.set(400).expect("reservation again");
        drop((mine, theirs));
        assert_eq!(memory.reserved().all, 0);
        assert!(memory.reserved().by_owner.is_empty());
    }

    #[test]
    fn a_share_is_a_quarter() {
        let memory = RequestMemory::new(100_000, 10);
        let mut first = memory.reservation(account("a"));
        first.set(20_000).expect("reservation");
        let mut second = memory.reservation(account("a"));
        second.set(6_000).expect_err("the same caller");
        second.set(5_000).expect("up to the share");
        memory.reservation(MemoryOwner::Anonymous).set(25_000).expect("another's share");
    }
}

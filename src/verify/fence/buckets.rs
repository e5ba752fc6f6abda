//! Assigns keys and accounts to fences. Several share one; a collision costs a fill, never an answer.

use crate::domain::id::{AccountId, KeyId};

/// Few enough to stay near the processor: a verification of a random key looks at a random bucket. A change of one key
/// makes the others of its bucket be read again, some sixty of a million.
pub(super) const KEY_BUCKETS: usize = 1 << 14;
pub(super) const ACCOUNT_BUCKETS: usize = 1 << 12;
/// 2^64 over the golden ratio: spreads every bit of an id into the top ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// The bucket of a key: both of its live tokens are in it, so they fall together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyBucket(pub(super) u16);

/// The bucket of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountBucket(pub(super) u16);

/// The buckets that cover an entry, worked out once and kept in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buckets {
    pub(super) key: KeyBucket,
    pub(super) account: AccountBucket,
}

impl KeyBucket {
    /// Returns the bucket of this key.
    #[must_use]
    pub fn of(key_id: KeyId) -> Self {
        let id = key_id.as_uuid().as_u128();
        let folded = (id as u64) ^ ((id >> 64) as u64);
        Self((folded.wrapping_mul(SPREAD) >> (64 - KEY_BUCKETS.ilog2())) as u16)
    }
}

impl AccountBucket {
    /// Returns the bucket of this account.
    #[must_use]
    pub fn of(account_id: &AccountId) -> Self {
        // FNV-1a: ids are short, and this runs once an entry.
        let hash = account_id
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self((hash.wrapping_mul(SPREAD) >> (64 - ACCOUNT_BUCKETS.ilog2())) as u16)
    }
}

impl Buckets {
    /// Returns the buckets of a key of an account.
    #[must_use]
    pub fn of(key_id: KeyId, account_id: &AccountId) -> Self {
        Self { key: KeyBucket::of(key_id), account: AccountBucket::of(account_id) }
    }

    /// Returns both in one word, to keep them in an entry.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.key.0) << 16 | u32::from(self.account.0)
    }

    /// Returns the buckets of a word that [`Self::bits`] gave.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self { key: KeyBucket((bits >> 16) as u16), account: AccountBucket(bits as u16) }
    }
}

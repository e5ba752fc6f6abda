//! Every memory ordering that V1 rests on, in one place: `tests/interleavings` runs this very file through
//! all interleavings, so it must know nothing but [`super::atomic`].
//!
//! Follower: [`FenceMark::raise`] each fence, [`PublishedStamp::advance`], [`fence_before_ack`], the acknowledgement;
//! the lease by [`PublishedStamp::advance`] after all of these. Verification: the lease by [`PublishedStamp::load`],
//! the clock, the applied revision by [`PublishedStamp::load`], the entry by [`Versioned::read`], the fences by
//! [`FenceMark::load_after_stamps`].

use super::atomic::{AtomicI64, Ordering, fence};

/// A value that only goes up: a fence.
#[derive(Debug)]
pub struct FenceMark(AtomicI64);

/// A value by which others are published: the applied revision, the lease's end.
#[derive(Debug)]
pub struct PublishedStamp(AtomicI64);

impl FenceMark {
    /// Creates one at this value.
    pub fn new(value: i64) -> Self {
        Self(AtomicI64::new(value))
    }

    /// Raises it to a value, if it is below.
    pub fn raise(&self, to: i64) {
        self.0.fetch_max(to, Ordering::Release);
    }

    /// Loads it, relaxed: the caller has loaded the stamps before, and sees every raise that came before theirs.
    #[inline]
    pub fn load_after_stamps(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl PublishedStamp {
    /// Creates one at this value.
    pub fn new(value: i64) -> Self {
        Self(AtomicI64::new(value))
    }

    /// Stores a value with release: a reader of it sees what was raised before. Returns the value before.
    pub fn advance(&self, to: i64) -> i64 {
        self.0.swap(to, Ordering::Release)
    }

    /// Loads it with acquire: nothing that is loaded afterwards is older than what this saw.
    #[inline]
    pub fn load(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Words that belong together: a revision with what was read at it. Readers never wait; one that
/// comes in the middle of a change notices, and has read nothing.
#[derive(Debug)]
pub struct Versioned<const WORDS: usize> {
    /// Odd while the words change.
    version: AtomicI64,
    words: [AtomicI64; WORDS],
}

impl<const WORDS: usize> Versioned<WORDS> {
    /// Creates words that are all zero.
    pub fn zeroed() -> Self {
        Self { version: AtomicI64::new(0), words: std::array::from_fn(|_| AtomicI64::new(0)) }
    }

    /// Changes all words. There may be one writer at a time.
    #[inline]
    pub fn write(&self, words: [i64; WORDS]) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // A reader of one of the new words sees the odd version.
        fence(Ordering::Release);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, Ordering::Relaxed);
        }
        self.version.store(version + 2, Ordering::Release);
    }

    /// Copies all words as one writer left them; returns false in the middle of a change, and then the copy is to be
    /// discarded.
    ///
    /// Into a place of the caller's: returned by value, the words would be copied again, two at a time, just after they
    /// were written, and that copy would have to wait until the processor is done with everything before.
    #[inline]
    pub fn read(&self, into: &mut [i64; WORDS]) -> bool {
        let version = self.version.load(Ordering::Acquire);
        for (word, place) in into.iter_mut().zip(&self.words) {
            *word = place.load(Ordering::Relaxed);
        }
        // A reader of one of the new words sees the odd version here, or a later one.
        fence(Ordering::Acquire);
        version % 2 == 0 && self.version.load(Ordering::Relaxed) == version
    }
}

/// Orders all fences before the acknowledgement that is sent next: a mutation that reads it may rely on them.
pub fn fence_before_ack() {
    fence(Ordering::SeqCst);
}

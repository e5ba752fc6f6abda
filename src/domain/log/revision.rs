//! Revisions and etags: points in the one log.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How many bits of a stamp hold the number.
const NUMBER_BITS: u32 = 40;

/// A point in the log: the number of its last event, in an epoch of its history.
///
/// Ordered by epoch first: an operator starts a new epoch when history was lost or forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Revision {
    /// Starts at 1.
    pub epoch: i64,
    /// Starts at 1; 0 is the empty log.
    pub number: i64,
}

/// A revision in one word, in the same order: the epoch above the lower 40 bits, the number in them. So one
/// atomic comparison judges what was read in whatever epoch, and a new epoch is above all of an old one.
///
/// The bounds, [`Revision::EPOCH_MAX`] epochs of [`Revision::NUMBER_MAX`] events, would take a thousand
/// events a second for 34 years to reach; the schema refuses to append beyond them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RevisionStamp(i64);

/// What guards an edit (AIP-154): the revision of the object's last event, opaque to callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(String);

impl Revision {
    /// The last epoch that fits a stamp.
    pub const EPOCH_MAX: i64 = (1 << (63 - NUMBER_BITS)) - 1;
    /// The last number that fits a stamp.
    pub const NUMBER_MAX: i64 = (1 << NUMBER_BITS) - 1;

    /// Returns the revision in one word; `None` beyond the bounds, where no order could be kept.
    #[must_use]
    pub fn stamp(self) -> Option<RevisionStamp> {
        let fits = (0..=Self::EPOCH_MAX).contains(&self.epoch) && (0..=Self::NUMBER_MAX).contains(&self.number);
        fits.then_some(RevisionStamp(self.epoch << NUMBER_BITS | self.number))
    }

    /// Returns the etag of an object whose last event this is.
    #[must_use]
    pub fn etag(self) -> Etag {
        Etag(self.to_string())
    }
}

impl RevisionStamp {
    /// What is below every revision of a log.
    pub const ZERO: Self = Self(0);

    /// Returns the revision.
    #[must_use]
    pub fn revision(self) -> Revision {
        Revision { epoch: self.0 >> NUMBER_BITS, number: self.0 & Revision::NUMBER_MAX }
    }

    /// Returns the word, for an atomic. Never negative.
    #[must_use]
    pub const fn bits(self) -> i64 {
        self.0
    }

    /// Returns the stamp of a word that [`Self::bits`] gave.
    #[must_use]
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits)
    }

    /// Returns the stamp of another number in the same epoch; `None` beyond the bounds.
    #[must_use]
    pub fn at_number(self, number: i64) -> Option<Self> {
        Revision { number, ..self.revision() }.stamp()
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl Etag {
    /// Takes what a caller sent; `None` if it sent nothing. Any text is an etag, most of them stale.
    #[must_use]
    pub fn from_request(text: &str) -> Option<Self> {
        if text.is_empty() { None } else { Some(Self(text.to_owned())) }
    }

    /// Reports whether an object at `revision` has this etag.
    #[must_use]
    pub fn matches(&self, revision: Revision) -> bool {
        *self == revision.etag()
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn revision(epoch: i64, number: i64) -> Revision {
        Revision { epoch, number }
    }

    #[test]
    fn stamps_are_in_the_order_of_their_revisions_and_lead_back_to_them() {
        let ordered = [
            revision(0, 0),
            revision(1, 0),
            revision(1, 1),
            revision(1, Revision::NUMBER_MAX),
            revision(2, 0),
            revision(Revision::EPOCH_MAX, Revision::NUMBER_MAX),
        ];
        let stamps = ordered.map(|revision| revision.stamp().expect("within the bounds"));
        assert!(stamps.is_sorted() && stamps.iter().all(|stamp| stamp.bits() >= 0));
        assert_eq!(stamps.map(RevisionStamp::revision), ordered);
        assert_eq!(stamps.map(|stamp| RevisionStamp::from_bits(stamp.bits())), stamps);
        assert_eq!(stamps[0], RevisionStamp::ZERO);
    }

    #[test]
    fn what_does_not_fit_a_stamp_is_refused_not_cut() {
        for beyond in [
            revision(Revision::EPOCH_MAX + 1, 0),
            revision(1, Revision::NUMBER_MAX + 1),
            revision(-1, 0),
            revision(1, -1),
            revision(i64::MAX, i64::MAX),
        ] {
            assert_eq!(beyond.stamp(), None, "{beyond}");
        }
        let stamp = revision(7, 5).stamp().expect("within the bounds");
        assert_eq!(stamp.at_number(6), revision(7, 6).stamp());
        assert_eq!(stamp.at_number(Revision::NUMBER_MAX + 1), None);
    }
}

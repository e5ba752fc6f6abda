//! Whether what the database says now continues the history that was followed (V2).
//!
//! Numbers and epochs alone cannot show it: a standby that lost some events and then took others has the
//! same numbers. So each step compares hashes, of which each covers all before it.

use crate::{
    domain::log::{
        event::Hash,
        revision::{Revision, RevisionStamp},
    },
    verify::primary::{Head, LogEntry},
};

/// A point of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub at: RevisionStamp,
    pub hash: Hash,
}

/// How the history differs from the one that was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// An epoch that an operator had started is gone.
    #[error("the epoch is {is}, and was {was}")]
    Epoch {
        /// The epoch that was followed.
        was: i64,
        /// The epoch of the head.
        is: i64,
    },
    /// Events that were seen are gone.
    #[error("the head is {head}, below {seen} which was seen")]
    Regress {
        /// The last revision that was applied or read.
        seen: Revision,
        /// The head.
        head: Revision,
    },
    /// The chain does not continue the one that was applied.
    #[error("event {number} does not continue the chain that was applied")]
    Fork {
        /// The number where the hashes differ.
        number: i64,
    },
    /// A number is missing.
    #[error("no event follows {applied}, though the log has more")]
    Gap {
        /// The last number applied.
        applied: i64,
    },
    /// The database does not have the event that was applied last.
    #[error("the database does not have {applied} as it was applied")]
    Refused {
        /// The last revision applied.
        applied: Revision,
    },
    /// The log has outgrown what a replica can order.
    #[error("the head, {head}, is beyond the last revision that this release can follow")]
    Beyond {
        /// The head.
        head: Revision,
    },
    /// An earlier round found a divergence, and no operator has accepted the history since.
    #[error("the replica had diverged before")]
    Before,
}

impl Point {
    /// Returns the point at which the log ends.
    pub fn of(head: &Head) -> Result<Self, Divergence> {
        let at = head.revision.stamp().ok_or(Divergence::Beyond { head: head.revision })?;
        Ok(Self { at, hash: head.hash })
    }

    pub fn epoch(&self) -> i64 {
        self.at.revision().epoch
    }

    pub fn number(&self) -> i64 {
        self.at.revision().number
    }

    /// Compares the end of the log with the point that was applied last. False if an operator has accepted
    /// a history since: nothing of the old one says anything of the new.
    pub fn leads_to(&self, head: &Self) -> Result<bool, Divergence> {
        let (was, is) = (self.epoch(), head.epoch());
        if is > was {
            return Ok(false);
        }
        if is < was {
            return Err(Divergence::Epoch { was, is });
        }
        head.is_at_least(self.at)?;
        if head.at == self.at && head.hash != self.hash {
            return Err(Divergence::Fork { number: self.number() });
        }
        Ok(true)
    }

    /// Refuses a head below what was seen before it was read.
    pub fn is_at_least(&self, seen: RevisionStamp) -> Result<(), Divergence> {
        if self.at < seen {
            return Err(Divergence::Regress { seen: seen.revision(), head: self.at.revision() });
        }
        Ok(())
    }

    /// Returns the point after this one, if the event continues the chain and leads to the head.
    pub fn next(&self, entry: &LogEntry, head: &Self) -> Result<Self, Divergence> {
        if entry.number != self.number() + 1 {
            return Err(Divergence::Gap { applied: self.number() });
        }
        if entry.previous_hash != self.hash || (entry.number == head.number() && entry.hash != head.hash) {
            return Err(Divergence::Fork { number: entry.number });
        }
        let at = self.at.at_number(entry.number).ok_or(Divergence::Beyond { head: head.at.revision() })?;
        Ok(Self { at, hash: entry.hash })
    }
}

//! Reads one token out of the cache: a copy of its slot, and what it shares with others.

use std::borrow::Borrow;

use super::{
    entry::Entry,
    interned::NamedSet,
    slot::{Contents, DigestKey},
    table::Table,
};
use crate::{
    domain::{
        id::{AccountId, KeyId, TeamId},
        log::revision::RevisionStamp,
        time::Timestamp,
        token::HashedToken,
        verification::{OwningTeams, Requirement, Standing, TokenFacts},
    },
    verify::{fence::buckets::Buckets, usage::Presented},
};

/// Holds what a look-up finds; the next look-up may use it again.
#[derive(Default)]
pub struct LookupBuffer(Contents);

/// The place of a token in a table.
#[derive(Clone, Copy)]
pub(crate) struct SlotRef<'a> {
    place: usize,
    table: &'a Table,
}

/// A token as it was cached, at one moment.
#[derive(Clone, Copy)]
pub struct Cached<'a> {
    contents: &'a Contents,
    place: usize,
    table: &'a Table,
}

// === impl SlotRef ===

impl<'a> SlotRef<'a> {
    #[inline]
    pub fn find(table: &'a Table, key: &DigestKey, buffer: &mut LookupBuffer) -> Option<Self> {
        let place = table.find(key, &mut buffer.0)?;
        Some(Self { place, table })
    }

    #[inline]
    pub fn cached(self, buffer: &'a LookupBuffer) -> Cached<'a> {
        Cached { contents: &buffer.0, place: self.place, table: self.table }
    }
}

// === impl LookupBuffer ===

impl LookupBuffer {
    /// Returns the fences that cover what was found, and the revision that it was read at.
    #[inline]
    pub(crate) fn covered(&self) -> (Buckets, RevisionStamp) {
        (self.0.buckets(), self.0.revision())
    }
}

// === impl Cached ===

impl<'a> Cached<'a> {
    /// Returns the digest that is on record.
    #[must_use]
    pub fn digest(&self) -> HashedToken {
        self.contents.digest()
    }

    /// Returns the revision that it was read at.
    #[must_use]
    pub fn revision(&self) -> RevisionStamp {
        self.contents.revision()
    }

    /// Returns the fences that cover it.
    #[cfg(test)]
    pub(crate) fn buckets(&self) -> Buckets {
        self.contents.buckets()
    }

    /// Returns the key.
    #[must_use]
    pub fn key_id(&self) -> KeyId {
        self.contents.key_id()
    }

    /// Returns its account.
    #[must_use]
    pub fn account_id(&self) -> &'a AccountId {
        self.table.interned.account(self.contents.names().account)
    }

    /// Returns what decides whether the token is live, apart from what it holds.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.contents.standing()
    }

    /// Returns what it holds account-wide.
    #[must_use]
    pub fn account_permissions(&self) -> &'a NamedSet {
        self.table.interned.set(self.contents.names().account_permissions)
    }

    /// Returns what it holds on each of its teams.
    #[must_use]
    pub fn team_permissions(&self) -> &'a NamedSet {
        self.table.interned.set(self.contents.names().team_permissions)
    }

    /// Returns the teams of its scope, sorted.
    pub fn team_ids(&self) -> impl Iterator<Item = &'a TeamId> + Clone + use<'a> {
        self.table.interned.teams(self.contents.names().teams)
    }

    /// Returns when it was last used.
    pub(crate) fn last_used(&self) -> Timestamp {
        self.table.slot(self.place).last_use().time()
    }

    /// Reports whether it holds what it must be good for.
    #[inline]
    pub(crate) fn meets(&self, requirement: &Requirement<impl Borrow<str>, impl OwningTeams>) -> bool {
        let (account, team) = (self.account_permissions().permissions(), self.team_permissions().permissions());
        let in_scope = |team: &[u8]| self.table.interned.holds_team(self.contents.names().teams, team);
        requirement.met_by(self.account_id().as_str(), account, team, in_scope)
    }

    /// Copies it into an entry of its own.
    #[must_use]
    pub fn to_entry(&self) -> Entry {
        let Standing { state, account_suspended, expire_time, token_end_time } = self.standing();
        let facts = TokenFacts {
            key_id: self.key_id(),
            account_id: self.account_id().clone(),
            account_suspended,
            state,
            expire_time,
            token_end_time,
            account_permissions: *self.account_permissions().permissions(),
            team_permissions: *self.team_permissions().permissions(),
            team_ids: self.team_ids().cloned().collect(),
        };
        Entry::new(self.digest(), facts, self.account_permissions().catalogue().clone(), self.revision())
    }
}

impl Presented for Cached<'_> {
    fn digest(&self) -> HashedToken {
        self.contents.digest()
    }

    fn key_id(&self) -> KeyId {
        self.contents.key_id()
    }

    fn account_id(&self) -> AccountId {
        Self::account_id(self).clone()
    }

    #[inline]
    fn claim_use(&self, now: Timestamp, round: i64) -> bool {
        self.table.slot(self.place).claim_use(now, round)
    }

    fn claim_late_report(&self, now: Timestamp) -> bool {
        self.table.slot(self.place).claim_late_report(now)
    }

    fn drop_late_report(&self) {
        self.table.slot(self.place).drop_late_report();
    }
}

impl std::fmt::Debug for Cached<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cached").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

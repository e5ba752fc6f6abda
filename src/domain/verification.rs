//! What a token is good for, from values alone: outcome, precedence, requirement.

use std::{borrow::Borrow, sync::Arc};

use super::{
    api_key::ApiKeyState,
    authority::TokenRole,
    id::{AccountId, KeyId, TeamId},
    permissions::permission::{Bit, PermissionSet},
    time::Timestamp,
};

/// What a verification found. Declared in order of precedence; everything but VALID means no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Not of the token format (T1).
    Malformed,
    /// Well-formed, not on record.
    Unknown,
    /// The key was deleted (K6).
    Deleted,
    /// Rotated out, its grace over (K8).
    Rotated,
    /// The account is suspended (A2).
    AccountSuspended,
    /// The key is disabled (K6).
    Disabled,
    /// The key's expiry passed (K7).
    Expired,
    /// Good, but not for the requirement.
    PermissionDenied,
    /// Good.
    Valid,
}

impl Outcome {
    /// Every outcome, in order of precedence.
    pub const ALL: [Self; 9] = [
        Self::Malformed,
        Self::Unknown,
        Self::Deleted,
        Self::Rotated,
        Self::AccountSuspended,
        Self::Disabled,
        Self::Expired,
        Self::PermissionDenied,
        Self::Valid,
    ];
}

/// All that a verification needs to know of a token on record, with closures worked out (P2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenFacts {
    /// The key.
    pub key_id: KeyId,
    /// Its account.
    pub account_id: AccountId,
    /// Whether the account is suspended.
    pub account_suspended: bool,
    /// The key's state.
    pub state: ApiKeyState,
    /// The key's expiry.
    pub expire_time: Option<Timestamp>,
    /// When this token ends because a newer one replaced it; `None` for the current one.
    pub token_end_time: Option<Timestamp>,
    /// Closed.
    pub account_permissions: PermissionSet,
    /// Closed; the same on every team of `team_ids`; empty without a team scope.
    pub team_permissions: PermissionSet,
    /// Sorted.
    pub team_ids: Arc<[TeamId]>,
}

/// What the token must be good for, its permission looked up. The names are owned, or those of a request.
#[derive(Clone, Debug)]
pub struct Requirement<A = AccountId, T = Vec<TeamId>> {
    /// The account that owns the resource.
    pub account_id: A,
    /// The permission needed.
    pub permission: Bit,
    /// The teams that own the resource; empty: only an account-level holding satisfies.
    pub team_ids: T,
}

/// Teams that own a resource: in a list, or as a request names them.
pub trait OwningTeams {
    /// Reports whether `is` holds for any of them, given the bytes of its id.
    fn any(&self, is: impl FnMut(&[u8]) -> bool) -> bool;
}

/// What decides whether a token is live, apart from what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The key's state.
    pub state: ApiKeyState,
    /// Whether the key's account is suspended.
    pub account_suspended: bool,
    /// The key's expiry.
    pub expire_time: Option<Timestamp>,
    /// When this token ends because a newer one replaced it; `None` for the current one.
    pub token_end_time: Option<Timestamp>,
}

impl Standing {
    /// Returns the outcome at a moment of database time: the first that applies. `met` says whether the token holds
    /// what it must be good for, and is asked last.
    #[must_use]
    pub fn outcome(&self, now: Timestamp, met: impl FnOnce() -> bool) -> Outcome {
        let over = |end: Option<Timestamp>| end.is_some_and(|end| now >= end);
        if self.state == ApiKeyState::Deleted {
            Outcome::Deleted
        } else if over(self.token_end_time) {
            Outcome::Rotated
        } else if self.account_suspended {
            Outcome::AccountSuspended
        } else if self.state == ApiKeyState::Disabled {
            Outcome::Disabled
        } else if over(self.expire_time) {
            Outcome::Expired
        } else if met() {
            Outcome::Valid
        } else {
            Outcome::PermissionDenied
        }
    }

    /// Returns when this token stops working if nothing changes before.
    #[must_use]
    pub fn end_time(&self) -> Option<Timestamp> {
        match (self.expire_time, self.token_end_time) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

impl OwningTeams for Vec<TeamId> {
    fn any(&self, mut is: impl FnMut(&[u8]) -> bool) -> bool {
        self.iter().any(|team| is(team.as_str().as_bytes()))
    }
}

impl<A: Borrow<str>, T: OwningTeams> Requirement<A, T> {
    /// Reports whether it is met by a key of an account, with what it holds: closed sets, the second on each team that
    /// `in_scope` knows.
    #[must_use]
    pub fn met_by(
        &self,
        account_id: &str,
        account_permissions: &PermissionSet,
        team_permissions: &PermissionSet,
        in_scope: impl Fn(&[u8]) -> bool,
    ) -> bool {
        self.account_id.borrow() == account_id
            && (account_permissions.contains(self.permission)
                || team_permissions.contains(self.permission) && self.team_ids.any(in_scope))
    }
}

impl TokenFacts {
    /// Returns what decides whether the token is live, apart from what it holds.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let Self { state, account_suspended, expire_time, token_end_time, .. } = *self;
        Standing { state, account_suspended, expire_time, token_end_time }
    }

    /// Returns the outcome at a moment of database time.
    #[must_use]
    pub fn outcome(&self, now: Timestamp, requirement: Option<&Requirement>) -> Outcome {
        let in_scope = |team: &[u8]| self.team_ids.binary_search_by(|held| held.as_str().as_bytes().cmp(team)).is_ok();
        let (account, team) = (&self.account_permissions, &self.team_permissions);
        let met = |needed: &Requirement| needed.met_by(self.account_id.as_str(), account, team, in_scope);
        self.standing().outcome(now, || requirement.is_none_or(met))
    }

    /// Returns when this token stops working if nothing changes before.
    #[must_use]
    pub fn end_time(&self) -> Option<Timestamp> {
        self.standing().end_time()
    }

    /// Returns which of the key's tokens it is.
    #[must_use]
    pub fn role(&self) -> TokenRole {
        if self.token_end_time.is_none() { TokenRole::Current } else { TokenRole::Retiring }
    }
}

#[cfg(test)]
#[path = "verification_tests.rs"]
mod tests;

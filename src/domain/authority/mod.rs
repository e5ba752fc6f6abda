//! Who may do what to a key (M1-M8): the one place where that is decided.
//!
//! Everything here is a function of the caller, the key and the catalogue at one revision; the
//! use-cases fetch all three under one lock (M9). Confinement (M4) compares closed pairs in
//! `Caller::covers`: whatever grants, goes through it. What hands out a whole key compares, in
//! `Caller::covers_dormant`, its dormant names too: they confer nothing until a later catalogue.

mod managed;
pub mod named;

use std::collections::BTreeSet;

pub use self::managed::Managed;
use self::named::{Named, first_not_named};
use super::{
    error::{Error, ObjectKind},
    id::{AccountId, KeyId, TeamId, UserId},
    permissions::{
        catalogue::Catalogue,
        grants::{Grants, Held},
        permission::{MANAGE, PermissionSet, ROTATE_SELF, SystemPermission},
    },
    time::{Span, Timestamp},
};

/// The shortest grace with which a key may rotate itself (M6).
pub const SELF_ROTATION_GRACE_MIN: Span = Span::from_secs(60);

/// Which of a key's tokens was presented (K8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRole {
    /// The one minted last.
    Current,
    /// The one before it, within its grace period.
    Retiring,
}

/// Who is asking (A1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A key acting for itself.
    Key {
        /// The key.
        key_id: KeyId,
        /// Its expiry: time is authority too (M4).
        expire_time: Option<Timestamp>,
        /// When the token that it presented ends; `None` for the current one (K8).
        token_end_time: Option<Timestamp>,
    },
    /// A user, through the key of a trusted service (A6).
    User {
        /// The user.
        user_id: UserId,
        /// The service's key, for the log.
        service_key_id: KeyId,
    },
}

/// A caller with all that it holds, at one revision.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where its authority ends (A4).
    pub account_id: AccountId,
    /// Who it is.
    pub identity: Identity,
    /// What it holds; replaced, never added to, by on-behalf-of (A6).
    pub held: Held,
    /// The same by name: of what confers nothing now, closed sets know nothing.
    pub named: Named,
}

/// A key as authority sees it, before or after a call.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it was granted, by name.
    pub grants: Grants,
    /// When it expires, if ever.
    pub expire_time: Option<Timestamp>,
}

// === impl Caller ===

impl Caller {
    /// Reports whether it holds the break-glass permission (A3).
    #[must_use]
    pub fn operates(&self) -> bool {
        self.holds(SystemPermission::Operate)
    }

    /// Reports whether it holds a built-in permission, which counts only in account `system` (A4), whatever
    /// was stored elsewhere.
    #[must_use]
    pub fn holds(&self, permission: SystemPermission) -> bool {
        self.account_id.is_system() && self.held.account.contains(permission.bit())
    }

    /// Returns the caller as if it did not hold `system.operate`, nor what comes with it: what is refused to that
    /// caller is let through by break-glass alone (A3).
    #[must_use]
    pub fn without_operate(&self, catalogue: &Catalogue) -> Self {
        let Named::Key(grants) = &self.named else { return self.clone() };
        let mut grants = grants.clone();
        grants.account_permissions.remove(SystemPermission::Operate.name());
        Self { held: Held::of(&grants, catalogue), named: Named::Key(grants), ..self.clone() }
    }

    /// Checks that an account is in reach: a caller's authority ends at its own, unless it operates (A4).
    ///
    /// # Errors
    /// [`Error::NotFound`]: whether the account exists is not the caller's to know.
    pub fn reach(&self, account_id: &AccountId) -> Result<(), Error> {
        if self.account_id == *account_id || self.operates() {
            Ok(())
        } else {
            Err(Error::NotFound(ObjectKind::Account))
        }
    }

    /// Returns where it manages keys of an account that it reaches.
    #[must_use]
    pub fn managed(&self, catalogue: &Catalogue) -> Managed {
        if self.operates() {
            return Managed::Account;
        }
        let Some(manage) = catalogue.manage() else { return Managed::Nothing };
        if self.held.account.contains(manage) {
            return Managed::Account;
        }
        let teams: BTreeSet<_> =
            self.held.teams.iter().filter(|(_, set)| set.contains(manage)).map(|(team, _)| team.clone()).collect();
        if teams.is_empty() { Managed::Nothing } else { Managed::Teams(teams) }
    }

    /// Returns everything it can hand out on a team (or, without one, account-wide), before M5. Never
    /// `system.operate`, which no caller can (A4).
    #[must_use]
    pub fn can_confer(&self, team: Option<&TeamId>, catalogue: &Catalogue) -> PermissionSet {
        let mut held = team.map_or(self.held.account, |team| self.held.on(team));
        if self.operates() {
            let system = SystemPermission::ALL.into_iter().map(SystemPermission::bit).collect();
            held = held.union(&catalogue.everything()).union(&system);
        }
        held.difference(&PermissionSet::of(SystemPermission::Operate.bit()))
    }

    /// Checks confinement (M4): every pair must be held by the caller.
    fn covers(&self, pairs: &Held, catalogue: &Catalogue) -> Result<(), Error> {
        let lacking = |set: &PermissionSet, team: Option<&TeamId>| {
            let missing = set.difference(&self.can_confer(team, catalogue));
            (!missing.is_empty()).then(|| Error::PermissionMissing {
                // A set without a name is refused too: only its absence may let a pair pass.
                permission: catalogue.first_name(&missing).unwrap_or_default(),
                team: team.map(TeamId::to_string),
            })
        };
        let account = lacking(&pairs.account, None);
        let teams = || pairs.teams.iter().find_map(|(team, set)| lacking(set, Some(team)));
        account.or_else(teams).map_or(Ok(()), Err)
    }

    /// Reports whether the caller may make managers: only a user or `system.operate` may (M5).
    fn may_make_managers(&self) -> bool {
        matches!(self.identity, Identity::User { .. }) || self.operates()
    }

    /// Returns when a caller's authority ends by itself: with its key, or with its retiring token. A user's does not,
    /// whatever the service's token that speaks for it: that service is trusted (A6).
    fn end_time(&self) -> Option<Timestamp> {
        match self.identity {
            Identity::User { .. } => None,
            Identity::Key { expire_time, token_end_time, .. } => expire_time.into_iter().chain(token_end_time).min(),
        }
    }

    /// Checks that a caller whose authority ends confers nothing that outlives it (M4).
    fn outlives(&self, expire_time: Option<Timestamp>) -> Result<(), Error> {
        let Some(own) = self.end_time() else { return Ok(()) };
        if expire_time.is_some_and(|theirs| theirs <= own) {
            Ok(())
        } else {
            let message = "a key that expires, or calls with a retiring token, confers nothing that expires later";
            Err(Error::NotAllowed { rule: "M4", message })
        }
    }

    fn is_key(&self, key_id: KeyId) -> bool {
        matches!(self.identity, Identity::Key { key_id: own, .. } if own == key_id)
    }

    /// Confers pairs: confinement, makers of managers, time.
    fn may_confer(&self, pairs: &Held, until: Option<Timestamp>, catalogue: &Catalogue) -> Result<(), Error> {
        if pairs.is_empty() {
            return Ok(());
        }
        refuse_operate(pairs)?;
        self.covers(pairs, catalogue)?;
        if catalogue.manage().is_some_and(|bit| pairs.anywhere(bit)) && !self.may_make_managers() {
            return Err(Error::NotAllowed {
                rule: "M5",
                message: "only a user or system.operate may grant api_keys.manage",
            });
        }
        self.outlives(until)
    }

    /// Hands out a key's whole authority: enabling, extending, rotating, importing (M4, M5).
    fn may_confer_whole(&self, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
        let held = Held::of(&key.grants, catalogue);
        self.covers_whole(&held, catalogue)?;
        self.covers_dormant(&key.grants, catalogue)?;
        if key.grants.names(MANAGE) && !self.may_make_managers() {
            let message = "only a user or system.operate may rotate, enable or extend a key that holds api_keys.manage";
            return Err(Error::NotAllowed { rule: "M5", message });
        }
        self.outlives(key.expire_time)
    }

    /// Checks as [`Self::covers`] does, but an operator may enable and extend another operator's key: that
    /// returns no token.
    fn covers_whole(&self, held: &Held, catalogue: &Catalogue) -> Result<(), Error> {
        let mut pairs = held.clone();
        if self.operates() {
            pairs.account = pairs.account.difference(&PermissionSet::of(SystemPermission::Operate.bit()));
        }
        self.covers(&pairs, catalogue)
    }

    /// Checks names by name: one that confers nothing now (retired, unknown, not team-scopable where it stands) comes
    /// back with a later catalogue: the caller that hands out the key must hold it by name too, at that scope (M4).
    /// What a live name comes to imply later is the catalogue's grant to everyone who holds it, and is not foreseen.
    fn covers_dormant(&self, grants: &Grants, catalogue: &Catalogue) -> Result<(), Error> {
        if self.operates() {
            return Ok(());
        }
        match first_not_named(grants, &self.named, catalogue) {
            None => Ok(()),
            Some((name, team)) => {
                Err(Error::PermissionMissing { permission: name.to_owned(), team: team.map(TeamId::to_string) })
            }
        }
    }
}

/// Refuses `system.operate`, which is minted only by `latchkey bootstrap`, never by a call (A4).
fn refuse_operate(pairs: &Held) -> Result<(), Error> {
    if pairs.anywhere(SystemPermission::Operate.bit()) {
        let message = "system.operate is minted only by `latchkey bootstrap`, never by a call";
        return Err(Error::NotAllowed { rule: "A4", message });
    }
    Ok(())
}

// === the calls ===

/// Checks that a key is visible: absent or invisible is the same answer (M8). Every check of a call on a key begins
/// with it, so that no refusal tells of a key that the caller may not view.
///
/// # Errors
/// [`Error::NotFound`].
pub fn check_visible(caller: &Caller, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    if caller.managed(catalogue).may_view(&key.grants) { Ok(()) } else { Err(Error::NotFound(ObjectKind::ApiKey)) }
}

/// Judges minting a key (M1, M2, M4, M5).
///
/// # Errors
/// [`Error::PermissionMissing`] or [`Error::NotAllowed`].
pub fn check_create(caller: &Caller, new: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    caller.managed(catalogue).may_manage(&new.grants)?;
    caller.may_confer(&Held::of(&new.grants, catalogue), new.expire_time, catalogue)?;
    // A key without permissions can be given some later: it must not outlive its maker either.
    caller.outlives(new.expire_time)
}

/// Judges editing a key, as it was and as it will be (M2, M4-M7).
///
/// # Errors
/// [`Error::NotFound`] if it is invisible; [`Error::PermissionMissing`] or [`Error::NotAllowed`].
pub fn check_update(
    caller: &Caller,
    key_id: KeyId,
    before: &Subject,
    after: &Subject,
    catalogue: &Catalogue,
) -> Result<(), Error> {
    let managed = caller.managed(catalogue);
    check_visible(caller, before, catalogue)?;
    managed.may_manage(&before.grants)?;
    if caller.is_key(key_id) {
        return Err(Error::NotAllowed { rule: "M6", message: "a key cannot edit itself" });
    }
    managed.may_manage(&after.grants)?;
    let added = Held::of(&after.grants, catalogue).added_since(&Held::of(&before.grants, catalogue));
    caller.may_confer(&added, after.expire_time, catalogue)?;
    if extends(before.expire_time, after.expire_time) {
        caller.may_confer_whole(after, catalogue)?;
    }
    Ok(())
}

/// Reports whether an expiry moves later or goes away.
fn extends(before: Option<Timestamp>, after: Option<Timestamp>) -> bool {
    match (before, after) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(after)) => after > before,
    }
}

/// Judges enabling a key (M4-M6).
///
/// # Errors
/// [`Error::NotFound`] if it is invisible; [`Error::PermissionMissing`] or [`Error::NotAllowed`].
pub fn check_enable(caller: &Caller, key_id: KeyId, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    check_visible(caller, key, catalogue)?;
    caller.managed(catalogue).may_manage(&key.grants)?;
    if caller.is_key(key_id) {
        return Err(Error::NotAllowed { rule: "M6", message: "a key cannot enable itself" });
    }
    caller.may_confer_whole(key, catalogue)
}

/// Judges taking authority away: disabling and deleting need no more than managing (M7).
///
/// # Errors
/// [`Error::NotFound`] if it is invisible; [`Error::PermissionMissing`].
pub fn check_narrow(caller: &Caller, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    check_visible(caller, key, catalogue)?;
    caller.managed(catalogue).may_manage(&key.grants)
}

/// Judges rotating a key: it returns a token, so its whole authority is conferred (M4-M6).
///
/// # Errors
/// [`Error::PermissionMissing`], [`Error::NotAllowed`], or [`Error::NotFound`] if the caller may not
/// view the key; a key may rotate itself without viewing it.
pub fn check_rotate(
    caller: &Caller,
    key_id: KeyId,
    key: &Subject,
    grace: Span,
    catalogue: &Catalogue,
) -> Result<(), Error> {
    let held = Held::of(&key.grants, catalogue);
    if let Identity::Key { key_id: own, token_end_time, .. } = caller.identity
        && own == key_id
    {
        refuse_operate(&held)?;
        return check_self_rotation(key, token_end_time, grace, catalogue);
    }
    check_visible(caller, key, catalogue)?;
    caller.managed(catalogue).may_manage(&key.grants)?;
    refuse_operate(&held)?;
    caller.may_confer_whole(key, catalogue)
}

/// Checks a key that rotates itself: what it holds, dormant names too, is its own, and only what makes managers is
/// refused, by name (M5).
fn check_self_rotation(
    key: &Subject,
    token_end_time: Option<Timestamp>,
    grace: Span,
    catalogue: &Catalogue,
) -> Result<(), Error> {
    let held = Held::of(&key.grants, catalogue);
    if !catalogue.bit(ROTATE_SELF).is_some_and(|bit| held.anywhere(bit)) {
        return Err(Error::missing(ROTATE_SELF));
    }
    if token_end_time.is_some() {
        return Err(Error::NotAllowed { rule: "M6", message: "a key rotates itself only with its current token" });
    }
    if key.grants.names(MANAGE) {
        let message = "only a user or system.operate may rotate a key that holds api_keys.manage";
        return Err(Error::NotAllowed { rule: "M5", message });
    }
    if grace < SELF_ROTATION_GRACE_MIN {
        return Err(Error::field("grace_period", "must be at least a minute when a key rotates itself"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests/mod.rs"]
mod tests;

//! Who may do what to a key (M1-M8): the one place where that is decided.
//!
//! Everything here is a function of the caller, the key and the catalogue at one revision; the
//! use-cases fetch all three under one lock (M9). Confinement (M4) compares closed pairs only, in
//! `Caller::covers`: whatever grants, goes through it.

use std::collections::BTreeSet;

use super::{
    catalogue::Catalogue,
    error::{Error, ObjectKind},
    grants::{Grants, Held},
    id::{AccountId, KeyId, TeamId, UserId},
    permission::{MANAGE, PermissionSet, ROTATE_SELF, SystemPermission},
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
        /// Which of its tokens it presented.
        token: TokenRole,
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
}

/// A key as authority sees it, before or after a call.
#[derive(Clone, Debug)]
pub struct Subject {
    /// What it was granted, by name.
    pub grants: Grants,
    /// When it expires, if ever.
    pub expire_time: Option<Timestamp>,
}

/// Where a caller manages keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    /// Every key of the account (M1).
    Account,
    /// Keys that lie within these teams (M2); never empty.
    Teams(BTreeSet<TeamId>),
    /// None.
    Nothing,
}

// === impl Caller ===

impl Caller {
    /// True if it holds the break-glass permission (A3).
    #[must_use]
    pub fn operates(&self) -> bool {
        self.holds(SystemPermission::Operate)
    }

    /// True if it holds a built-in permission, which counts only in account `system` (A4), whatever
    /// was stored elsewhere.
    #[must_use]
    pub fn holds(&self, permission: SystemPermission) -> bool {
        self.account_id.is_system() && self.held.account.contains(permission.bit())
    }

    /// A caller's authority ends at its own account, unless it operates (A4).
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

    /// Where it manages keys of an account that it reaches.
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

    /// Everything it can hand out on a team (or, without one, account-wide), before M5. Never
    /// `system.operate`, which nobody can (A4).
    #[must_use]
    pub fn can_confer(&self, team: Option<&TeamId>, catalogue: &Catalogue) -> PermissionSet {
        let mut held = team.map_or(self.held.account, |team| self.held.on(team));
        if self.operates() {
            let system = SystemPermission::ALL.into_iter().map(SystemPermission::bit).collect();
            held = held.union(&catalogue.everything()).union(&system);
        }
        held.difference(&PermissionSet::of(SystemPermission::Operate.bit()))
    }

    /// Confinement (M4): every pair must be held by the caller.
    fn covers(&self, pairs: &Held, catalogue: &Catalogue) -> Result<(), Error> {
        let lacking = |set: &PermissionSet, team: Option<&TeamId>| {
            let missing = set.difference(&self.can_confer(team, catalogue));
            (!missing.is_empty()).then(|| Error::PermissionMissing {
                // A set without a name is refused too: only its absence may let a pair pass.
                permission: catalogue.first_name(&missing).unwrap_or_default(),
                team: team.cloned(),
            })
        };
        let account = lacking(&pairs.account, None);
        let teams = || pairs.teams.iter().find_map(|(team, set)| lacking(set, Some(team)));
        account.or_else(teams).map_or(Ok(()), Err)
    }

    /// Only a user or `system.operate` may make managers (M5).
    fn may_make_managers(&self) -> bool {
        matches!(self.identity, Identity::User { .. }) || self.operates()
    }

    /// A caller with an expiry confers nothing that outlives it (M4).
    fn outlives(&self, expire_time: Option<Timestamp>) -> Result<(), Error> {
        let Identity::Key { expire_time: Some(own), .. } = self.identity else { return Ok(()) };
        if expire_time.is_some_and(|theirs| theirs <= own) {
            Ok(())
        } else {
            Err(Error::NotAllowed {
                rule: "M4",
                message: "a key that expires confers nothing that expires later than itself",
            })
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
        if catalogue.manage().is_some_and(|bit| held.anywhere(bit)) && !self.may_make_managers() {
            let message = "only a user or system.operate may rotate, enable or extend a key that holds api_keys.manage";
            return Err(Error::NotAllowed { rule: "M5", message });
        }
        self.outlives(key.expire_time)
    }

    /// As [`Self::covers`], but an operator may enable and extend another operator's key: that
    /// returns no token.
    fn covers_whole(&self, held: &Held, catalogue: &Catalogue) -> Result<(), Error> {
        let mut pairs = held.clone();
        if self.operates() {
            pairs.account = pairs.account.difference(&PermissionSet::of(SystemPermission::Operate.bit()));
        }
        self.covers(&pairs, catalogue)
    }
}

/// `system.operate` is minted only by `latchkey bootstrap`, never by a call (A4).
fn refuse_operate(pairs: &Held) -> Result<(), Error> {
    if pairs.anywhere(SystemPermission::Operate.bit()) {
        let message = "system.operate is minted only by `latchkey bootstrap`, never by a call";
        return Err(Error::NotAllowed { rule: "A4", message });
    }
    Ok(())
}

// === impl Managed ===

impl Managed {
    /// Who manages nothing sees nothing (M3).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming `api_keys.manage`.
    pub fn require_any(&self) -> Result<(), Error> {
        if *self == Self::Nothing { Err(Error::missing(MANAGE)) } else { Ok(()) }
    }

    /// Whether a key may be viewed (M1, M3).
    #[must_use]
    pub fn may_view(&self, grants: &Grants) -> bool {
        match self {
            Self::Account => true,
            Self::Nothing => false,
            Self::Teams(managed) => {
                grants.team_scope.as_ref().is_some_and(|scope| !scope.team_ids().is_disjoint(managed))
            }
        }
    }

    /// Naming a team that one does not manage is refused whether or not it exists (M8).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming the team.
    pub fn may_name(&self, team: &TeamId) -> Result<(), Error> {
        match self {
            Self::Account => Ok(()),
            Self::Teams(managed) if managed.contains(team) => Ok(()),
            Self::Teams(_) | Self::Nothing => {
                Err(Error::PermissionMissing { permission: MANAGE.to_owned(), team: Some(team.clone()) })
            }
        }
    }

    /// Whether a key as it is, or as it will be, is the caller's to manage (M1, M2).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming `api_keys.manage` and where it is missing.
    pub fn may_manage(&self, grants: &Grants) -> Result<(), Error> {
        match self {
            Self::Account => Ok(()),
            Self::Nothing => Err(Error::missing(MANAGE)),
            Self::Teams(_) => match &grants.team_scope {
                Some(scope) if grants.account_permissions.is_empty() => {
                    scope.team_ids().iter().try_for_each(|team| self.may_name(team))
                }
                Some(_) | None => Err(Error::missing(MANAGE)),
            },
        }
    }
}

// === the calls ===

/// Absent or invisible is the same answer (M8). Every check of a call on a key begins with it, so that
/// no refusal tells of a key that the caller may not view.
///
/// # Errors
/// [`Error::NotFound`].
pub fn check_visible(caller: &Caller, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    if caller.managed(catalogue).may_view(&key.grants) { Ok(()) } else { Err(Error::NotFound(ObjectKind::ApiKey)) }
}

/// Minting a key (M1, M2, M4, M5).
///
/// # Errors
/// [`Error::PermissionMissing`] or [`Error::NotAllowed`].
pub fn check_create(caller: &Caller, new: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    caller.managed(catalogue).may_manage(&new.grants)?;
    caller.may_confer(&Held::of(&new.grants, catalogue), new.expire_time, catalogue)?;
    // A key without permissions can be given some later: it must not outlive its maker either.
    caller.outlives(new.expire_time)
}

/// Editing a key, judged as it was and as it will be (M2, M4-M7).
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

/// True if an expiry moves later or goes away.
fn extends(before: Option<Timestamp>, after: Option<Timestamp>) -> bool {
    match (before, after) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(before), Some(after)) => after > before,
    }
}

/// Enabling a key (M4-M6).
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

/// Taking authority away: disabling and deleting need no more than managing (M7).
///
/// # Errors
/// [`Error::NotFound`] if it is invisible; [`Error::PermissionMissing`].
pub fn check_narrow(caller: &Caller, key: &Subject, catalogue: &Catalogue) -> Result<(), Error> {
    check_visible(caller, key, catalogue)?;
    caller.managed(catalogue).may_manage(&key.grants)
}

/// Rotating a key: it returns a token, so its whole authority is conferred (M4-M6).
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
    if let Identity::Key { key_id: own, token, .. } = caller.identity
        && own == key_id
    {
        refuse_operate(&held)?;
        return check_self_rotation(token, &held, grace, catalogue);
    }
    check_visible(caller, key, catalogue)?;
    caller.managed(catalogue).may_manage(&key.grants)?;
    refuse_operate(&held)?;
    caller.may_confer_whole(key, catalogue)
}

fn check_self_rotation(token: TokenRole, held: &Held, grace: Span, catalogue: &Catalogue) -> Result<(), Error> {
    if !catalogue.bit(ROTATE_SELF).is_some_and(|bit| held.anywhere(bit)) {
        return Err(Error::missing(ROTATE_SELF));
    }
    if token != TokenRole::Current {
        return Err(Error::NotAllowed { rule: "M6", message: "a key rotates itself only with its current token" });
    }
    if catalogue.manage().is_some_and(|bit| held.anywhere(bit)) {
        let message = "only a user or system.operate may rotate a key that holds api_keys.manage";
        return Err(Error::NotAllowed { rule: "M5", message });
    }
    if grace < SELF_ROTATION_GRACE_MIN {
        return Err(Error::field("grace_period", "must be at least a minute when a key rotates itself (M6)"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "authority_tests.rs"]
mod tests;

//! A caller's session: whose token, for which user, as last read.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::{
    app::{
        fairness::fair_queue::{CallerId, Payer},
        propagation::wait::Wait,
        types::OnBehalfOf,
    },
    domain::{
        Error as RuleError, ObjectKind, id::AccountId, permissions::permission::SystemPermission, token::HashedToken,
    },
    verify::Entry,
};

/// A caller whose token was VALID when its request came. What it may do is judged again, from the
/// store, by every use-case (M9).
#[derive(Clone)]
pub struct Session {
    /// What was last read of its token: a stream's messages renew it.
    pub(super) entry: Arc<ArcSwap<Entry>>,
    /// Unlike the rest of the entry, these never change.
    pub(super) key_account_id: AccountId,
    pub(super) digest: HashedToken,
    pub(super) on_behalf_of: Option<OnBehalfOf>,
    pub(super) wait: Wait,
}

// === impl Session ===

impl Session {
    /// Refuses an account beyond the caller before anything is locked for it: else any holder of a key could
    /// hold up any account. The use-case judges again under its locks (M9).
    pub(crate) fn check_reach(&self, account: &AccountId) -> Result<(), RuleError> {
        let own = self.on_behalf_of.as_ref().map_or(&self.key_account_id, |user| &user.account_id);
        if own == account || self.holds(SystemPermission::Operate) {
            Ok(())
        } else {
            Err(RuleError::NotFound(ObjectKind::Account))
        }
    }

    /// Checks the same for a write of an account's directory.
    pub(crate) fn check_directory(&self, account: &AccountId) -> Result<(), RuleError> {
        if self.holds(SystemPermission::Directory) {
            return Ok(());
        }
        self.check_reach(account)?;
        Err(RuleError::missing(SystemPermission::Directory.name()))
    }

    /// Checks the same for the catalogue.
    pub(crate) fn check_operate(&self) -> Result<(), RuleError> {
        let operate = SystemPermission::Operate;
        if self.holds(operate) { Ok(()) } else { Err(RuleError::missing(operate.name())) }
    }

    /// Reports whether the caller holds a permission, as its token was last read; acting for a user replaces it (A6).
    /// Use-cases judge again (M9).
    #[must_use]
    pub fn holds(&self, permission: SystemPermission) -> bool {
        self.on_behalf_of.is_none() && self.entry.load().facts().account_permissions.contains(permission.bit())
    }

    /// Returns the session with what the request says of waiting for the other replicas.
    #[must_use]
    pub fn waiting(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// Returns the session; with `skip`, it does not wait for the other replicas.
    #[must_use]
    pub fn skipping_wait(mut self, skip: bool) -> Self {
        self.wait.skip = skip;
        self
    }

    /// Returns the entry of its token, as last read.
    pub(crate) fn entry(&self) -> arc_swap::Guard<Arc<Entry>> {
        self.entry.load()
    }

    /// Returns the payer of its work: the user, if the caller acts for one.
    pub(crate) fn payer(&self) -> Payer {
        match &self.on_behalf_of {
            Some(user) => Payer::user(user),
            None => {
                Payer { account: self.key_account_id.clone(), caller: CallerId::Key(self.entry.load().facts().key_id) }
            }
        }
    }

    /// Reports whether the caller reads every account's log: an operator's audit.
    pub(crate) fn audits(&self) -> bool {
        self.holds(SystemPermission::Events)
    }

    /// Returns how long a mutation's answer may wait.
    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    /// Returns the account of its key.
    #[must_use]
    pub fn account_id(&self) -> &AccountId {
        &self.key_account_id
    }

    /// Returns the user that the caller acts for.
    #[must_use]
    pub fn on_behalf_of(&self) -> Option<&OnBehalfOf> {
        self.on_behalf_of.as_ref()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("account_id", &self.key_account_id).finish_non_exhaustive()
    }
}

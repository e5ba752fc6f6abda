//! Who asks for a change, judged at the mutation's own revision (M9).

use std::{collections::BTreeSet, sync::Arc};

use super::session::Session;
use crate::{
    app::{
        error::AppError,
        fairness::fair_queue::Payer,
        ports::{CallerState, Locks, Prefetch, Reader, UserPrincipal},
        propagation::wait::Wait,
        types::OnBehalfOf,
    },
    domain::{
        Error as RuleError, ObjectKind,
        authority::{Caller, Identity, named::Named},
        directory::{self, AccountState, UserState},
        id::AccountId,
        log::event::Principal,
        permissions::{catalogue::Catalogue, grants::Held, permission::SystemPermission},
        time::Timestamp,
        verification::{Outcome, TokenFacts},
    },
};

/// Names who asks for a change.
#[derive(Clone)]
pub(crate) enum Requester {
    /// A caller of the API.
    Session(Session),
    /// A token that revokes itself, in whatever state: its key is the principal, and no permission is needed.
    Bearer {
        /// The token's key.
        principal: Principal,
        /// How long the answer may wait.
        wait: Wait,
    },
    /// An operator with the database's own credentials (`latchkey bootstrap` and its like): trusted as the database is.
    Local,
    /// This process itself, or a command of an operator that takes no authority away: nothing waits for other replicas.
    Upkeep,
}

/// A caller at one revision, with what is needed to judge it.
pub(crate) struct Actor {
    /// What it holds. `None` for a requester that no permission is asked of.
    pub caller: Option<Caller>,
    /// For the log.
    pub principal: Option<Principal>,
    /// It acts for a user, and the service's key was granted `system.operate` alone for that.
    pub impersonates_by_operate: bool,
    /// The catalogue of the same snapshot.
    pub catalogue: Arc<Catalogue>,
    /// The database's clock.
    pub now: Timestamp,
}

// === impl Requester ===

impl Requester {
    /// Returns the accounts that the requester's authority lives in.
    pub fn accounts(&self) -> BTreeSet<AccountId> {
        match self {
            Self::Local | Self::Upkeep => BTreeSet::new(),
            Self::Bearer { principal, .. } => BTreeSet::from([principal.account_id.clone()]),
            Self::Session(session) => {
                let user = session.on_behalf_of.as_ref().map(|user| user.account_id.clone());
                std::iter::once(session.key_account_id.clone()).chain(user).collect()
            }
        }
    }

    /// Returns how long answers to the requester may wait for the other replicas.
    pub fn wait(&self) -> Wait {
        match self {
            Self::Local => Wait::default(),
            Self::Upkeep => Wait::NONE,
            Self::Bearer { wait, .. } => *wait,
            Self::Session(session) => session.wait,
        }
    }

    /// Returns the payer: whose share the work is taken from.
    pub fn payer(&self) -> Payer {
        match self {
            Self::Local | Self::Upkeep => Payer::local(),
            Self::Bearer { principal, .. } => Payer::key(principal.account_id.clone(), principal.key_id),
            Self::Session(session) => session.payer(),
        }
    }

    /// Returns the locks of a change of one account, or of none.
    pub fn locks_on(&self, account: Option<&AccountId>) -> Locks {
        let exclusive: BTreeSet<_> = account.into_iter().cloned().collect();
        let shared = self.accounts().difference(&exclusive).cloned().collect();
        Locks { catalogue_exclusive: false, shared, exclusive, prefetch: self.prefetch() }
    }

    /// Returns what [`Self::actor`] reads first.
    fn prefetch(&self) -> Prefetch {
        let caller = match self {
            Self::Local | Self::Upkeep | Self::Bearer { .. } => None,
            Self::Session(session) => Some(session.digest),
        };
        Prefetch { caller, ..Prefetch::default() }
    }

    /// Judges the requester at the reader's revision (M9).
    ///
    /// # Errors
    /// The caller's token is not VALID now, it may not act for the user, or the user may not act.
    pub async fn actor(&self, reader: &mut dyn Reader) -> Result<Actor, AppError> {
        let (session, principal) = match self {
            Self::Session(session) => (Some(session), None),
            Self::Bearer { principal, .. } => (None, Some(principal.clone())),
            Self::Local | Self::Upkeep => (None, None),
        };
        let Some(session) = session else {
            let (catalogue, now) = (reader.catalogue().await?, reader.now().await?);
            return Ok(Actor { caller: None, principal, impersonates_by_operate: false, catalogue, now });
        };
        let CallerState { catalogue, now, token, granted } = reader.caller(&session.digest).await?;
        let facts = token.ok_or(AppError::BadCredentials(Outcome::Unknown))?;
        check_live(facts.outcome(now, None))?;
        let impersonates_by_operate = session.on_behalf_of.is_some()
            && !granted.account_permissions.contains(SystemPermission::Impersonate.name());
        let (caller, principal) = match &session.on_behalf_of {
            None => key_caller(&facts, Named::Key(granted)),
            Some(user) => user_caller(reader, &facts, user, &catalogue).await?,
        };
        let (caller, principal) = (Some(caller), Some(principal));
        Ok(Actor { caller, principal, impersonates_by_operate, catalogue, now })
    }
}

pub(super) fn check_live(outcome: Outcome) -> Result<(), AppError> {
    match outcome {
        Outcome::Valid => Ok(()),
        Outcome::AccountSuspended => Err(AppError::AccountSuspended),
        other => Err(AppError::BadCredentials(other)),
    }
}

pub(super) fn check_impersonation(facts: &TokenFacts) -> Result<(), RuleError> {
    if facts.account_permissions.contains(SystemPermission::Impersonate.bit()) {
        Ok(())
    } else {
        Err(RuleError::missing(SystemPermission::Impersonate.name()))
    }
}

/// Returns a key as a caller, and as a principal. `named`, what it holds by name, is needed by the judges of
/// key-management calls only.
pub(crate) fn key_caller(facts: &TokenFacts, named: Named) -> (Caller, Principal) {
    let TokenFacts { key_id, expire_time, token_end_time, .. } = *facts;
    let identity = Identity::Key { key_id, expire_time, token_end_time };
    let teams = facts.team_ids.iter().map(|team| (team.clone(), facts.team_permissions)).collect();
    let held = Held { account: facts.account_permissions, teams };
    let caller = Caller { account_id: facts.account_id.clone(), identity, held, named };
    let principal = Principal { key_id: facts.key_id, account_id: facts.account_id.clone(), user_id: None };
    (caller, principal)
}

async fn user_caller(
    reader: &mut dyn Reader,
    service: &TokenFacts,
    user: &OnBehalfOf,
    catalogue: &Catalogue,
) -> Result<(Caller, Principal), AppError> {
    check_impersonation(service)?;
    let found = live_user(reader, user).await?;
    let identity = Identity::User { user_id: user.user_id.clone(), service_key_id: service.key_id };
    let held = directory::user_held(&found.roles, catalogue);
    let caller = Caller { account_id: user.account_id.clone(), identity, held, named: Named::User(found.roles) };
    let principal =
        Principal { key_id: service.key_id, account_id: user.account_id.clone(), user_id: Some(user.user_id.clone()) };
    Ok((caller, principal))
}

/// Finds a user, and checks that it may act (A2, A6).
pub(super) async fn live_user(reader: &mut dyn Reader, user: &OnBehalfOf) -> Result<UserPrincipal, AppError> {
    let found = reader.user_principal(&user.account_id, &user.user_id).await?.ok_or(AppError::BadUser)?;
    match (found.account_state, found.state) {
        (AccountState::Active, UserState::Active) => Ok(found),
        (AccountState::Suspended, _) => Err(AppError::AccountSuspended),
        (AccountState::Active | AccountState::Deleted, _) => Err(AppError::BadUser),
    }
}

// === impl Actor ===

impl Actor {
    /// Reports whether the reach of `system.operate` stands behind the call: the log says so (A3).
    pub fn break_glass(&self) -> bool {
        self.impersonates_by_operate || self.caller.as_ref().is_some_and(Caller::operates)
    }

    /// Reports whether only the reach of `system.operate` lets the caller read what a rule guards (A3).
    pub fn reads_by_operate(&self, rule: impl FnOnce(&Caller) -> Result<(), RuleError>) -> bool {
        let by_operate = |caller: &Caller| caller.operates() && rule(&caller.without_operate(&self.catalogue)).is_err();
        self.impersonates_by_operate || self.caller.as_ref().is_some_and(by_operate)
    }

    /// Refuses accounts beyond the caller's authority (A4).
    pub fn reach(&self, account: &AccountId) -> Result<(), RuleError> {
        self.caller.as_ref().map_or(Ok(()), |caller| caller.reach(account))
    }

    /// Applies a rule of authority to a caller; a requester without a caller is beyond them.
    pub fn judge(&self, rule: impl FnOnce(&Caller) -> Result<(), RuleError>) -> Result<(), RuleError> {
        self.caller.as_ref().map_or(Ok(()), rule)
    }

    /// Needs a built-in permission, for an account that is not the caller's own to know of without it.
    pub fn require(&self, permission: SystemPermission, account: Option<&AccountId>) -> Result<(), RuleError> {
        self.judge(|caller| match account {
            _ if caller.holds(permission) => Ok(()),
            Some(account) if caller.account_id != *account => Err(RuleError::NotFound(ObjectKind::Account)),
            _ => Err(RuleError::missing(permission.name())),
        })
    }
}

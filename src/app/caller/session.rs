//! Callers (A1-A6): who a bearer token is, at the request and again at the mutation's own revision.

use std::{collections::BTreeSet, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    app::{
        App,
        error::Error,
        fairness::{
            shares::Reading,
            turns::{CallerId, Payer, Turn},
        },
        ports::{Ahead, CallerState, Lane, Locks, Reader, UserPrincipal},
        propagation::barrier::Wait,
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
        token::HashedToken,
        verification::{Outcome, TokenFacts},
    },
    verify::Entry,
};

/// A caller whose token was VALID when its request came. What it may do is judged again, from the
/// store, by every use-case (M9).
#[derive(Clone)]
pub struct Session {
    /// What was last read of its token: a stream's messages renew it.
    entry: Arc<ArcSwap<Entry>>,
    /// Unlike the rest of the entry, these never change.
    key_account_id: AccountId,
    digest: HashedToken,
    on_behalf_of: Option<OnBehalfOf>,
    wait: Wait,
}

/// Who makes a change: a caller, or an operator with the database's own credentials.
#[derive(Clone)]
pub(crate) enum Maker {
    /// Through the API.
    Session(Session),
    /// Through `latchkey bootstrap` and its like: trusted as the database is.
    Local,
}

/// A caller at one revision, with what is needed to judge it.
pub(crate) struct Actor {
    /// What it holds. `None` for [`Maker::Local`].
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

// === impl Session ===

impl Session {
    /// Refuses an account beyond the caller before anything is locked for it: else whoever has a key could
    /// hold up any account. The use-case judges again under its locks (M9).
    pub(crate) fn check_reach(&self, account: &AccountId) -> Result<(), RuleError> {
        let own = self.on_behalf_of.as_ref().map_or(&self.key_account_id, |user| &user.account_id);
        if own == account || self.holds(SystemPermission::Operate) {
            Ok(())
        } else {
            Err(RuleError::NotFound(ObjectKind::Account))
        }
    }

    /// The same for a write of an account's directory.
    pub(crate) fn check_directory(&self, account: &AccountId) -> Result<(), RuleError> {
        if self.holds(SystemPermission::Directory) {
            return Ok(());
        }
        self.check_reach(account)?;
        Err(RuleError::missing(SystemPermission::Directory.name()))
    }

    /// The same for the catalogue.
    pub(crate) fn check_operate(&self) -> Result<(), RuleError> {
        let operate = SystemPermission::Operate;
        if self.holds(operate) { Ok(()) } else { Err(RuleError::missing(operate.name())) }
    }

    /// As its token was last read; acting for a user replaces it (A6). Use-cases judge again (M9).
    #[must_use]
    pub fn holds(&self, permission: SystemPermission) -> bool {
        self.on_behalf_of.is_none() && self.entry.load().facts().account_permissions.contains(permission.bit())
    }

    /// The same, with what the request says of waiting for the other replicas.
    #[must_use]
    pub fn waiting(self, wait: Wait) -> Self {
        Self { wait, ..self }
    }

    /// The same, not waiting for the other replicas if asked so.
    #[must_use]
    pub fn skipping_wait(mut self, skip: bool) -> Self {
        self.wait.skip = skip;
        self
    }

    /// Its token as last read.
    pub(crate) fn entry(&self) -> arc_swap::Guard<Arc<Entry>> {
        self.entry.load()
    }

    /// Whose share its work is taken from: the user's, if the caller acts for one.
    pub(crate) fn payer(&self) -> Payer {
        match &self.on_behalf_of {
            Some(user) => Payer::user(user),
            None => {
                Payer { account: self.key_account_id.clone(), caller: CallerId::Key(self.entry.load().facts().key_id) }
            }
        }
    }

    /// True if the caller reads every account's log: an operator's audit.
    pub(crate) fn audits(&self) -> bool {
        self.holds(SystemPermission::Events)
    }

    /// How long a mutation's answer may wait.
    pub(crate) fn wait(&self) -> Wait {
        self.wait
    }

    /// The account of its key.
    #[must_use]
    pub fn account_id(&self) -> &AccountId {
        &self.key_account_id
    }

    /// The user that the caller acts for.
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

// === impl Maker ===

impl Maker {
    /// The accounts that this maker's authority lives in.
    pub fn accounts(&self) -> BTreeSet<AccountId> {
        match self {
            Self::Local => BTreeSet::new(),
            Self::Session(session) => {
                let user = session.on_behalf_of.as_ref().map(|user| user.account_id.clone());
                std::iter::once(session.key_account_id.clone()).chain(user).collect()
            }
        }
    }

    /// How long this maker's answers may wait for the other replicas.
    pub fn wait(&self) -> Wait {
        match self {
            Self::Local => Wait::default(),
            Self::Session(session) => session.wait,
        }
    }

    /// Whose share this maker's work is taken from.
    pub fn payer(&self) -> Payer {
        match self {
            Self::Local => Payer::local(),
            Self::Session(session) => session.payer(),
        }
    }

    /// The locks of a change of one account.
    pub fn locks_on(&self, account: &AccountId) -> Locks {
        let mut shared = self.accounts();
        shared.remove(account);
        let exclusive = BTreeSet::from([account.clone()]);
        Locks { catalogue_exclusive: false, shared, exclusive, ahead: self.ahead() }
    }

    /// What [`Self::actor`] asks first.
    pub fn ahead(&self) -> Ahead {
        let caller = match self {
            Self::Local => None,
            Self::Session(session) => Some(session.digest),
        };
        Ahead { caller, ..Ahead::default() }
    }

    /// Judges the maker at the reader's revision (M9).
    ///
    /// # Errors
    /// The caller's token is not VALID now, it may not act for the user, or the user may not act.
    pub async fn actor(&self, reader: &mut dyn Reader) -> Result<Actor, Error> {
        let Self::Session(session) = self else {
            let (catalogue, now) = (reader.catalogue().await?, reader.now().await?);
            return Ok(Actor { caller: None, principal: None, impersonates_by_operate: false, catalogue, now });
        };
        let CallerState { catalogue, now, token, granted } = reader.caller(&session.digest).await?;
        let facts = token.ok_or(Error::BadCredentials(Outcome::Unknown))?;
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

fn check_live(outcome: Outcome) -> Result<(), Error> {
    match outcome {
        Outcome::Valid => Ok(()),
        Outcome::AccountSuspended => Err(Error::AccountSuspended),
        other => Err(Error::BadCredentials(other)),
    }
}

fn check_impersonation(facts: &TokenFacts) -> Result<(), RuleError> {
    if facts.account_permissions.contains(SystemPermission::Impersonate.bit()) {
        Ok(())
    } else {
        Err(RuleError::missing(SystemPermission::Impersonate.name()))
    }
}

/// A key as caller. What it holds by name is needed by judges of key-management calls only.
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
) -> Result<(Caller, Principal), Error> {
    check_impersonation(service)?;
    let found = live_user(reader, user).await?;
    let identity = Identity::User { user_id: user.user_id.clone(), service_key_id: service.key_id };
    let held = directory::user_held(&found.roles, catalogue);
    let caller = Caller { account_id: user.account_id.clone(), identity, held, named: Named::User(found.roles) };
    let principal =
        Principal { key_id: service.key_id, account_id: user.account_id.clone(), user_id: Some(user.user_id.clone()) };
    Ok((caller, principal))
}

/// A user that may act (A2, A6).
async fn live_user(reader: &mut dyn Reader, user: &OnBehalfOf) -> Result<UserPrincipal, Error> {
    let found = reader.user_principal(&user.account_id, &user.user_id).await?.ok_or(Error::BadUser)?;
    match (found.account_state, found.state) {
        (AccountState::Active, UserState::Active) => Ok(found),
        (AccountState::Suspended, _) => Err(Error::AccountSuspended),
        (AccountState::Active | AccountState::Deleted, _) => Err(Error::BadUser),
    }
}

// === impl Actor ===

impl Actor {
    /// True if the reach of `system.operate` stands behind the call: the log says so (A3).
    pub fn break_glass(&self) -> bool {
        self.impersonates_by_operate || self.caller.as_ref().is_some_and(Caller::operates)
    }

    /// True if only the reach of `system.operate` lets the caller read what a rule guards (A3).
    pub fn reads_by_operate(&self, rule: impl FnOnce(&Caller) -> Result<(), RuleError>) -> bool {
        let by_operate = |caller: &Caller| caller.operates() && rule(&caller.without_operate(&self.catalogue)).is_err();
        self.impersonates_by_operate || self.caller.as_ref().is_some_and(by_operate)
    }

    /// Refuses accounts beyond the caller's authority (A4).
    pub fn reach(&self, account: &AccountId) -> Result<(), RuleError> {
        self.caller.as_ref().map_or(Ok(()), |caller| caller.reach(account))
    }

    /// Applies a rule of authority to a caller; a local maker is beyond them.
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

// === impl App ===

impl App {
    /// Takes the caller of a request from its bearer token and the user it acts for (A6).
    ///
    /// # Errors
    /// The token is not VALID now, or it may not act for anybody, or that cannot be known.
    pub async fn authenticate(&self, bearer: &[u8], on_behalf_of: Option<OnBehalfOf>) -> Result<Session, Error> {
        self.authenticate_in(Lane::Callers, bearer, on_behalf_of).await
    }

    /// The same, looking the user up in a given lane: a call that can only take authority away waits behind no other
    /// kind.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn authenticate_in(
        &self,
        lane: Lane,
        bearer: &[u8],
        on_behalf_of: Option<OnBehalfOf>,
    ) -> Result<Session, Error> {
        let verification = self.verifier().verify(bearer, None).await?;
        check_live(verification.outcome())?;
        let entry = verification.entry().cloned().ok_or(Error::Internal("VALID without an entry"))?;
        if let Some(user) = &on_behalf_of {
            check_impersonation(entry.facts())?;
            // Judged again by the use-case: here so that who calls is known before the request is read (M8).
            live_user(self.read_as(lane, &Payer::user(user)).await?.as_mut(), user).await?;
        }
        let (key_account_id, digest) = (entry.facts().account_id.clone(), *entry.digest());
        Ok(Session {
            entry: Arc::new(ArcSwap::new(entry)),
            key_account_id,
            digest,
            on_behalf_of,
            wait: Wait::default(),
        })
    }

    /// What the caller's token is good for now: from memory while its entry stands, else read again.
    ///
    /// # Errors
    /// The token is no longer VALID, or that cannot be known.
    pub(crate) async fn current_entry(&self, session: &Session) -> Result<Arc<Entry>, Error> {
        let entry = session.entry.load_full();
        if self.verifier().still_good(&entry) {
            return Ok(entry);
        }
        let verification = self.verifier().verify_again(&entry).await?;
        check_live(verification.outcome())?;
        let entry = verification.entry().cloned().ok_or(Error::Internal("VALID without an entry"))?;
        session.entry.store(entry.clone());
        Ok(entry)
    }

    /// Checks a caller again whose message came after it was authenticated.
    ///
    /// # Errors
    /// As [`Self::authenticate`].
    pub async fn check_session(&self, session: &Session) -> Result<(), Error> {
        self.current_entry(session).await.map(drop)
    }

    /// The same, but no use of the token (K9): for what a caller is given without asking.
    pub(crate) async fn standing_entry(&self, session: &Session) -> Result<Arc<Entry>, Error> {
        let entry = session.entry.load_full();
        if self.verifier().stands(&entry) { Ok(entry) } else { self.current_entry(session).await }
    }

    /// True if the caller's entry stands as it was last read. No use of the token (K9).
    pub(crate) fn entry_stands(&self, session: &Session) -> bool {
        self.verifier().stands(&session.entry.load())
    }

    /// Opens a snapshot and judges the caller in it, when its turn to read has come.
    pub(crate) async fn open(&self, session: &Session) -> Result<(Reading, Actor), Error> {
        let mut reader = self.read_as(Lane::Reads, &session.payer()).await?;
        let actor = Maker::Session(session.clone()).actor(reader.as_mut()).await?;
        Ok((reader, actor))
    }

    /// The same for one of the caller's watches, whose turn it is.
    pub(crate) async fn open_watch(&self, session: &Session, turn: Turn) -> Result<(Reading, Actor), Error> {
        let mut reader = self.read_as_watch(turn).await?;
        let actor = Maker::Session(session.clone()).actor(reader.as_mut()).await?;
        Ok((reader, actor))
    }
}

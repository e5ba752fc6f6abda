//! Minting a key.

use async_trait::async_trait;

use super::{check_grants, log};
use crate::{
    app::{
        App,
        caller::{
            requester::{Actor, Requester},
            session::Session,
        },
        error::AppError,
        mutation::{Mutation, Plan, stamped},
        ports::{Locks, Tx},
        types::{ApiKeyDraft, Expiry, Minted},
    },
    domain::{
        Error as RuleError, ObjectKind,
        api_key::{ApiKey, ApiKeyContent, ApiKeyState},
        authority,
        directory::{Account, AccountState},
        id::{AccountId, TeamId},
        log::{event::EventKind, revision::Revision},
        permissions::grants::Grants,
        time::Timestamp,
        token::PlainToken,
    },
};

pub(crate) struct CreateApiKey {
    app: App,
    requester: Requester,
    account: AccountId,
    draft: ApiKeyDraft,
    validate_only: bool,
}

impl App {
    /// Mints a key (M1, M2, M4, M5; K3's quotas).
    ///
    /// # Errors
    /// In the order of M8: authority, state, quota.
    pub async fn create_api_key(
        &self,
        session: &Session,
        account: &AccountId,
        draft: ApiKeyDraft,
        validate_only: bool,
    ) -> Result<Minted, AppError> {
        session.check_reach(account)?;
        self.mint(Requester::Session(session.clone()), account, draft, validate_only).await
    }

    /// Mints a key for an operator with the database's own credentials: `latchkey bootstrap`, the only
    /// way to a key that holds `system.operate` (A4).
    ///
    /// # Errors
    /// Against the state only.
    pub async fn bootstrap(&self, draft: ApiKeyDraft) -> Result<Minted, AppError> {
        self.mint(Requester::Local, &AccountId::system(), draft, false).await
    }

    async fn mint(
        &self,
        requester: Requester,
        account: &AccountId,
        draft: ApiKeyDraft,
        validate_only: bool,
    ) -> Result<Minted, AppError> {
        let create = CreateApiKey { app: self.clone(), requester, account: account.clone(), draft, validate_only };
        let done = self.run(create, validate_only).await?;
        let (mut key, token) = done.output;
        key.revision = stamped(&done.revisions, key.revision);
        Ok(Minted { key, token, propagation: done.propagation })
    }
}

#[async_trait]
impl Mutation for CreateApiKey {
    type Output = (ApiKey, Option<PlainToken>);
    const NAME: &'static str = "create_api_key";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    fn locks(&self) -> Locks {
        let mut locks = self.requester.locks_on(self.account());
        locks.prefetch.account = Some(self.account.clone());
        if let Some(scope) = &self.draft.grants.team_scope {
            locks.prefetch.teams = scope.team_ids().clone();
        }
        locks
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let actor = self.requester.actor(tx).await?;
        actor.reach(&self.account)?;
        let content = ApiKeyContent {
            name: self.draft.name.clone(),
            comment: self.draft.comment.clone(),
            metadata: self.draft.metadata.clone(),
            grants: self.draft.grants.clone(),
            expire_time: expire_time(self.draft.expiry, actor.now),
        };
        actor.judge(|caller| authority::check_create(caller, &content.subject(), &actor.catalogue))?;
        let account = check_account(tx, &self.account).await?;
        check_grants(tx, &actor, &self.account, &content.grants, &Grants::default()).await?;
        check_future(self.draft.expiry, actor.now)?;
        if actor.caller.is_some() {
            // Not for an operator with the database's credentials: bootstrap must work even when the account is full.
            self.app.check_account_quotas(&account)?;
        }
        let teams = content.grants.team_scope.iter().flat_map(|scope| scope.team_ids());
        self.app.check_team_quotas(tx, &self.account, teams).await?;
        let (token, secret) = self.app.minter().token(tx).await?;
        let key = new_key(self.app.minter().key_id(actor.now), &self.account, content, token.hint(), &actor);
        if self.validate_only {
            return Ok(Plan::unchanged((key, None)));
        }
        tx.insert_api_key(&key, &secret).await?;
        let append = log::event(EventKind::ApiKeyCreated, &actor, None, &key);
        Ok(Plan::one((key, Some(token)), append))
    }
}

fn new_key(
    key_id: crate::domain::id::KeyId,
    account: &AccountId,
    content: ApiKeyContent,
    token_hint: String,
    actor: &Actor,
) -> ApiKey {
    ApiKey {
        key_id,
        account_id: account.clone(),
        content,
        state: ApiKeyState::Active,
        token_hint,
        creator: actor.principal.clone(),
        create_time: actor.now,
        update_time: actor.now,
        delete_time: None,
        rotate_time: actor.now,
        retiring_end_time: None,
        current_token_last_used_time: None,
        retiring_token_last_used_time: None,
        last_used_time: None,
        revision: Revision { epoch: 0, number: 0 },
    }
}

/// Returns an account, having checked that it exists and is not deleted.
async fn check_account(reader: &mut dyn Tx, account: &AccountId) -> Result<Account, AppError> {
    match reader.account(account).await? {
        Some(found) if found.state != AccountState::Deleted => Ok(found),
        _ => Err(RuleError::NotFound(ObjectKind::Account).into()),
    }
}

/// Returns the moment at which a key expires whose expiry is set at `now`.
pub(super) fn expire_time(expiry: Expiry, now: Timestamp) -> Option<Timestamp> {
    match expiry {
        Expiry::Never => None,
        Expiry::At(time) => Some(time),
        Expiry::In(span) => Some(now.saturating_add(span)),
    }
}

/// Checks that an expiry lies in the future.
pub(super) fn check_future(expiry: Expiry, now: Timestamp) -> Result<(), RuleError> {
    match expiry {
        Expiry::At(time) if time <= now => Err(RuleError::field("api_key.expire_time", "must lie in the future")),
        _ => Ok(()),
    }
}

impl App {
    /// Refuses a key beyond the account's quotas (K3), of keys and of deleted ones on record: creating and deleting
    /// without end meets the second. Deleting is never refused.
    fn check_account_quotas(&self, account: &Account) -> Result<(), RuleError> {
        let limits = self.limits();
        for (quota, count, limit) in [
            ("api_keys_per_account", account.api_key_count, limits.api_keys_per_account_max),
            ("deleted_api_keys_per_account", account.deleted_api_key_count, limits.deleted_api_keys_per_account_max),
        ] {
            if count >= limit {
                return Err(RuleError::QuotaExceeded { quota, limit });
            }
        }
        Ok(())
    }

    /// Checks the quota of keys per team, if there is one (K3): judged for teams that a key is about to join.
    pub(super) async fn check_team_quotas(
        &self,
        reader: &mut dyn Tx,
        account: &AccountId,
        teams: impl Iterator<Item = &TeamId> + Send,
    ) -> Result<(), AppError> {
        let Some(limit) = self.limits().api_keys_per_team_max else { return Ok(()) };
        for team in teams {
            if reader.api_keys_on_team(account, team, limit).await? >= limit {
                return Err(RuleError::QuotaExceeded { quota: "api_keys_per_team", limit }.into());
            }
        }
        Ok(())
    }
}

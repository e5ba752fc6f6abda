//! Disabling, enabling, deleting (K6).

use async_trait::async_trait;

use super::{load_visible, log};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag, stamped},
        ports::{Lane, Tx},
        types::{Changed, Guard, StateChange},
    },
    domain::{
        api_key::{ApiKey, ApiKeyState},
        authority,
        id::{AccountId, KeyId},
        log::event::EventKind,
    },
};

struct ChangeState {
    app: App,
    requester: Requester,
    account: AccountId,
    key: KeyId,
    change: StateChange,
    guard: Guard,
}

impl App {
    /// Disables, enables or deletes a key. Repeating it succeeds and appends nothing (K6).
    ///
    /// # Errors
    /// In the order of M8: visibility, authority, state, etag.
    pub async fn change_api_key_state(
        &self,
        session: &Session,
        account: &AccountId,
        key: KeyId,
        change: StateChange,
        guard: Guard,
    ) -> Result<Changed<ApiKey>, AppError> {
        session.check_reach(account)?;
        self.change_state(Requester::Session(session.clone()), account, key, change, guard).await
    }

    /// Deletes a key of account `system` for an operator with the database's own credentials.
    ///
    /// # Errors
    /// The key is not there, or the store failed.
    pub async fn delete_bootstrapped(&self, key: KeyId) -> Result<(), AppError> {
        let account = AccountId::system();
        self.change_state(Requester::Local, &account, key, StateChange::Delete, Guard::default()).await.map(|_| ())
    }

    async fn change_state(
        &self,
        requester: Requester,
        account: &AccountId,
        key: KeyId,
        change: StateChange,
        guard: Guard,
    ) -> Result<Changed<ApiKey>, AppError> {
        let validate_only = guard.validate_only;
        let done = self
            .run(
                ChangeState { app: self.clone(), requester, account: account.clone(), key, change, guard },
                validate_only,
            )
            .await?;
        let mut key = done.output;
        key.revision = stamped(&done.revisions, key.revision);
        Ok(Changed { value: key, propagation: done.propagation })
    }
}

#[async_trait]
impl Mutation for ChangeState {
    type Output = ApiKey;
    const NAME: &'static str = "change_api_key_state";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        match self.change {
            StateChange::Disable | StateChange::Delete => Lane::Narrowing,
            StateChange::Enable => Lane::Mutations,
        }
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<ApiKey>, AppError> {
        let actor = self.requester.actor(tx).await?;
        let before = load_visible(tx, &actor, &self.account, self.key).await?;
        let subject = before.content.subject();
        actor.judge(|caller| match self.change {
            StateChange::Enable => authority::check_enable(caller, self.key, &subject, &actor.catalogue),
            StateChange::Disable | StateChange::Delete => authority::check_narrow(caller, &subject, &actor.catalogue),
        })?;
        let (kind, state) = self.change.leads_to();
        if self.guard.validate_only || before.state == state {
            self.app.trace_key_read(&actor, &self.account, Self::NAME);
        }
        if before.state == state {
            return Ok(Plan::unchanged(before.shown_at(actor.now)));
        }
        if state != ApiKeyState::Deleted {
            before.check_not_deleted()?;
        }
        check_etag(&self.guard, Some(before.revision))?;
        let delete_time = (state == ApiKeyState::Deleted).then_some(actor.now);
        let after = ApiKey { state, delete_time, update_time: actor.now, ..before.clone() };
        tx.update_api_key(&before, &after).await?;
        let append = log::event(kind, &actor, Some(&before), &after);
        Ok(Plan::one(after.shown_at(actor.now), append))
    }
}

impl StateChange {
    fn leads_to(self) -> (EventKind, ApiKeyState) {
        match self {
            Self::Disable => (EventKind::ApiKeyDisabled, ApiKeyState::Disabled),
            Self::Enable => (EventKind::ApiKeyEnabled, ApiKeyState::Active),
            Self::Delete => (EventKind::ApiKeyDeleted, ApiKeyState::Deleted),
        }
    }
}

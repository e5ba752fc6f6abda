//! Rotating a key (K8): the id stays, a new token is minted, the previous one retires.

use async_trait::async_trait;

use super::{load, log};
use crate::{
    app::{
        App,
        caller::{requester::Requester, session::Session},
        error::AppError,
        mutation::{Mutation, Plan, check_etag, stamped},
        ports::Tx,
        types::{Guard, Minted},
    },
    domain::{
        Error as RuleError,
        api_key::ApiKey,
        authority,
        id::{AccountId, KeyId},
        log::event::EventKind,
        time::Span,
        token::PlainToken,
    },
};

struct RotateApiKey {
    app: App,
    requester: Requester,
    account: AccountId,
    key: KeyId,
    grace: Span,
    guard: Guard,
}

impl App {
    /// Rotates a key: judged on its whole authority, since it returns a token (M4-M6).
    ///
    /// # Errors
    /// In the order of M8: visibility, authority, state, etag.
    pub async fn rotate_api_key(
        &self,
        session: &Session,
        account: &AccountId,
        key: KeyId,
        grace: Span,
        guard: Guard,
    ) -> Result<Minted, AppError> {
        session.check_reach(account)?;
        let validate_only = guard.validate_only;
        let requester = Requester::Session(session.clone());
        let rotate = RotateApiKey { app: self.clone(), requester, account: account.clone(), key, grace, guard };
        let done = self.run(rotate, validate_only).await?;
        let (mut key, token) = done.output;
        key.revision = stamped(&done.revisions, key.revision);
        Ok(Minted { key, token, propagation: done.propagation })
    }
}

#[async_trait]
impl Mutation for RotateApiKey {
    type Output = (ApiKey, Option<PlainToken>);
    const NAME: &'static str = "rotate_api_key";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError> {
        let actor = self.requester.actor(tx).await?;
        // Not `load_visible`: a key may rotate itself without viewing itself (M6).
        let before = load(tx, &actor, &self.account, self.key).await?;
        let subject = before.content.subject();
        actor.judge(|caller| authority::check_rotate(caller, self.key, &subject, self.grace, &actor.catalogue))?;
        before.check_rotatable(actor.now)?;
        check_etag(&self.guard, Some(before.revision))?;
        let limit = self.app.limits().tokens_per_api_key_max;
        if tx.tokens_of_api_key(self.key, limit).await? >= limit {
            return Err(RuleError::QuotaExceeded { quota: "tokens_per_api_key", limit }.into());
        }
        if self.guard.validate_only {
            self.app.trace_key_read(&actor, &self.account, Self::NAME);
            return Ok(Plan::unchanged((before.shown_at(actor.now), None)));
        }
        let (token, secret) = self.app.minter().token(tx).await?;
        let retiring_end = before.retiring_end(actor.now, self.grace);
        let after = ApiKey {
            token_hint: token.hint(),
            update_time: actor.now,
            rotate_time: actor.now,
            retiring_end_time: Some(retiring_end),
            current_token_last_used_time: None,
            retiring_token_last_used_time: before.current_token_last_used_time,
            ..before.clone()
        };
        tx.rotate_api_key(&after, &secret, actor.now, retiring_end).await?;
        let append = log::event(EventKind::ApiKeyRotated, &actor, Some(&before), &after);
        Ok(Plan::one((after.shown_at(actor.now), Some(token)), append))
    }
}

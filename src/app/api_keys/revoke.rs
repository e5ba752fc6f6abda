//! What tokens do to themselves: RevokeToken, and the note that an ended one was presented (K8).

use async_trait::async_trait;

use super::log;
use crate::{
    app::{
        App,
        caller::requester::Requester,
        error::AppError,
        mutation::{Mutation, Plan},
        ports::{Append, Lane, Stamp, Tx},
        propagation::wait::Wait,
        types::Propagation,
    },
    domain::{
        Error as RuleError, ObjectKind,
        api_key::{ApiKey, ApiKeyState},
        authority::TokenRole,
        id::{AccountId, KeyId},
        log::event::{EventKind, Principal},
        time::{Span, Timestamp},
        token::HashedToken,
        verification::{Outcome, TokenFacts},
    },
};

struct RevokeToken {
    requester: Requester,
    account: AccountId,
    key: KeyId,
    digest: HashedToken,
}

/// Notes that a token was presented after its end: at most one event a token and hour (K8), and of an account's tokens
/// no more in all than [`crate::verify::usage`] lets through.
pub(crate) struct RecordPresented {
    pub account: AccountId,
    pub key: KeyId,
    pub digest: HashedToken,
}

impl App {
    /// Revokes the bearer token itself: the current one deletes the key, a retiring one ends only
    /// itself. In any state, in a suspended account too, and again without an event: a token that is known to have
    /// ended costs no transaction.
    ///
    /// # Errors
    /// [`AppError::BadCredentials`] for what is not a token on record.
    pub async fn revoke_token(&self, bearer: &[u8], wait: Wait) -> Result<Propagation, AppError> {
        let verification = self.verifier().verify(bearer, None).await?;
        let Some(entry) = verification.entry() else { return Err(AppError::BadCredentials(verification.outcome())) };
        let facts = entry.facts();
        if !verification.stale() && self.has_ended(verification.outcome(), facts) {
            return self.propagate_head(wait).await;
        }
        let (account, key) = (facts.account_id.clone(), facts.key_id);
        let principal = Principal { key_id: key, account_id: account.clone(), user_id: None };
        let requester = Requester::Bearer { principal, wait };
        let revoke = RevokeToken { requester, account, key, digest: *entry.digest() };
        Ok(self.run(revoke, false).await?.propagation)
    }

    /// Reports whether a token has ended everywhere, and for good: its key is deleted, or its own end is so long ago
    /// that no replica's estimate of the time lies before it (V3).
    fn has_ended(&self, outcome: Outcome, facts: &TokenFacts) -> bool {
        let lease = i64::try_from(self.limits().lease.as_micros()).ok().and_then(Span::from_micros);
        let now = self.verifier().database_time();
        let long_ago = |end: Timestamp| lease.zip(now).is_some_and(|(lease, now)| end.saturating_add(lease) < now);
        match outcome {
            Outcome::Deleted => true,
            Outcome::Rotated => facts.token_end_time.is_some_and(long_ago),
            _ => false,
        }
    }
}

async fn load(tx: &mut dyn Tx, account: &AccountId, key: KeyId) -> Result<ApiKey, AppError> {
    Ok(tx.api_key(account, key).await?.ok_or(RuleError::NotFound(ObjectKind::ApiKey))?)
}

#[async_trait]
impl Mutation for RevokeToken {
    type Output = ();
    const NAME: &'static str = "revoke_token";

    fn requester(&self) -> &Requester {
        &self.requester
    }

    fn lane(&self) -> Lane {
        Lane::Narrowing
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let facts = tx.token(&self.digest).await?.ok_or(AppError::BadCredentials(Outcome::Unknown))?;
        let before = load(tx, &self.account, self.key).await?;
        let actor = self.requester.actor(tx).await?;
        if matches!(facts.outcome(actor.now, None), Outcome::Deleted | Outcome::Rotated) {
            return Ok(Plan::unchanged(()));
        }
        let mut after = ApiKey { update_time: actor.now, ..before.clone() };
        let kind = match facts.role() {
            TokenRole::Current => {
                (after.state, after.delete_time) = (ApiKeyState::Deleted, Some(actor.now));
                EventKind::ApiKeyRevoked
            }
            TokenRole::Retiring => {
                after.retiring_end_time = Some(actor.now);
                tx.end_retiring_tokens(self.key, actor.now).await?;
                EventKind::RetiringTokenRevoked
            }
        };
        tx.update_api_key(&before, &after).await?;
        Ok(Plan::one((), log::event(kind, &actor, Some(&before), &after)))
    }
}

#[async_trait]
impl Mutation for RecordPresented {
    type Output = ();
    const NAME: &'static str = "record_presented";

    fn requester(&self) -> &Requester {
        &Requester::Upkeep
    }

    fn account(&self) -> Option<&AccountId> {
        Some(&self.account)
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, AppError> {
        let key = load(tx, &self.account, self.key).await?;
        // The bearer was refused: Latchkey itself makes the note.
        let actor = self.requester().actor(tx).await?;
        if !tx.note_presented(&self.digest, actor.now).await? {
            return Ok(Plan::unchanged(()));
        }
        let draft = log::draft(EventKind::RotatedTokenPresented, &actor, &key, Vec::new());
        // The key did not change: its etag stays.
        Ok(Plan::one((), Append { draft, stamps: Vec::<Stamp>::new() }))
    }
}

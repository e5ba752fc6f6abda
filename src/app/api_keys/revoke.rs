//! What tokens do to themselves: RevokeToken, and the note that an ended one was presented (K8).

use async_trait::async_trait;

use super::log;
use crate::{
    app::{
        App,
        caller::session::Actor,
        error::Error,
        fairness::turns::{CallerId, Payer},
        mutation::{Mutation, Plan},
        ports::{Append, Lane, Locks, Stamp, Tx},
        propagation::barrier::Wait,
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
    account: AccountId,
    key: KeyId,
    digest: HashedToken,
    wait: Wait,
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
    /// [`Error::BadCredentials`] for what is not a token on record.
    pub async fn revoke_token(&self, bearer: &[u8], wait: Wait) -> Result<Propagation, Error> {
        let verification = self.verifier().verify(bearer, None).await?;
        let Some(entry) = verification.entry() else { return Err(Error::BadCredentials(verification.outcome())) };
        let facts = entry.facts();
        if !verification.stale() && self.has_ended(verification.outcome(), facts) {
            return self.propagate_head(wait).await;
        }
        let revoke =
            RevokeToken { account: facts.account_id.clone(), key: facts.key_id, digest: *entry.digest(), wait };
        Ok(self.run(revoke, false).await?.propagation)
    }

    /// True if a token has ended everywhere, and for good: its key is deleted, or its own end is so long ago that no
    /// replica's estimate of the time lies before it (V3).
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

fn locks_on(account: &AccountId) -> Locks {
    Locks { exclusive: [account.clone()].into(), ..Locks::default() }
}

async fn load(tx: &mut dyn Tx, account: &AccountId, key: KeyId) -> Result<(ApiKey, Actor), Error> {
    let found = tx.api_key(account, key).await?.ok_or(RuleError::NotFound(ObjectKind::ApiKey))?;
    let principal = Principal { key_id: key, account_id: account.clone(), user_id: None };
    let (catalogue, now) = (tx.catalogue().await?, tx.now().await?);
    Ok((found, Actor { caller: None, principal: Some(principal), impersonates_by_operate: false, catalogue, now }))
}

#[async_trait]
impl Mutation for RevokeToken {
    type Output = ();
    const NAME: &'static str = "revoke_token";

    fn payer(&self) -> Payer {
        Payer { account: self.account.clone(), caller: CallerId::Key(self.key) }
    }

    fn lane(&self) -> Lane {
        Lane::Narrowing
    }

    fn locks(&self) -> Locks {
        locks_on(&self.account)
    }

    fn wait(&self) -> Wait {
        self.wait
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, Error> {
        let facts = tx.token(&self.digest).await?.ok_or(Error::BadCredentials(Outcome::Unknown))?;
        let (before, actor) = load(tx, &self.account, self.key).await?;
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

    fn payer(&self) -> Payer {
        Payer::local()
    }

    fn lane(&self) -> Lane {
        Lane::Upkeep
    }

    fn locks(&self) -> Locks {
        locks_on(&self.account)
    }

    fn wait(&self) -> Wait {
        Wait::NONE
    }

    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<()>, Error> {
        let (key, mut actor) = load(tx, &self.account, self.key).await?;
        // Whoever presented it did not get in: Latchkey itself made the note.
        actor.principal = None;
        if !tx.note_presented(&self.digest, actor.now).await? {
            return Ok(Plan::unchanged(()));
        }
        let draft = log::draft(EventKind::RotatedTokenPresented, &actor, &key, Vec::new());
        // The key did not change: its etag stays.
        Ok(Plan::one((), Append { draft, stamps: Vec::<Stamp>::new() }))
    }
}

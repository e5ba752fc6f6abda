//! Verifying tokens for services that hold `system.verify`.

use std::time::Duration;

use tokio::time::Instant;

use super::{App, caller::session::Session, error::AppError};
use crate::{
    domain::{
        Error as RuleError,
        id::{AccountId, TeamId},
        log::revision::Revision,
        permissions::permission::{Bit, PermissionSet, SystemPermission},
        verification::{Outcome, Requirement},
    },
    verify::{CacheReader, Cached, LookupBuffer, Memory, Verification, Verifier},
};

/// How long a verification waits at most for its `min_revision`.
const MIN_REVISION_WAIT_MAX: Duration = Duration::from_secs(1);

/// How often an idle stream checks whether its caller's authority has ended by time alone.
const DEADLINE_CHECK_PERIOD: Duration = Duration::from_secs(1);

/// What memory says to a caller who may verify tokens: see [`Memory`]. What it cannot answer is for the other ways in,
/// which ask the database and explain refusals.
pub struct FromMemory<'a> {
    verifier: &'a Verifier,
    memory: Memory<'a>,
}

impl<'a> FromMemory<'a> {
    /// Returns the bit of a permission, if its name is known here.
    #[must_use]
    pub fn permission(&self, name: &str) -> Option<Bit> {
        self.verifier.known_bit(name)
    }

    /// Returns the memory that answers.
    #[must_use]
    pub fn memory(&self) -> &Memory<'a> {
        &self.memory
    }
}

/// Reports whether these permissions include the one that verifying needs.
fn allows_verifying(account_permissions: &PermissionSet) -> bool {
    account_permissions.contains(SystemPermission::Verify.bit())
}

impl App {
    /// Returns a reader of the cache, to prefetch tokens before their caller is verified.
    #[must_use]
    pub fn cache_reader(&self) -> CacheReader<'_> {
        self.verifier().cache_reader()
    }

    /// Returns the memory to answer a bearer from; `None` unless memory knows that the bearer may verify.
    #[must_use]
    pub fn verify_from_memory<'a>(&'a self, reader: CacheReader<'a>, bearer: &[u8]) -> Option<FromMemory<'a>> {
        let verifier = self.verifier();
        let bearer = reader.prefetch(bearer);
        let (memory, mut buffer) = (reader.now()?, LookupBuffer::default());
        let caller = memory.answer(&bearer, None::<&Requirement>, &mut buffer)?;
        let holds = caller.cached().is_some_and(|cached| allows_verifying(cached.account_permissions().permissions()));
        let may = caller.outcome() == Outcome::Valid && holds;
        may.then_some(FromMemory { verifier, memory })
    }

    /// Reports whether memory knows a bearer as one who may verify: then its message may be read. The bearer is looked
    /// up again once the message is there, and only that look-up is counted.
    #[must_use]
    pub fn is_known_verifier(&self, bearer: &[u8]) -> bool {
        let reader = self.cache_reader();
        let bearer = reader.prefetch(bearer);
        let Some(memory) = reader.now() else { return false };
        let mut buffer = LookupBuffer::default();
        memory.peek(&bearer, &mut buffer).is_some_and(|caller| {
            let holds = |cached: &Cached<'_>| allows_verifying(cached.account_permissions().permissions());
            caller.outcome() == Outcome::Valid && caller.cached().is_some_and(holds)
        })
    }

    /// Does as [`Self::verify_from_memory`] for a caller who was authenticated, and whose message is in hand: the
    /// caller is checked again, by its entry. Counts as a use of its token.
    #[must_use]
    pub fn session_from_memory<'a>(&'a self, reader: CacheReader<'a>, session: &Session) -> Option<FromMemory<'a>> {
        let verifier = self.verifier();
        let memory = reader.now()?;
        let entry = session.entry();
        let may = allows_verifying(&entry.facts().account_permissions) && memory.still_good(&entry);
        may.then_some(FromMemory { verifier, memory })
    }

    /// Checks that the caller may verify tokens now: for every request and every message of a stream.
    ///
    /// # Errors
    /// The caller's token is no longer VALID, or lacks `system.verify`.
    pub async fn may_verify(&self, session: &Session) -> Result<(), AppError> {
        let entry = self.current_entry(session).await?;
        if allows_verifying(&entry.facts().account_permissions) {
            Ok(())
        } else {
            Err(RuleError::missing(SystemPermission::Verify.name()).into())
        }
    }

    /// Completes once the caller's authority to verify has ended: for open streams. An outage does not
    /// end it: each message finds that out for itself.
    pub async fn session_ended(&self, session: &Session) {
        let mut changes = self.verifier().applied_changes();
        loop {
            if !self.entry_stands(session)
                && let Err(ended) = self.may_verify(session).await
                && !matches!(ended, AppError::Store(_) | AppError::Overloaded)
            {
                return;
            }
            // Withdrawals come with an event, deadlines with time.
            let _ = tokio::time::timeout(DEADLINE_CHECK_PERIOD, changes.changed()).await;
        }
    }

    /// Looks up what a requirement names.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming `field`.permission for a name that is not in the catalogue.
    pub async fn requirement(
        &self,
        field: &str,
        account: &AccountId,
        permission: &str,
        team_ids: Vec<TeamId>,
    ) -> Result<Requirement, AppError> {
        let mut bit = self.verifier().catalogue().known_bit(permission);
        if bit.is_none() {
            // This replica may not have applied the catalogue yet that has the name.
            bit = self.verifier().refresh_catalogue().await?.known_bit(permission);
        }
        let unknown = || RuleError::field(format!("{field}.permission"), "is not in the catalogue");
        Ok(Requirement { account_id: account.clone(), permission: bit.ok_or_else(unknown)?, team_ids })
    }

    /// Waits for the revision that a verification is to be judged on at least, if its caller names one.
    ///
    /// # Errors
    /// [`AppError::RevisionNotReached`], before the caller gives up: the call may be retried.
    pub async fn await_min_revision(&self, session: &Session, min_revision: Option<Revision>) -> Result<(), AppError> {
        let Some(revision) = min_revision else { return Ok(()) };
        let wait = session.wait().at_most(MIN_REVISION_WAIT_MAX).saturating_duration_since(Instant::now());
        self.verifier().await_revision(revision, wait).await.map_err(|_| AppError::RevisionNotReached)
    }

    /// Verifies one token.
    ///
    /// # Errors
    /// Only when the answer cannot be known.
    pub async fn verify(&self, token: &[u8], requirement: Option<&Requirement>) -> Result<Verification, AppError> {
        Ok(self.verifier().verify(token, requirement).await?)
    }
}

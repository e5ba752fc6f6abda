//! How a mutation runs: one transaction, locked, judged, changed, appended, committed, and retried
//! when it lost a conflict.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    App,
    caller::requester::Requester,
    error::{AppError, StoreError},
    fairness::shares::MutationPermit,
    ports::{Append, Lane, Locks, Tx},
    types::Propagation,
};
use crate::domain::{
    Error as RuleError,
    id::AccountId,
    log::{event::EventKind, revision::Revision},
};

/// How often a mutation is tried in all.
const ATTEMPTS_MAX: u32 = 6;
/// The first pause between two tries; it doubles.
const PAUSE_MS_MIN: u64 = 2;
/// How long a committed mutation waits at most for its own replica to apply it.
const LOCAL_APPLY_WAIT_MAX: Duration = Duration::from_secs(2);

/// A change of the store, as a value: it can be run again.
#[async_trait]
pub(super) trait Mutation: Send + Sync + 'static {
    /// What it answers with.
    type Output: Send + 'static;
    /// Its name in spans and metrics.
    const NAME: &'static str;

    /// Returns its requester, who decides whose share it takes, what it locks and what it waits for.
    fn requester(&self) -> &Requester;

    /// Returns the account that it changes, which is locked for it alone.
    fn account(&self) -> Option<&AccountId>;

    /// Returns the lane whose connections it runs on. [`Lane::Narrowing`] is for a mutation that is known, before it
    /// runs, to only take authority away: it overtakes those that wait to grant some.
    fn lane(&self) -> Lane {
        match self.requester() {
            Requester::Upkeep => Lane::Upkeep,
            Requester::Session(_) | Requester::Bearer { .. } | Requester::Local => Lane::Mutations,
        }
    }

    /// Returns what it locks before it judges.
    fn locks(&self) -> Locks {
        self.requester().locks_on(self.account())
    }

    /// Judges and changes, under the locks (M9). Must not keep anything from an earlier run.
    async fn apply(&self, tx: &mut dyn Tx) -> Result<Plan<Self::Output>, AppError>;
}

/// What a mutation decided.
pub(super) struct Plan<T> {
    /// What to answer.
    pub output: T,
    /// One event for each object that changed; none if nothing did.
    pub appends: Vec<Append>,
    /// An object was as asked for already: the call may repeat one whose change is still travelling.
    pub repeats: bool,
}

impl<T> Plan<T> {
    /// Plans no change (an idempotent repeat, an unchanged upsert).
    pub fn unchanged(output: T) -> Self {
        Self { output, appends: Vec::new(), repeats: true }
    }

    /// Plans one event.
    pub fn one(output: T, append: Append) -> Self {
        Self { output, appends: vec![append], repeats: false }
    }
}

/// A mutation that is done.
pub(super) struct Committed<T> {
    /// What to answer.
    pub output: T,
    /// The revisions of its events, in their order.
    pub revisions: Vec<Revision>,
    /// How far they travelled.
    pub propagation: Propagation,
}

/// What an attempt committed, or found nothing to commit.
struct Attempted<T> {
    output: T,
    revisions: Vec<Revision>,
    revision: Revision,
    /// An event among them, or an earlier one that the call repeats, may have taken authority away.
    narrows: bool,
    /// A replica may have remembered what an event among them changes.
    remembered: bool,
}

impl App {
    /// Runs a mutation to its end, then waits for the other replicas if it can have taken authority
    /// away. Until its turn comes it waits in the caller's own future: a call that was given up never begins. Once it
    /// has begun, a caller that goes away does not stop it half-way: the commit and the wait for this replica
    /// happen in a task of their own, on the runtime of the store's connections: a transaction is a dozen
    /// questions and answers, each of which would else wake a thread.
    ///
    /// # Errors
    /// Whatever the mutation refuses; `ShareExceeded`; `Unavailable` and `OutcomeUnknown` from the store.
    pub(super) async fn run<M: Mutation>(
        &self,
        mutation: M,
        validate_only: bool,
    ) -> Result<Committed<M::Output>, AppError> {
        let (app, wait) = (self.clone(), mutation.requester().wait());
        // What changes nothing takes nothing away either.
        let lane = match mutation.lane() {
            Lane::Narrowing if validate_only => Lane::Mutations,
            lane => lane,
        };
        let admitted = self.admit(lane, &mutation.requester().payer(), &mutation.locks()).await?;
        let span = tracing::debug_span!("mutation", name = M::NAME);
        let work = async move { app.carry_out(&mutation, lane, validate_only, admitted).await };
        let task = tracing::Instrument::instrument(work, span);
        let done =
            self.store().runtime().spawn(task).await.map_err(|_| AppError::Internal("a mutation panicked"))??;
        let Attempted { output, revisions, revision, narrows, remembered: _ } = done;
        let propagation = if narrows && !validate_only {
            self.propagate(revision, wait).await
        } else {
            // No authority was taken away: there is no earlier authority that a replica could answer on.
            Propagation { complete: !validate_only, revision, pending_replicas: 0 }
        };
        Ok(Committed { output, revisions, propagation })
    }

    async fn carry_out<M: Mutation>(
        &self,
        mutation: &M,
        lane: Lane,
        validate_only: bool,
        admitted: MutationPermit,
    ) -> Result<Attempted<M::Output>, AppError> {
        let done = self.retry(mutation, lane, validate_only).await;
        // The transaction is over: what follows waits for no database.
        drop(admitted);
        let done = done?;
        if done.remembered && self.verifier().applied().is_some() {
            // So that the next verification here sees the change; without a follower there is none. It is woken by
            // the commit's notification too, but that is only a hint.
            let wait = mutation.requester().wait();
            let most = if wait.skip { Duration::ZERO } else { LOCAL_APPLY_WAIT_MAX };
            self.verifier().await_number(done.revision.number, wait.at_most(most)).await;
        }
        Ok(done)
    }

    async fn retry<M: Mutation>(
        &self,
        mutation: &M,
        lane: Lane,
        validate_only: bool,
    ) -> Result<Attempted<M::Output>, AppError> {
        let started = Instant::now();
        let mut notify = true;
        let mut attempt = 1;
        loop {
            let result = self.attempt(mutation, lane, validate_only, notify).await;
            match &result {
                Err(AppError::Store(StoreError::Conflict(_))) if attempt < ATTEMPTS_MAX => {}
                Err(AppError::Store(StoreError::NotifyFailed(_))) if notify => notify = false,
                _ => {
                    self.observer().mutation(M::NAME, result.is_ok(), attempt - 1, started.elapsed());
                    return result;
                }
            }
            tracing::debug!(attempt, "the mutation is tried again");
            tokio::time::sleep(Duration::from_millis(PAUSE_MS_MIN << attempt)).await;
            attempt += 1;
        }
    }

    async fn attempt<M: Mutation>(
        &self,
        mutation: &M,
        lane: Lane,
        validate_only: bool,
        notify: bool,
    ) -> Result<Attempted<M::Output>, AppError> {
        let mut tx = self.store().begin(lane, M::NAME, notify, &mutation.locks()).await?;
        let plan = match mutation.apply(tx.as_mut()).await {
            Ok(plan) => plan,
            Err(refused) => {
                // The connection is worth keeping; if it is broken, the refusal still stands.
                let _ = tx.rollback().await;
                return Err(refused);
            }
        };
        if validate_only || plan.appends.is_empty() {
            let revision = tx.head().await?;
            tx.rollback().await?;
            // A repeated delete or disable waits again (K6), for the current head.
            let revisions = Vec::new();
            return Ok(Attempted { output: plan.output, revisions, revision, narrows: true, remembered: false });
        }
        let any = |is: fn(EventKind) -> bool| plan.appends.iter().any(|append| is(append.draft.kind));
        let narrows = plan.repeats || any(EventKind::can_narrow);
        let remembered = any(EventKind::can_be_remembered);
        let revisions = tx.append(plan.appends).await?;
        tx.commit().await?;
        let revision = revisions.last().copied().ok_or(AppError::Internal("an append without revisions"))?;
        Ok(Attempted { output: plan.output, revisions, revision, narrows, remembered })
    }
}

/// Checks the etag that the caller sent, after everything else about the state (M8), and only if something is
/// to change: the retry of a call that succeeded carries the etag from before it, and waits again.
pub(super) fn check_etag(guard: &super::types::Guard, current: Option<Revision>) -> Result<(), RuleError> {
    match (&guard.etag, current) {
        (Some(etag), Some(revision)) if !etag.matches(revision) => Err(RuleError::StaleEtag),
        (Some(_), None) => Err(RuleError::StaleEtag),
        _ => Ok(()),
    }
}

/// Returns the revision that the mutation's only event gave its object, or the one it had before.
pub(super) fn stamped(revisions: &[Revision], before: Revision) -> Revision {
    revisions.first().copied().unwrap_or(before)
}

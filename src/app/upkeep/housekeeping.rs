//! What runs beside requests: usage marks, notes of ended tokens and of operators' reads, forgetting old digests,
//! erasing old deleted keys, purging what large deletions left, evicting replicas that are lost.

use std::time::Duration;

use crate::{
    app::{
        App,
        api_keys::RecordPresented,
        error::AppError,
        ports::{Lane, UsageMark},
    },
    domain::{
        Error as RuleError,
        time::{Span, Timestamp},
    },
    verify::usage::Used,
};

const PRESENTED_PERIOD: Duration = Duration::from_secs(1);
/// How soon what a large deletion left begins to be removed.
const PURGE_PERIOD: Duration = Duration::from_secs(1);
const OPERATOR_READS_PERIOD: Duration = Duration::from_secs(1);
const FORGET_PERIOD: Duration = Duration::from_secs(60 * 60);
/// How many digests one statement forgets: each batch is a short transaction.
const FORGET_BATCH: u32 = 1_000;
const USAGE_BATCH: usize = 1_000;
const POLL_PERIOD_MIN: Duration = Duration::from_secs(1);
const SECS_PER_DAY: u32 = 24 * 60 * 60;

impl App {
    /// Runs until dropped. Nothing here can fail or slow a verification (K8, K9).
    pub async fn housekeeping(self) {
        tokio::join!(
            every(self.limits().usage_flush_interval, || self.flush_usage()),
            every(PRESENTED_PERIOD, || self.record_presented()),
            every(OPERATOR_READS_PERIOD, || self.record_operator_reads()),
            every(FORGET_PERIOD, || self.forget_what_ended()),
            every(PURGE_PERIOD, || self.purge()),
        );
    }

    /// Evicts lost replicas although no call waits for them; runs until dropped. To end before this replica gives
    /// its own row up.
    pub async fn evict_lost_replicas(self) {
        let period = (self.limits().lease / 3).max(POLL_PERIOD_MIN);
        every(period, async || {
            self.poll_replicas().await;
            Ok(())
        })
        .await;
    }

    /// Writes the usage marks that came in since the last time; the last step of a clean stop.
    ///
    /// # Errors
    /// The marks of a failed batch are lost: the next use of a token marks it again.
    pub async fn flush_usage(&self) -> Result<(), AppError> {
        let mark = |used: Used| UsageMark { digest: used.digest, key_id: used.key_id, last_used_time: used.last_used };
        let marks: Vec<_> = self.verifier().drain_used().into_iter().map(mark).collect();
        for batch in marks.chunks(USAGE_BATCH) {
            self.store().record_usage(batch).await?;
        }
        Ok(())
    }

    async fn record_presented(&self) -> Result<(), AppError> {
        for late in self.verifier().drain_late() {
            let note = RecordPresented { account: late.account_id, key: late.key_id, digest: late.digest };
            match self.run(note, false).await {
                // The key was erased meanwhile.
                Err(AppError::Rule(RuleError::NotFound(_))) => {}
                noted => _ = noted?,
            }
        }
        Ok(())
    }

    async fn forget_what_ended(&self) -> Result<(), AppError> {
        let kept = Span::from_secs(self.limits().ended_token_retention_days.saturating_mul(SECS_PER_DAY));
        let now = self.store().snapshot(Lane::Upkeep).await?.now().await?;
        let before = Timestamp::from_micros(now.as_micros() - kept.as_micros());
        while self.store().forget_ended_tokens(before, FORGET_BATCH).await? == FORGET_BATCH {}
        self.erase_deleted_api_keys(before).await
    }
}

async fn every<F: Future<Output = Result<(), AppError>>>(period: Duration, work: impl Fn() -> F) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = work().await {
            tracing::warn!(error = %error, "housekeeping is behind; it tries again");
        }
    }
}

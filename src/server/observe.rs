//! Copies what the layers below count to telemetry, which they do not know.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    app::MutationObserver,
    domain::verification::Outcome,
    telemetry::{CacheLookup, DroppedRecord, Eviction, Metrics},
    verify::Verifier,
};

const PERIOD: Duration = Duration::from_secs(1);

/// Reports mutations as they end.
pub(super) struct Mutations(pub Arc<Metrics>);

impl MutationObserver for Mutations {
    fn mutation(&self, name: &'static str, succeeded: bool, retries: u32, duration: Duration) {
        self.0.mutation(name, succeeded, retries, duration);
    }

    fn operator_reads_dropped(&self, total: u64) {
        self.0.dropped_total(DroppedRecord::OperatorRead, total);
    }
}

/// Copies the totals of verifications periodically, so that the hot path pays for one atomic addition; and once more
/// when `stopped` completes, so that the last second of a server is exported.
pub(super) async fn verifications(verifier: Arc<Verifier>, metrics: Arc<Metrics>, stopped: impl Future<Output = ()>) {
    let mut ticks = tokio::time::interval(PERIOD);
    tokio::pin!(stopped);
    loop {
        let last = tokio::select! {
            _ = ticks.tick() => false,
            () = &mut stopped => true,
        };
        copy(&verifier, &metrics);
        if last {
            return;
        }
    }
}

fn copy(verifier: &Verifier, metrics: &Metrics) {
    let counters = verifier.counters();
    for outcome in Outcome::ALL {
        metrics.verification_total(name(outcome), counters.answers(outcome));
    }
    let lookups = [
        (CacheLookup::Hit, counters.hits() + counters.negative_hits()),
        (CacheLookup::Miss, counters.misses.load(Ordering::Relaxed)),
        (CacheLookup::FenceRefused, counters.fence_refusals.load(Ordering::Relaxed)),
    ];
    lookups.into_iter().for_each(|(result, total)| metrics.cache_lookup_total(result, total));
    let cache = verifier.cache();
    metrics.cache_holds(cache.len() as u64, cache.shared_bytes() as u64);
    metrics.cache_eviction_total(Eviction::Full, cache.evicted_for_room());
    metrics.cache_eviction_total(Eviction::SharedBytes, cache.evicted_for_bytes());
    metrics.dropped_total(DroppedRecord::Usage, counters.usage_drops.load(Ordering::Relaxed));
    metrics.dropped_total(DroppedRecord::LateToken, counters.late_drops.load(Ordering::Relaxed));
    metrics.dropped_total(DroppedRecord::LateTokenFolded, counters.late_folded.load(Ordering::Relaxed));
    metrics.ended_loads_total(counters.ended_loads.load(Ordering::Relaxed));
    if let Some(applied) = verifier.applied() {
        let positive = |number: i64| u64::try_from(number).unwrap_or(0);
        metrics.applied_revision(positive(applied.epoch), positive(applied.number));
    }
}

fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Malformed => "MALFORMED",
        Outcome::Unknown => "UNKNOWN",
        Outcome::Deleted => "DELETED",
        Outcome::Rotated => "ROTATED",
        Outcome::AccountSuspended => "ACCOUNT_SUSPENDED",
        Outcome::Disabled => "DISABLED",
        Outcome::Expired => "EXPIRED",
        Outcome::PermissionDenied => "PERMISSION_DENIED",
        Outcome::Valid => "VALID",
    }
}

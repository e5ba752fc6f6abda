//! Holds everything that is counted. Counting is a relaxed add to an atomic that the exporter reads when it likes; only
//! durations, which are off the verification path or of whole RPCs, go through OpenTelemetry as they happen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{BoundHistogram, Counter, Histogram, Meter};

use super::methods::MethodLabel;

/// Holds all measurements. One per server; they count whether exported or not.
#[derive(Debug, Default)]
pub struct Metrics {
    verifications: [Count; OUTCOMES.len()],
    cache_lookups: [Count; CACHE_RESULTS.len()],
    cache_evictions: [Count; EVICTION_REASONS.len()],
    cache_tokens: Count,
    ended_loads: Count,
    cache_shared_bytes: Count,
    dropped: [Count; DROPPED_KINDS.len()],
    log_lines_left_out: [Count; LEFT_OUT_REASONS.len()],
    mutation_retries: Count,
    rpcs_unfinished: Count,
    epoch: Count,
    revision: Count,
    instruments: OnceLock<Instruments>,
}

/// The result of a look-up in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLookup {
    /// An entry that every fence let pass.
    Hit,
    /// No entry.
    Miss,
    /// An entry that a fence refused.
    FenceRefused,
}

/// Why a cached token was evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The cache held as many as it may.
    Full,
    /// What cached tokens share took as many bytes as it may.
    SharedBytes,
}

/// A record that was dropped rather than slow a verification down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DroppedRecord {
    /// That a token was used (K9).
    Usage,
    /// That a token was presented after its end (K8), because too many of these waited.
    LateToken,
    /// The same, because the hour's events were used up.
    LateTokenFolded,
    /// That an operator read what only `system.operate` lets it read (A3).
    OperatorRead,
}

/// Why a log line was left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// The buffer was full, or standard error could not be written.
    BufferFull,
    /// It repeated others of the same second.
    Repeated,
    /// It reported the end of a call, as too many did in the same second.
    Calls,
}

/// The outcomes of a verification, as the API names them. Any other text counts as the last.
const OUTCOMES: [&str; 10] = [
    "VALID",
    "MALFORMED",
    "UNKNOWN",
    "DELETED",
    "ROTATED",
    "ACCOUNT_SUSPENDED",
    "DISABLED",
    "EXPIRED",
    "PERMISSION_DENIED",
    "OTHER",
];
/// In the order of [`CacheLookup`].
const CACHE_RESULTS: [&str; 3] = ["hit", "miss", "fence_refused"];
/// In the order of [`Eviction`].
const EVICTION_REASONS: [&str; 2] = ["full", "shared_bytes"];
/// In the order of [`DroppedRecord`].
const DROPPED_KINDS: [&str; 4] = ["usage", "late_token", "late_token_folded", "operator_read"];
/// In the order of [`LeftOut`].
const LEFT_OUT_REASONS: [&str; 3] = ["buffer_full", "repeated", "calls"];

/// Seconds, as the semantic conventions advise for RPCs, with finer steps below for what the cache answers.
const BOUNDARIES_S: [f64; 16] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0];

/// A counter with a cache line to itself: neighbours are written by other cores.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Count(AtomicU64);

/// What goes through OpenTelemetry as it happens.
#[derive(Debug)]
struct Instruments {
    rpc: Histogram<f64>,
    rpc_unfinished: Counter<u64>,
    mutation: Histogram<f64>,
}

impl Metrics {
    /// Creates counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many verifications ended with this outcome since the process started.
    pub fn verification_total(&self, outcome: &'static str, total: u64) {
        self.verifications[index(&OUTCOMES, outcome)].set(total);
    }

    /// Sets how often the cache gave this result since the process started.
    pub fn cache_lookup_total(&self, result: CacheLookup, total: u64) {
        self.cache_lookups[result as usize].set(total);
    }

    /// Sets how many tokens the cache holds, and how many bytes they share.
    pub fn cache_holds(&self, tokens: u64, shared_bytes: u64) {
        self.cache_tokens.set(tokens);
        self.cache_shared_bytes.set(shared_bytes);
    }

    /// Sets how many look-ups in the database have found an ended token since the process started.
    pub fn ended_loads_total(&self, total: u64) {
        self.ended_loads.set(total);
    }

    /// Sets how many tokens the cache has evicted since the process started.
    pub fn cache_eviction_total(&self, reason: Eviction, total: u64) {
        self.cache_evictions[reason as usize].set(total);
    }

    /// Sets how many records were dropped since the process started.
    pub fn dropped_total(&self, kind: DroppedRecord, total: u64) {
        self.dropped[kind as usize].set(total);
    }

    /// Records the end of a mutation, and after how many retries.
    pub fn mutation(&self, name: &'static str, succeeded: bool, retries: u32, duration: Duration) {
        self.mutation_retries.add(u64::from(retries));
        if let Some(instruments) = self.instruments.get() {
            let result = if succeeded { "committed" } else { "failed" };
            let attributes = [
                KeyValue::new("latchkey.mutation.name", name),
                KeyValue::new("latchkey.mutation.result", result),
                KeyValue::new("latchkey.mutation.retries", i64::from(retries)),
            ];
            instruments.mutation.record(duration.as_secs_f64(), &attributes);
        }
    }

    /// Sets the revision that the follower has applied.
    pub fn applied_revision(&self, epoch: u64, number: u64) {
        self.epoch.set(epoch);
        self.revision.set(number);
    }

    /// Counts log lines that were left out.
    pub(super) fn log_lines_left_out(&self, reason: LeftOut, count: u64) {
        self.log_lines_left_out[reason as usize].add(count);
    }

    /// Returns how many log lines were left out for this reason.
    pub fn log_lines_left_out_count(&self, reason: LeftOut) -> u64 {
        self.log_lines_left_out[reason as usize].get()
    }

    /// Counts an RPC that was dropped before its end.
    pub(super) fn rpc_unfinished(&self, label: MethodLabel) {
        self.rpcs_unfinished.add(1);
        if let Some(instruments) = self.instruments.get() {
            instruments.rpc_unfinished.add(1, &[KeyValue::new("rpc.method", label.method)]);
        }
    }

    /// Returns how many RPCs were dropped before their end.
    pub fn rpcs_unfinished(&self) -> u64 {
        self.rpcs_unfinished.get()
    }

    /// Returns the histogram of RPCs with these labels, if durations are exported. Kept, it saves the look-up of the
    /// labels, which takes longer than everything else that is done to observe an RPC.
    pub(super) fn rpc_durations(&self, label: MethodLabel, status: &'static str) -> Option<BoundHistogram<f64>> {
        let attributes = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.service", label.service),
            KeyValue::new("rpc.method", label.method),
            KeyValue::new("rpc.response.status_code", status),
        ];
        self.instruments.get().map(|instruments| instruments.rpc.bind(&attributes))
    }

    /// Reports whether durations are exported.
    pub(super) fn is_exported(&self) -> bool {
        self.instruments.get().is_some()
    }

    /// Registers the counts with a meter. Later calls change nothing.
    pub(super) fn export(self: &Arc<Self>, meter: &Meter) {
        let histogram = |name: &'static str, doc: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(doc)
                .with_boundaries(BOUNDARIES_S.to_vec())
                .build()
        };
        let instruments = Instruments {
            rpc: histogram("rpc.server.call.duration", "Duration of RPCs"),
            rpc_unfinished: meter
                .u64_counter("latchkey.rpc.unfinished")
                .with_description("RPCs that went away without an end")
                .build(),
            mutation: histogram("latchkey.mutation.duration", "Duration of mutations, retries included"),
        };
        if self.instruments.set(instruments).is_ok() {
            self.observe(meter);
        }
    }

    #[rustfmt::skip] // One line per instrument reads as the list it is.
    fn observe(self: &Arc<Self>, meter: &Meter) {
        let family = Family { metrics: self, meter };
        family.counters("latchkey.verifications", "Verifications", "latchkey.outcome", &OUTCOMES, |metrics| &metrics.verifications);
        family.counters("latchkey.cache.lookups", "Cache look-ups", "latchkey.cache.result", &CACHE_RESULTS, |metrics| &metrics.cache_lookups);
        family.counters("latchkey.cache.evictions", "Cached tokens evicted", "latchkey.cache.reason", &EVICTION_REASONS, |metrics| &metrics.cache_evictions);
        family.counter("latchkey.cache.loads.ended", "Look-ups in the database that found an ended token", |metrics| &metrics.ended_loads);
        family.gauge("latchkey.cache.tokens", "Tokens in the cache", |metrics| &metrics.cache_tokens);
        family.gauge("latchkey.cache.shared.bytes", "Bytes that cached tokens share", |metrics| &metrics.cache_shared_bytes);
        family.counters("latchkey.records.dropped", "Records given up", "latchkey.record.kind", &DROPPED_KINDS, |metrics| &metrics.dropped);
        family.counters("latchkey.log.lines.left_out", "Log lines left out", "latchkey.log.reason", &LEFT_OUT_REASONS, |metrics| &metrics.log_lines_left_out);
        family.counter("latchkey.mutation.retries", "Mutations tried again", |metrics| &metrics.mutation_retries);
        family.gauge("latchkey.revision.epoch", "Epoch of the applied revision", |metrics| &metrics.epoch);
        family.gauge("latchkey.revision.applied", "Number of the applied revision", |metrics| &metrics.revision);
    }
}

/// Makes instruments that read the counts. They hold no reference that would keep the counts alive.
struct Family<'a> {
    metrics: &'a Arc<Metrics>,
    meter: &'a Meter,
}

impl Family<'_> {
    fn counters<const N: usize>(
        &self,
        name: &'static str,
        doc: &'static str,
        label: &'static str,
        values: &'static [&'static str; N],
        counts: fn(&Metrics) -> &[Count; N],
    ) {
        let metrics = Arc::downgrade(self.metrics);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            let Some(metrics) = metrics.upgrade() else { return };
            for (value, count) in values.iter().zip(counts(&metrics)) {
                observer.observe(count.get(), &[KeyValue::new(label, *value)]);
            }
        };
        self.meter.u64_observable_counter(name).with_description(doc).with_callback(observe).build();
    }

    fn counter(&self, name: &'static str, doc: &'static str, count: fn(&Metrics) -> &Count) {
        let metrics = Arc::downgrade(self.metrics);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            if let Some(metrics) = metrics.upgrade() {
                observer.observe(count(&metrics).get(), &[]);
            }
        };
        self.meter.u64_observable_counter(name).with_description(doc).with_callback(observe).build();
    }

    fn gauge(&self, name: &'static str, doc: &'static str, value: fn(&Metrics) -> &Count) {
        let metrics = Arc::downgrade(self.metrics);
        let observe = move |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
            if let Some(metrics) = metrics.upgrade() {
                observer.observe(value(&metrics).get(), &[]);
            }
        };
        self.meter.u64_observable_gauge(name).with_description(doc).with_callback(observe).build();
    }
}

impl Count {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Returns the place of a label; unknown ones share the last.
fn index(labels: &[&str], label: &str) -> usize {
    labels.iter().position(|known| *known == label).unwrap_or(labels.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_go_where_they_belong_and_strangers_to_the_last() {
        let metrics = Metrics::new();
        let verifications = |outcome| metrics.verifications[index(&OUTCOMES, outcome)].get();
        metrics.verification_total("VALID", 1);
        metrics.verification_total("ROTATED", 2);
        metrics.verification_total("no such outcome", 3);
        assert_eq!([verifications("VALID"), verifications("ROTATED")], [1, 2]);
        assert_eq!(verifications("OTHER"), 3);
        metrics.cache_lookup_total(CacheLookup::FenceRefused, 1);
        assert_eq!(CACHE_RESULTS[CacheLookup::FenceRefused as usize], "fence_refused");
        assert_eq!(metrics.cache_lookups[CacheLookup::FenceRefused as usize].get(), 1);
        metrics.dropped_total(DroppedRecord::LateToken, 3);
        assert_eq!(DROPPED_KINDS[DroppedRecord::LateToken as usize], "late_token");
        assert_eq!(metrics.dropped[DroppedRecord::LateToken as usize].get(), 3);
    }
}

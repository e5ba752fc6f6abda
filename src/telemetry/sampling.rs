//! Decides which RPCs are traced before their spans are made, since a span costs as much as a verification.
//!
//! The decision is the configured sampler's (`OTEL_TRACES_SAMPLER`), asked as soon as the RPC's parent is known. The
//! RPCs that it drops get another target, which the exporter ignores, so that no span is made at all unless the log
//! records it. Every trace of ours begins with an RPC: other spans are exported below one that
//! is, or they would begin traces of their own wherever an RPC was dropped.

use std::fmt;
use std::sync::Arc;

use opentelemetry::trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState};
use opentelemetry::{Context as TraceContext, KeyValue};
use opentelemetry_sdk::trace::{
    Config, IdGenerator, RandomIdGenerator, SamplingDecision, SamplingResult, ShouldSample,
};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata, Subscriber, dispatcher};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

use super::targets;

/// The target of every span and event of this crate, by its beginning.
const OURS: &str = "latchkey";

/// Reports whether traces are exported and an RPC with this parent, its caller's span, is not sampled.
pub(super) fn drops(parent: Option<&TraceContext>) -> bool {
    dispatcher::get_default(|subscriber| {
        subscriber.downcast_ref().is_some_and(|sampling: &EarlySampling| !sampling.takes(parent))
    })
}

/// Samples an RPC before its span is made. As a filter of the exporter's layer and as a sampler, it keeps the RPCs that
/// it has sampled, and decides about everything else.
#[derive(Clone)]
pub(super) struct EarlySampling(Arc<dyn ShouldSample>);

// === impl EarlySampling ===

impl EarlySampling {
    /// Follows the standard variables.
    pub(super) fn from_environment() -> Self {
        Self(Config::default().sampler.into())
    }

    /// Decides about an RPC. A root gets a new random trace id, so that what a ratio compares is evenly spread.
    fn takes(&self, parent: Option<&TraceContext>) -> bool {
        let trace_id = match parent {
            Some(parent) => parent.span().span_context().trace_id(),
            None => RandomIdGenerator::default().new_trace_id(),
        };
        let result = self.0.should_sample(parent, trace_id, "rpc", &SpanKind::Server, &[], &[]);
        result.decision != SamplingDecision::Drop
    }

    /// Reports whether this may be exported: spans of ours from INFO up, and RPCs'. The exporter's own gRPC calls have
    /// spans too, of tonic, hyper and h2: exporting those would be export without end.
    fn wants(metadata: &Metadata<'_>) -> bool {
        let module = metadata.target().strip_prefix(OURS).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let level = if targets::is_traced(metadata) { Level::DEBUG } else { Level::INFO };
        module && !targets::is_untraced(metadata) && *metadata.level() <= level
    }
}

impl<S> Filter<S> for EarlySampling
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Self::wants(metadata) && (targets::is_traced(metadata) || context.lookup_current().is_some())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match (Self::wants(metadata), targets::is_traced(metadata)) {
            (false, _) => Interest::never(),
            (true, true) => Interest::always(),
            (true, false) => Interest::sometimes(),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

impl ShouldSample for EarlySampling {
    fn should_sample(
        &self,
        parent: Option<&TraceContext>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let is_root = parent.is_none_or(|parent| !parent.span().span_context().is_valid());
        if is_root && *kind == SpanKind::Server {
            // It was let pass before it was made: to draw again would be to sample the sampled.
            let (attributes, trace_state) = (Vec::new(), TraceState::default());
            return SamplingResult { decision: SamplingDecision::RecordAndSample, attributes, trace_state };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

impl fmt::Debug for EarlySampling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EarlySampling").field(&self.0).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::HeaderMap;
    use opentelemetry_sdk::trace::Sampler;
    use tracing::span::{Attributes, Id};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;

    use super::super::rpc::RpcObserver;
    use super::super::{MethodTable, Metrics};
    use super::*;

    const CALLS: usize = 2_000;

    /// Counts what the exporter's layer would be given.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Counting {
        fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many of [`CALLS`] are traced, by their own root or below this caller's span.
    fn traced(sampler: Sampler, method: &str, traceparent: Option<&str>) -> usize {
        let counting = Counting::default();
        let layer = counting.clone().with_filter(EarlySampling(Arc::new(sampler)));
        let observer = Arc::new(RpcObserver::new(
            Arc::new(MethodTable::new([method])),
            Arc::new(Metrics::new()),
            crate::telemetry::clock::now,
        ));
        let mut headers = HeaderMap::new();
        if let Some(traceparent) = traceparent {
            headers.insert("traceparent", traceparent.parse().unwrap());
        }
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            for _ in 0..CALLS {
                observer.start(&format!("/{method}"), &headers).finish(tonic::Code::Ok);
            }
        });
        counting.0.load(Ordering::Relaxed)
    }

    fn one_in_four() -> Sampler {
        Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(0.25)))
    }

    #[test]
    fn roots_are_drawn_by_the_ratio_and_children_go_with_their_caller() {
        let caller = |flags| format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        for method in ["a.B/C", MethodTable::HOT[0]] {
            for root in [None, Some("no traceparent")] {
                let count = traced(one_in_four(), method, root);
                assert!((400..600).contains(&count), "{method} {root:?}: {count} of {CALLS}");
            }
            assert_eq!(traced(one_in_four(), method, Some(&caller("00"))), 0, "{method}");
            assert_eq!(traced(one_in_four(), method, Some(&caller("01"))), CALLS, "{method}");
            assert_eq!(traced(Sampler::AlwaysOn, method, Some(&caller("00"))), CALLS, "{method}");
            assert_eq!(traced(Sampler::AlwaysOff, method, Some(&caller("01"))), 0, "{method}");
        }
    }

    #[test]
    fn what_was_let_pass_is_not_drawn_again() {
        let sampling = EarlySampling(Arc::new(Sampler::AlwaysOff));
        let decision = |kind| sampling.should_sample(None, TraceId::from(1), "", &kind, &[], &[]).decision;
        assert_eq!(decision(SpanKind::Server), SamplingDecision::RecordAndSample);
        assert_eq!(decision(SpanKind::Internal), SamplingDecision::Drop);
    }
}

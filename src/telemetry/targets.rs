//! The targets of RPC spans. They say what each is for: a filter sees a span's target before the span is made.

use tracing::Metadata;

/// The target of RPC spans, for filters: whatever log filter takes it takes the other three.
pub(super) const RPC: &str = "latchkey::rpc";
/// The target of the spans of RPCs that are not traced, for logs only.
pub(super) const UNSAMPLED: &str = "latchkey::rpc::unsampled";
/// The target of the spans of RPCs whose lines are beyond the bound, for traces only.
pub(super) const UNLOGGED: &str = "latchkey::rpc::unlogged";
/// The target of RPCs that are for neither. No span is made of it: asking for one has the log count what it lacks.
pub(super) const UNWANTED: &str = "latchkey::rpc::unsampled::unlogged";

/// Reports whether the log is to leave out the span of this metadata, and count it.
pub(super) fn is_unlogged(metadata: &Metadata<'_>) -> bool {
    matches!(metadata.target(), UNLOGGED | UNWANTED)
}

/// Reports whether this metadata is of an RPC that is to be traced.
pub(super) fn is_traced(metadata: &Metadata<'_>) -> bool {
    matches!(metadata.target(), RPC | UNLOGGED)
}

/// Reports whether this metadata is of an RPC that is not to be traced.
pub(super) fn is_untraced(metadata: &Metadata<'_>) -> bool {
    matches!(metadata.target(), UNSAMPLED | UNWANTED)
}

//! Log lines: formatted, folded, bounded, written by a thread of their own.

pub(super) mod call_lines;
pub(super) mod folding;
pub(super) mod log_thread;
pub(super) mod logs;

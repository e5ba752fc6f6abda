//! Work that no caller waits for.

pub(super) mod housekeeping;
pub(super) mod operator_read_queue;
pub(super) mod operator_reads;
pub(super) mod purge;

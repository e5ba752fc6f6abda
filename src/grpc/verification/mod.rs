//! Answers verifications, whether unary, batched or streamed.

pub(super) mod checks;
pub(super) mod fast_path;
pub(super) mod verifications;

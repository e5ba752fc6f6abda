//! Verifications: one way in, whether unary, batched or streamed.

pub(super) mod hot;
pub(super) mod verifications;
pub(super) mod verifier;

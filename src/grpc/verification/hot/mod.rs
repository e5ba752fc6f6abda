//! Verifications that memory can answer: read where they lie in the transport's buffers, and answered with bytes that are
//! mostly ready-made. It reads and writes bytes; who asks, and what else there is to do, `grpc::verifications` knows.
//!
//! It reads only what is right in every respect. Whatever else it meets (a field that is wrong or new, a token that
//! memory does not know) is for the slow path, so no refusal is worded here, and no rule stands here a second time.

mod answer;
mod question;
mod raw;

pub use answer::{Many, single};
pub use question::{Batch, Single, correlation_id};
pub use raw::Raw;

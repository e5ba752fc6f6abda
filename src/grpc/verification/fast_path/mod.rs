//! The fast path of verifications: parses requests in the transport's buffers and answers them from the cache with
//! mostly prepared bytes. It knows bytes only; callers and the slow path are `grpc::verification::verifications`'s.
//!
//! It parses only well-formed requests. Anything else (a field that is wrong or new, a token that is not cached) is
//! left to the slow path, so that each refusal is worded and each rule enforced in one place.

mod raw_message;
mod request;
mod response;

pub use raw_message::RawMessage;
pub use request::{BatchView, CheckView, correlation_id};
pub use response::{ResponseWriter, single};

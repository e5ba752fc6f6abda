//! The short way for VerifyToken, VerifyTokens and the messages of StreamVerifyTokens: those that memory can answer are
//! read where they lie in the transport's buffers and answered with bytes that are mostly ready-made.
//!
//! It answers only what is right in every respect. Whatever else it meets (another call, a field that is wrong or new,
//! a caller who may not ask, a token that memory does not know) it hands on untouched, and the services decide: so no
//! refusal is worded here, and no rule stands here a second time.

mod answer;
mod body;
mod question;
mod raw;
mod service;
mod stream;

pub use raw::Raw;
pub use service::HotPath;
pub(super) use stream::answer_message;

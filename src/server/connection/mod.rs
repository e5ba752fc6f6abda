//! Serves one connection: HTTP/2, its calls, its timeouts, and the responses that its client has not read.

pub(super) mod activity;
pub(super) mod http2;
pub(super) mod inline_executor;
pub(super) mod tracked;
pub(super) mod unread;

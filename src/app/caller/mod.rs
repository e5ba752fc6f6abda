//! Callers: a token, perhaps for a user; judged again at each mutation's own revision (M9).

pub(super) mod authentication;
pub(super) mod identity;
pub(super) mod requester;
pub(super) mod session;

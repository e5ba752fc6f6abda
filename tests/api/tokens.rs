//! T1-T3: tokens, their storage, and what they do for themselves.

mod format;
mod identity;
mod peppers;
mod retention;
mod revocation;

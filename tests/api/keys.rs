//! K1-K9: keys.

mod content;
mod expiry;
mod looking;
mod paging;
mod quotas;
mod rotation;
mod scope;
mod secrecy;
mod states;
mod usage;

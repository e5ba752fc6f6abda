//! Messages in, messages out. Handlers translate and nothing else: who may do what is decided by the
//! use-cases ([`crate::app`]), and nothing here knows SQL, caches or clocks.
//!
//! The life of a call: the [`Door`] settles who calls, with what and until when from the headers alone, gathers the
//! message within bounds and counts its lists → [`convert`] checks the syntax of the request alone, and names every
//! wrong field → a use-case decides → [`convert`] prints the answer, or [`status`] the refusal. That order is M8's.

mod api_key_service;
pub mod convert;
mod directory_service;
mod door;
mod drain;
mod entry;
mod event_service;
pub mod field_mask;
mod hot;
mod metadata;
mod page_token;
pub mod services;
pub mod status;
mod stream;
mod token_service;
mod verifications;
mod verifier;
mod watch;

/// TokenService's server with the stream's messages as bytes: see `build.rs`.
mod streams {
    include!(concat!(env!("OUT_DIR"), "/streams/latchkey.v1.rs"));
}

pub use door::{Door, DoorBody, Limits, Shared};
pub use drain::Draining;
pub use services::{DESCRIPTORS, Services, Settings, end_health, services, set_serving};

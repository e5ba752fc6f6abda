//! Messages in, messages out. Handlers translate and nothing else: who may do what is decided by the
//! use-cases ([`crate::app`]), and nothing here knows SQL, caches or clocks.
//!
//! The life of a call: the [`Gate`] decides caller, method and deadline from the headers alone, collects the message
//! within bounds and counts its lists → `convert` checks the syntax of the request alone, and names every wrong
//! field → a use-case decides → `convert` converts the answer, or [`status`] the refusal. That is the order of M8.

mod contract;
mod convert;
mod gate;
mod outage;
mod request;
mod service;
pub mod status;
mod stream;
mod verification;

/// TokenService's server with the stream's messages as bytes: see `build.rs`.
mod streams {
    include!(concat!(env!("OUT_DIR"), "/streams/latchkey.v1.rs"));
}

pub use contract::DESCRIPTORS;
pub use gate::{Gate, GateLimits, GateShared};
pub use service::router::{ServiceLimits, Services, end_health, services, set_serving};
pub use stream::drain::Draining;

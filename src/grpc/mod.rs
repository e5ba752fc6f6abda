//! Messages in, messages out. Handlers translate and nothing else: who may do what is decided by the
//! use-cases ([`crate::app`]), and nothing here knows SQL, caches or clocks.
//!
//! The life of a call: the [`Door`] settles who calls, with what and until when from the headers alone, gathers the
//! message within bounds and counts its lists → [`convert`] checks the syntax of the request alone, and names every
//! wrong field → a use-case decides → [`convert`] prints the answer, or [`status`] the refusal. That order is M8's.

pub mod convert;
mod door;
pub mod request;
pub mod service;
pub mod status;
mod stream;
mod verification;

/// TokenService's server with the stream's messages as bytes: see `build.rs`.
mod streams {
    include!(concat!(env!("OUT_DIR"), "/streams/latchkey.v1.rs"));
}

pub use door::{Door, DoorBody, Limits, Shared};
pub use service::router::{DESCRIPTORS, Services, Settings, end_health, services, set_serving};
pub use stream::drain::Draining;

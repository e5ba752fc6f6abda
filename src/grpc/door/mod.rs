//! The door: what stands between telemetry and every service. Who calls, with which method, until when and with how
//! large a message is settled from a request's headers alone, before a byte of its body is read; then the message is
//! gathered within bounds, and only then does a service see it.
//!
//! It must not know what a message means: its fields are counted by name (`fields`), never interpreted.

mod bulk;
mod headers;
mod memory;
mod message;
mod methods;
mod policy;
mod service;
mod slots;

pub use memory::Reservation;
pub use message::body::DoorBody;
pub use message::fields::SHAPES;
pub use message::frame::{PREFIX_BYTES, framed};
pub use service::{Door, Limits, Shared};

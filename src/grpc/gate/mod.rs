//! Authenticates and bounds every call before a service sees it: the tower service between telemetry and all services.
//!
//! The caller, the method, the deadline and the largest message are decided from a request's headers alone, before a
//! byte of its body is read. Then the message is collected within its bounds, and only then does a service see it. The
//! gate must not know what a message means: it counts fields by name (`fields`) and never interprets them.

mod bulk;
mod headers;
mod memory;
mod message;
mod methods;
mod policy;
mod service;
mod unauthenticated_calls;

pub use memory::MemoryReservation;
pub use message::fields::SHAPES;
pub use message::frame::{PREFIX_BYTES, framed};
pub use service::{Gate, GateLimits, GateShared};

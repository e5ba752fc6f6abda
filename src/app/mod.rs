//! skeleton

pub mod error;
pub mod ports;
pub mod types;

//! skeleton

#[cfg(feature = "server")]
pub mod private_postgres;

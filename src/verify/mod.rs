//! skeleton

pub mod primary;

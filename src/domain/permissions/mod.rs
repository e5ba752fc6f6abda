//! Permissions, the catalogue of them, and what a key was granted (P1 to P5, K1, K2).

pub mod catalogue;
pub mod grants;
pub mod permission;

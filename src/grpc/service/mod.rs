//! Implements the services: one file each, a few lines for each RPC.

pub(super) mod api_key_service;
pub(super) mod context;
pub(super) mod directory_service;
pub(super) mod event_service;
pub(super) mod router;
pub(super) mod token_service;

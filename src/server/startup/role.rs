//! Checks the database role of a server: it must be able to append to the log and unable to change it (V6).

use crate::{server::error::StartError, settings::Settings, store::objects::powers::Powers};

/// Refuses a role that can change or delete events, unless the settings allow it by name.
pub(super) fn check(powers: &Powers, settings: &Settings) -> Result<(), StartError> {
    let Powers { role, excess } = powers;
    if excess.is_empty() {
        return Ok(());
    }
    let what = excess.join(", ");
    if settings.allow_privileged_database_role {
        tracing::warn!(
            role,
            "the database role {what}: nothing keeps this server from changing or deleting events \
             (allow_privileged_database_role)"
        );
        return Ok(());
    }
    Err(StartError::PrivilegedRole { role: role.clone(), what })
}

//! Whose keys are whose (M1-M3, M8).

use std::collections::BTreeSet;

use crate::domain::{
    error::Error,
    id::TeamId,
    permissions::{grants::Grants, permission::MANAGE},
};

/// Where a caller manages keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Managed {
    /// Every key of the account (M1).
    Account,
    /// Keys that lie within these teams (M2); never empty.
    Teams(BTreeSet<TeamId>),
    /// None.
    Nothing,
}

// === impl Managed ===

impl Managed {
    /// Checks that a caller manages something: else it sees nothing (M3).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming `api_keys.manage`.
    pub fn require_any(&self) -> Result<(), Error> {
        if *self == Self::Nothing { Err(Error::missing(MANAGE)) } else { Ok(()) }
    }

    /// Reports whether a key may be viewed (M1, M3).
    #[must_use]
    pub fn may_view(&self, grants: &Grants) -> bool {
        match self {
            Self::Account => true,
            Self::Nothing => false,
            Self::Teams(managed) => {
                grants.team_scope.as_ref().is_some_and(|scope| !scope.team_ids().is_disjoint(managed))
            }
        }
    }

    /// Checks that a team may be named: one that is not managed is refused whether or not it exists (M8).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming the team.
    pub fn may_name(&self, team: &TeamId) -> Result<(), Error> {
        match self {
            Self::Account => Ok(()),
            Self::Teams(managed) if managed.contains(team) => Ok(()),
            Self::Teams(_) | Self::Nothing => {
                Err(Error::PermissionMissing { permission: MANAGE.to_owned(), team: Some(team.to_string()) })
            }
        }
    }

    /// Checks that a key, as it is or as it will be, is the caller's to manage (M1, M2).
    ///
    /// # Errors
    /// [`Error::PermissionMissing`] naming `api_keys.manage` and where it is missing.
    pub fn may_manage(&self, grants: &Grants) -> Result<(), Error> {
        match self {
            Self::Account => Ok(()),
            Self::Nothing => Err(Error::missing(MANAGE)),
            Self::Teams(_) => match &grants.team_scope {
                Some(scope) if grants.account_permissions.is_empty() => {
                    scope.team_ids().iter().try_for_each(|team| self.may_name(team))
                }
                Some(_) | None => Err(Error::missing(MANAGE)),
            },
        }
    }
}

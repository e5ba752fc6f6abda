//! What is held by name, beside what it amounts to (M4).
//!
//! Keys and roles store names (P1). A name that is retired, unknown, or not team-scopable where it stands is in no
//! closed set, and comes back with a later catalogue: such a name is called dormant here.

use std::collections::BTreeSet;

use crate::domain::{
    directory::RolePermissions,
    id::TeamId,
    permissions::{
        catalogue::{Catalogue, is_system},
        grants::{Grants, TeamScope},
    },
};

/// What a caller was granted, by name.
#[derive(Clone, Debug)]
pub enum Named {
    /// To a key.
    Key(Grants),
    /// To a user: its roles, each with the team it is held on, if any.
    User(Vec<(RolePermissions, Option<TeamId>)>),
}

impl Default for Named {
    /// Names nothing.
    fn default() -> Self {
        Self::Key(Grants::default())
    }
}

impl Named {
    /// Reports whether it holds a name account-wide, hence on every team (P3).
    fn account_wide(&self, name: &str, catalogue: &Catalogue) -> bool {
        match self {
            Self::Key(grants) => grants.account_permissions.contains(name),
            Self::User(roles) => roles.iter().any(|(role, team)| team.is_none() && role.names(name, catalogue)),
        }
    }

    /// Returns the first of some teams on which it does not hold a name.
    fn first_team_without<'a>(
        &self,
        name: &str,
        teams: &'a BTreeSet<TeamId>,
        catalogue: &Catalogue,
    ) -> Option<&'a TeamId> {
        if self.account_wide(name, catalogue) {
            return None;
        }
        match self {
            Self::Key(grants) => {
                let scope = grants.team_scope.as_ref().filter(|scope| scope.permissions().contains(name));
                let has = |team: &TeamId| scope.is_some_and(|scope| scope.team_ids().contains(team));
                teams.iter().find(|team| !has(team))
            }
            Self::User(roles) => {
                let naming = roles.iter().filter(|(role, _)| role.names(name, catalogue));
                let on: BTreeSet<&TeamId> = naming.filter_map(|(_, team)| team.as_ref()).collect();
                teams.iter().find(|team| !on.contains(team))
            }
        }
    }
}

/// Returns the first dormant name of some grants that is not held by name at the same scope, and the team it is
/// missing on.
#[must_use]
pub fn first_not_named<'a>(
    grants: &'a Grants,
    holder: &Named,
    catalogue: &Catalogue,
) -> Option<(&'a str, Option<&'a TeamId>)> {
    let mut account = grants.account_permissions.iter().filter(|name| catalogue.bit(name).is_none());
    if let Some(name) = account.find(|name| !holder.account_wide(name, catalogue)) {
        return Some((name, None));
    }
    let on_teams = grants.team_scope.iter().flat_map(|scope: &TeamScope| {
        scope.permissions().iter().filter(|name| !catalogue.counts_on_teams(name)).map(move |name| (scope, name))
    });
    on_teams
        .map(|(scope, name)| (name, holder.first_team_without(name, scope.team_ids(), catalogue)))
        .find_map(|(name, team)| team.map(|team| (name.as_str(), Some(team))))
}

impl RolePermissions {
    /// Reports whether a role holds a name, dormant or not. "Everything" includes retired
    /// permissions, for it holds them again once a catalogue brings them back. Never a `system.` name (A4).
    fn names(&self, name: &str, catalogue: &Catalogue) -> bool {
        let named = match self {
            Self::Everything => catalogue.known_bit(name).is_some(),
            Self::Named(names) => names.contains(name),
        };
        named && !is_system(name)
    }
}

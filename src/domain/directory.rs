//! Accounts, teams, roles and users (A2, A5), as the product that owns them has them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    error::{Error, Violated},
    id::{AccountId, RoleId, TeamId, UserId},
    log::revision::Revision,
    permissions::{
        catalogue::{Catalogue, is_system},
        grants::Held,
        permission::PermissionSet,
    },
    time::Timestamp,
};

macro_rules! stored_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Returns its name in the store and the log.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Returns the value of that name.
            #[must_use]
            pub fn from_stored(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

stored_enum!(
    /// The state of an account.
    AccountState {
        /// Its keys and users may act.
        Active = "active",
        /// Its keys and users may call only RevokeToken (A2).
        Suspended = "suspended",
        /// Gone; its id is never used again (A5).
        Deleted = "deleted",
    }
);
stored_enum!(
    /// The state of a user.
    UserState {
        /// May act.
        Active = "active",
        /// May not; its keys stay (K5).
        Deactivated = "deactivated",
    }
);
stored_enum!(
    /// What a role is for; immutable (A5).
    RoleKind {
        /// A user has exactly one.
        Base = "base",
        /// A user has any number.
        Custom = "custom",
        /// A user has any number per team.
        Team = "team",
    }
);

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub account_id: AccountId,
    /// For people.
    pub display_name: String,
    /// Its state.
    pub state: AccountState,
    /// When it was created.
    pub create_time: Timestamp,
    /// Keys that are not deleted.
    pub api_key_count: u32,
    /// Deleted keys that are still on record.
    pub deleted_api_key_count: u32,
    /// Deleted teams that still have to be taken from keys or users: their ids are not free yet (A5).
    pub purging_team_ids: BTreeSet<TeamId>,
    /// It is deleted, and what was in it is still to be removed.
    pub is_purging: bool,
    /// The revision of its last event.
    pub revision: Revision,
}

/// A team.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Team {
    /// Its id.
    pub team_id: TeamId,
    /// For people.
    pub display_name: String,
    /// The revision of its last event.
    pub revision: Revision,
}

/// What a role holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RolePermissions {
    /// Everything in the catalogue, now and later, `system.` excluded (A4).
    Everything,
    /// These, by name.
    Named(BTreeSet<String>),
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Its id.
    pub role_id: RoleId,
    /// For people.
    pub display_name: String,
    /// What it is for.
    pub kind: RoleKind,
    /// What it holds.
    pub permissions: RolePermissions,
    /// The revision of its last event.
    pub revision: Revision,
}

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub user_id: UserId,
    /// For people.
    pub display_name: String,
    /// Its state.
    pub state: UserState,
    /// Exactly one, of kind BASE.
    pub base_role_id: RoleId,
    /// Any number, of kind CUSTOM.
    pub custom_role_ids: BTreeSet<RoleId>,
    /// Any number, of kind TEAM.
    pub team_roles: BTreeSet<(TeamId, RoleId)>,
    /// The revision of its last event.
    pub revision: Revision,
}

impl Role {
    /// Checks the permissions of a role against the catalogue (A4, A5, P1): known names, no `system.`
    /// ones, and only team-scopable ones for a team role. Names that it had `before` may stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming fields below `field`.
    pub fn check_permissions(&self, field: &str, before: Option<&Self>, catalogue: &Catalogue) -> Result<(), Error> {
        let mut problems = Violated::default();
        let names = match &self.permissions {
            RolePermissions::Everything if self.kind == RoleKind::Team => {
                let description = "a team role cannot hold everything: not all is team-scopable";
                return Err(Error::field(format!("{field}.all_permissions"), description));
            }
            RolePermissions::Everything => return Ok(()),
            RolePermissions::Named(names) => names,
        };
        let had = |name: &String| match before.map(|before| &before.permissions) {
            Some(RolePermissions::Named(names)) => names.contains(name),
            _ => false,
        };
        for name in names.iter().filter(|name| !had(name)) {
            let bit = catalogue.bit(name);
            let problem = if is_system(name) {
                format!("`{name}` is held only by keys of account `system`")
            } else if bit.is_none() {
                format!("`{name}` is not in the catalogue, or is retired")
            } else if self.kind == RoleKind::Team && !bit.is_some_and(|bit| catalogue.team_scopable().contains(bit)) {
                format!("`{name}` is not team-scopable, so a team role cannot hold it")
            } else {
                continue;
            };
            problems.add(format!("{field}.permissions"), problem);
        }
        problems.finish()
    }
}

impl RolePermissions {
    /// Returns what they amount to account-wide (P2). Never a `system.` permission, which only keys of
    /// account `system` hold (A4), whatever was stored.
    #[must_use]
    pub fn closed(&self, catalogue: &Catalogue) -> PermissionSet {
        match self {
            Self::Everything => catalogue.everything(),
            Self::Named(names) => {
                catalogue.closed(names.iter().map(String::as_str)).intersection(&catalogue.everything())
            }
        }
    }

    /// Returns what they amount to on a single team (P5).
    #[must_use]
    pub fn closed_on_team(&self, catalogue: &Catalogue) -> PermissionSet {
        match self {
            Self::Everything => catalogue.team_scopable(),
            Self::Named(names) => catalogue.closed_on_team(names.iter().map(String::as_str)),
        }
    }
}

/// Returns what a user holds: account-wide the union of base and custom roles, on a team also its team
/// roles there (A2). Roles only add.
///
/// `roles` pairs each role's permissions with the team it is held on, if any.
#[must_use]
pub fn user_held(roles: &[(RolePermissions, Option<TeamId>)], catalogue: &Catalogue) -> Held {
    let mut held = Held { account: PermissionSet::EMPTY, teams: BTreeMap::new() };
    for (permissions, team) in roles {
        match team {
            None => held.account = held.account.union(&permissions.closed(catalogue)),
            Some(team) => {
                let set = held.teams.entry(team.clone()).or_default();
                *set = set.union(&permissions.closed_on_team(catalogue));
            }
        }
    }
    held
}

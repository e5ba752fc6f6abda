//! Converts accounts, teams, roles and users.

use std::collections::BTreeSet;

use super::{all, check_batch, each, specified, time::to_timestamp};
use crate::{
    domain::{
        Error,
        directory::{Account, AccountState, Role, RoleKind, RolePermissions, Team, User, UserState},
        error::Violated,
        id::{AccountId, RoleId, TeamId, UserId},
        log::revision::{Etag, Revision},
        permissions::grants,
        text,
    },
    proto,
};

const CUSTOM_ROLES_MAX: usize = 100;
const TEAM_ROLES_MAX: usize = 1_000;

/// The revision of objects that were not stored yet: the store replaces it by their event's.
const NOT_STORED: Revision = Revision { epoch: 0, number: 0 };

/// Parses an account to upsert: its id and its display name.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn account(account: proto::Account) -> Result<(AccountId, String), Error> {
    all((AccountId::parse("account_id", &account.account_id), display_name(account.display_name)))
}

/// Parses a team to upsert, and its etag.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn team(team: proto::Team) -> Result<(Team, Option<Etag>), Error> {
    let (team_id, display_name) = all((TeamId::parse("team_id", &team.team_id), display_name(team.display_name)))?;
    Ok((Team { team_id, display_name, revision: NOT_STORED }, Etag::from_request(&team.etag)))
}

/// Parses a role to upsert, and its etag.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn role(role: proto::Role) -> Result<(Role, Option<Etag>), Error> {
    let etag = Etag::from_request(&role.etag);
    let (role_id, kind, permissions, display_name) = all((
        RoleId::parse("role_id", &role.role_id),
        specified("kind", role.kind, from_role_kind),
        role_permissions(&role),
        display_name(role.display_name),
    ))?;
    if kind == RoleKind::Team && permissions == RolePermissions::Everything {
        return Err(Error::field(
            "all_permissions",
            "must be false for a team role: it holds only permissions that it names",
        ));
    }
    Ok((Role { role_id, display_name, kind, permissions, revision: NOT_STORED }, etag))
}

fn role_permissions(role: &proto::Role) -> Result<RolePermissions, Error> {
    if !role.all_permissions {
        return grants::parse_names("permissions", &role.permissions).map(RolePermissions::Named);
    }
    if role.permissions.is_empty() {
        Ok(RolePermissions::Everything)
    } else {
        Err(Error::field("permissions", "must be empty with all_permissions"))
    }
}

/// Parses a user to upsert, and its etag.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn user(user: proto::User) -> Result<(User, Option<Etag>), Error> {
    let (user_id, display_name, state, base_role_id, custom_role_ids, team_roles) = all((
        UserId::parse("user_id", &user.user_id),
        display_name(user.display_name),
        specified("state", user.state, from_user_state),
        RoleId::parse("base_role_id", &user.base_role_id),
        custom_role_ids(&user.custom_role_ids),
        team_roles(&user.team_roles),
    ))?;
    let revision = NOT_STORED;
    let etag = Etag::from_request(&user.etag);
    Ok((User { user_id, display_name, state, base_role_id, custom_role_ids, team_roles, revision }, etag))
}

fn custom_role_ids(ids: &[String]) -> Result<BTreeSet<RoleId>, Error> {
    let field = "custom_role_ids";
    check_at_most(field, ids, CUSTOM_ROLES_MAX)?;
    let mut problems = Violated::default();
    let mut set = BTreeSet::new();
    for (i, id) in ids.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if let Some(id) = problems.collect(RoleId::parse(&field, id))?
            && !set.insert(id)
        {
            problems.add(field, "is listed twice");
        }
    }
    problems.finish()?;
    Ok(set)
}

fn team_roles(pairs: &[proto::TeamRole]) -> Result<BTreeSet<(TeamId, RoleId)>, Error> {
    let field = "team_roles";
    check_at_most(field, pairs, TEAM_ROLES_MAX)?;
    let pairs = each(field, pairs, |pair| {
        all((TeamId::parse("team_id", &pair.team_id), RoleId::parse("role_id", &pair.role_id)))
    })?;
    distinct(field, pairs.iter(), "")?;
    Ok(pairs.into_iter().collect())
}

fn check_at_most<T>(field: &str, items: &[T], max: usize) -> Result<(), Error> {
    if items.len() <= max {
        Ok(())
    } else {
        Err(Error::field(field, format!("must have at most {max} entries (got {})", items.len())))
    }
}

/// Refuses an id (or pair) that occurs twice in a list, naming it as `field[i]` and `suffix`.
fn distinct<T: Ord>(field: &str, ids: impl Iterator<Item = T>, suffix: &str) -> Result<(), Error> {
    let mut problems = Violated::default();
    let mut seen = BTreeSet::new();
    for (i, id) in ids.enumerate() {
        if !seen.insert(id) {
            problems.add(format!("{field}[{i}]{suffix}"), "is listed twice");
        }
    }
    problems.finish()
}

/// Parses a batch of teams.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field as `teams[i].…`.
pub fn teams(items: Vec<proto::Team>) -> Result<Vec<(Team, Option<Etag>)>, Error> {
    check_batch("teams", &items)?;
    let teams = each("teams", items, team)?;
    distinct("teams", teams.iter().map(|(team, _)| &team.team_id), ".team_id")?;
    Ok(teams)
}

/// Parses a batch of users.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field as `users[i].…`.
pub fn users(items: Vec<proto::User>) -> Result<Vec<(User, Option<Etag>)>, Error> {
    check_batch("users", &items)?;
    let users = each("users", items, user)?;
    distinct("users", users.iter().map(|(user, _)| &user.user_id), ".user_id")?;
    Ok(users)
}

/// Parses the default roles of a catalogue.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field as `default_roles[i].…`.
pub fn default_roles(items: Vec<proto::Role>) -> Result<Vec<Role>, Error> {
    let roles = each("default_roles", items, |item| role(item).map(|(role, _)| role))?;
    distinct("default_roles", roles.iter().map(|role| &role.role_id), ".role_id")?;
    Ok(roles)
}

fn display_name(name: String) -> Result<String, Error> {
    text::check_display_name("display_name", &name).map(|()| name)
}

fn from_role_kind(kind: proto::RoleKind) -> Option<RoleKind> {
    match kind {
        proto::RoleKind::Unspecified => None,
        proto::RoleKind::Base => Some(RoleKind::Base),
        proto::RoleKind::Custom => Some(RoleKind::Custom),
        proto::RoleKind::Team => Some(RoleKind::Team),
    }
}

fn from_user_state(state: proto::UserState) -> Option<UserState> {
    match state {
        proto::UserState::Unspecified => None,
        proto::UserState::Active => Some(UserState::Active),
        proto::UserState::Deactivated => Some(UserState::Deactivated),
    }
}

/// Converts an account to its message.
#[must_use]
pub fn to_account(account: Account) -> proto::Account {
    let state = match account.state {
        AccountState::Active => proto::AccountState::Active,
        AccountState::Suspended => proto::AccountState::Suspended,
        // Never shown: a deleted account is NOT_FOUND (A5).
        AccountState::Deleted => proto::AccountState::Unspecified,
    };
    proto::Account {
        account_id: account.account_id.to_string(),
        display_name: account.display_name,
        state: state.into(),
        create_time: Some(to_timestamp(account.create_time)),
        etag: account.revision.etag().to_string(),
        api_key_count: i32::try_from(account.api_key_count).unwrap_or(i32::MAX),
    }
}

/// Converts a team to its message.
#[must_use]
pub fn to_team(team: Team) -> proto::Team {
    proto::Team {
        team_id: team.team_id.to_string(),
        display_name: team.display_name,
        etag: team.revision.etag().to_string(),
    }
}

/// Converts a role to its message.
#[must_use]
pub fn to_role(role: Role) -> proto::Role {
    let kind = match role.kind {
        RoleKind::Base => proto::RoleKind::Base,
        RoleKind::Custom => proto::RoleKind::Custom,
        RoleKind::Team => proto::RoleKind::Team,
    };
    let (permissions, all_permissions) = match role.permissions {
        RolePermissions::Everything => (vec![], true),
        RolePermissions::Named(names) => (names.into_iter().collect(), false),
    };
    proto::Role {
        role_id: role.role_id.to_string(),
        display_name: role.display_name,
        kind: kind.into(),
        permissions,
        all_permissions,
        etag: role.revision.etag().to_string(),
    }
}

/// Converts a user to its message.
#[must_use]
pub fn to_user(user: User) -> proto::User {
    let state = match user.state {
        UserState::Active => proto::UserState::Active,
        UserState::Deactivated => proto::UserState::Deactivated,
    };
    let to_team_role =
        |(team, role): &(TeamId, RoleId)| proto::TeamRole { team_id: team.to_string(), role_id: role.to_string() };
    proto::User {
        user_id: user.user_id.to_string(),
        display_name: user.display_name,
        state: state.into(),
        base_role_id: user.base_role_id.to_string(),
        custom_role_ids: user.custom_role_ids.iter().map(ToString::to_string).collect(),
        team_roles: user.team_roles.iter().map(to_team_role).collect(),
        etag: user.revision.etag().to_string(),
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;

//! The rules M1-M8, A3 and A4, each with what it allows and what it refuses; then the theorem.

use uuid::Uuid;

use super::*;
use crate::domain::{
    directory::{RolePermissions, user_held},
    log::revision::Revision,
    permissions::{
        catalogue::{PermissionSpec, Usage, plan},
        grants::TeamScope,
    },
};

#[path = "calls.rs"]
mod calls;
#[path = "confinement.rs"]
mod confinement;
#[path = "dormant.rs"]
mod dormant;
#[path = "managing.rs"]
mod managing;
#[path = "model.rs"]
mod model;
#[path = "oracle.rs"]
mod oracle;
#[path = "system.rs"]
mod system;
#[path = "theorem.rs"]
mod theorem;

const REVISION: Revision = Revision { epoch: 1, number: 1 };
const MINUTE: Span = Span::from_secs(60);

struct Unused;

impl Usage for Unused {
    fn held_on_teams(&self, _: &str) -> bool {
        false
    }
}

fn spec(name: &str, team_scopable: bool, implies: &[&str]) -> PermissionSpec {
    PermissionSpec {
        name: name.into(),
        description: String::new(),
        team_scopable,
        implies: implies.iter().map(|name| (*name).to_owned()).collect(),
        retired: false,
    }
}

fn applied(specs: Vec<PermissionSpec>) -> Catalogue {
    let empty = Catalogue::new(Revision { epoch: 1, number: 0 }, vec![]);
    Catalogue::new(REVISION, plan(&empty, specs, &Unused).expect("a good catalogue"))
}

/// `edit` implies `view`, on teams too; `settings` and `pay` are for accounts only; `old` is retired.
fn catalogue() -> Catalogue {
    applied(vec![
        spec("view", true, &[]),
        spec("edit", true, &["view"]),
        spec("settings", false, &["view"]),
        spec("pay", false, &[]),
        spec(MANAGE, true, &[]),
        spec(ROTATE_SELF, true, &[]),
        PermissionSpec { retired: true, ..spec("old", true, &[]) },
    ])
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn teams(teams: &[&str]) -> BTreeSet<TeamId> {
    teams.iter().map(|team| TeamId::from_stored(team)).collect()
}

fn id(n: u128) -> KeyId {
    KeyId::from_uuid(Uuid::from_u128(n))
}

fn at(micros: i64) -> Option<Timestamp> {
    Some(Timestamp::from_micros(micros))
}

/// Grants of both scopes; without teams or team permissions there is no team scope.
fn grants(account: &[&str], on: &[&str], permissions: &[&str]) -> Grants {
    let team_scope = TeamScope::from_stored(teams(on), names(permissions));
    Grants { account_permissions: names(account), team_scope }
}

fn key(account: &[&str], on: &[&str], permissions: &[&str]) -> Subject {
    Subject { grants: grants(account, on, permissions), expire_time: None }
}

fn until(micros: i64, key: Subject) -> Subject {
    Subject { expire_time: at(micros), ..key }
}

/// A user of account `acme` with these permissions account-wide and on teams.
fn user(account: &[&str], on_teams: &[(&str, &[&str])]) -> Caller {
    let base = (RolePermissions::Named(names(account)), None);
    let on_teams = on_teams.iter().map(|(team, set)| (RolePermissions::Named(names(set)), TeamId::from_stored(team)));
    user_of(on_teams.map(|(role, team)| (role, Some(team))).chain([base]).collect())
}

fn user_of(roles: Vec<(RolePermissions, Option<TeamId>)>) -> Caller {
    Caller {
        account_id: AccountId::from_stored("acme"),
        identity: Identity::User { user_id: UserId::from_stored("ann"), service_key_id: id(99) },
        held: user_held(&roles, &catalogue()),
        named: Named::User(roles),
    }
}

/// A key as caller, with its current token.
fn bearer(key_id: KeyId, account_id: &AccountId, key: &Subject) -> Caller {
    Caller {
        account_id: account_id.clone(),
        identity: Identity::Key { key_id, expire_time: key.expire_time, token_end_time: None },
        held: Held::of(&key.grants, &catalogue()),
        named: Named::Key(key.grants.clone()),
    }
}

fn acme_key(key: &Subject) -> Caller {
    bearer(id(1), &AccountId::from_stored("acme"), key)
}

/// The same key with a token that ends because a newer one replaced it.
fn retiring(micros: i64, caller: Caller) -> Caller {
    let Identity::Key { key_id, expire_time, .. } = caller.identity else { panic!("a user has no token") };
    Caller { identity: Identity::Key { key_id, expire_time, token_end_time: at(micros) }, ..caller }
}

fn operator() -> Caller {
    bearer(id(1), &AccountId::system(), &key(&["system.operate"], &[], &[]))
}

fn create(caller: &Caller, new: &Subject) -> Result<(), Error> {
    check_create(caller, new, &catalogue())
}

fn update(caller: &Caller, before: &Subject, after: &Subject) -> Result<(), Error> {
    check_update(caller, id(2), before, after, &catalogue())
}

fn enable(caller: &Caller, key: &Subject) -> Result<(), Error> {
    check_enable(caller, id(2), key, &catalogue())
}

fn narrow(caller: &Caller, key: &Subject) -> Result<(), Error> {
    check_narrow(caller, key, &catalogue())
}

fn rotate(caller: &Caller, key: &Subject) -> Result<(), Error> {
    check_rotate(caller, id(2), key, MINUTE, &catalogue())
}

#[track_caller]
fn refused_by(rule: &str, result: Result<(), Error>) {
    match result {
        Err(Error::NotAllowed { rule: by, .. }) => assert_eq!(by, rule),
        other => panic!("{rule} should have refused it: {other:?}"),
    }
}

#[track_caller]
fn lacks(permission: &str, team: Option<&str>, result: Result<(), Error>) {
    let team = team.map(str::to_owned);
    assert_eq!(result, Err(Error::PermissionMissing { permission: permission.into(), team }));
}

#[track_caller]
fn invisible(result: Result<(), Error>) {
    assert_eq!(result, Err(Error::NotFound(ObjectKind::ApiKey)));
}

//! Objects of the directory, and catalogues, that cannot be.

use latchkey::proto::{
    Account, ApplyCatalogueRequest, BatchUpsertUsersRequest, Catalogue, GetCatalogueRequest, Permission, Role,
    RoleKind, Team, TeamRole, UpsertAccountRequest, UpsertRoleRequest, UpsertTeamRequest, UpsertUserRequest, User,
    UserState,
};
use tonic::Status;

use super::*;
use crate::support::world::*;

fn user() -> User {
    User { user_id: "u".into(), state: UserState::Active.into(), base_role_id: "owner".into(), ..Default::default() }
}

fn role() -> Role {
    Role { role_id: "r".into(), kind: RoleKind::Base.into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_object_of_the_directory_is_refused_by_field() {
    let world = World::start().await;
    let unchanged = Unchanged::since_now(&world).await;
    let directory = || world.directory.directory();
    let (long, account_id) = ("n".repeat(201), || ACME.to_owned());
    for (account, field) in [
        (Account { account_id: "a b".into(), ..Default::default() }, "account.account_id"),
        (Account::default(), "account.account_id"),
        (Account { account_id: "a".into(), display_name: long.clone(), ..Default::default() }, "account.display_name"),
        (Account { account_id: "a".into(), display_name: "\0".into(), ..Default::default() }, "account.display_name"),
    ] {
        let request = UpsertAccountRequest { account: Some(account), validate_only: false, ..Default::default() };
        bad_field(directory().upsert_account(request).await, field);
    }
    for (team, field) in [
        (Team { team_id: "é".into(), ..Default::default() }, "team.team_id"),
        (Team { team_id: "t".into(), display_name: "a\nb".into(), ..Default::default() }, "team.display_name"),
    ] {
        let request = UpsertTeamRequest {
            account_id: account_id(),
            team: Some(team),
            validate_only: false,
            ..Default::default()
        };
        bad_field(directory().upsert_team(request).await, field);
    }
    for (role, field) in [
        (Role { role_id: "/".into(), ..role() }, "role.role_id"),
        (Role { kind: 0, ..role() }, "role.kind"),
        (Role { kind: 99, ..role() }, "role.kind"),
        (Role { display_name: long.clone(), ..role() }, "role.display_name"),
        (Role { permissions: strings(&["billing.manage", ""]), ..role() }, "role.permissions[1]"),
        (Role { permissions: strings(&["billing.manage", "billing.manage"]), ..role() }, "role.permissions[1]"),
        (Role { permissions: strings(&["no.such"]), ..role() }, "role.permissions"),
    ] {
        let request = UpsertRoleRequest {
            account_id: account_id(),
            role: Some(role),
            validate_only: false,
            ..Default::default()
        };
        bad_field(directory().upsert_role(request).await, field);
    }
    let on = |team: &str, role: &str| TeamRole { team_id: team.into(), role_id: role.into() };
    for (user, field) in [
        (User { user_id: "a b".into(), ..user() }, "user.user_id"),
        (User { state: 0, ..user() }, "user.state"),
        (User { state: 99, ..user() }, "user.state"),
        (User { base_role_id: String::new(), ..user() }, "user.base_role_id"),
        (User { display_name: long, ..user() }, "user.display_name"),
        (User { custom_role_ids: strings(&["a b"]), ..user() }, "user.custom_role_ids[0]"),
        (User { custom_role_ids: strings(&["c", "c"]), ..user() }, "user.custom_role_ids[1]"),
        (User { custom_role_ids: vec!["c".into(); 101], ..user() }, "user.custom_role_ids"),
        (User { team_roles: vec![on("a b", "member")], ..user() }, "user.team_roles[0].team_id"),
        (User { team_roles: vec![on("red", "")], ..user() }, "user.team_roles[0].role_id"),
        (User { team_roles: vec![on("red", "member"), on("red", "member")], ..user() }, "user.team_roles[1]"),
        (User { team_roles: vec![on("red", "member"); 1_001], ..user() }, "user.team_roles"),
    ] {
        let one = UpsertUserRequest {
            account_id: account_id(),
            user: Some(user.clone()),
            validate_only: false,
            ..Default::default()
        };
        bad_field(directory().upsert_user(one).await, field);
        let good = User { user_id: "good".into(), ..self::user() };
        let batch = BatchUpsertUsersRequest { account_id: account_id(), users: vec![good, user], ..Default::default() };
        bad_field(directory().batch_upsert_users(batch).await, &field.replace("user.", "users[1]."));
    }
    unchanged.still(&world).await;
}

async fn apply(world: &World, catalogue: Catalogue) -> Result<(), Status> {
    let request = ApplyCatalogueRequest { catalogue: Some(catalogue), validate_only: false, ..Default::default() };
    world.server.operator.directory().apply_catalogue(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_catalogue_is_refused_by_field() {
    let world = World::start().await;
    let current = world.server.operator.directory().get_catalogue(GetCatalogueRequest {}).await.expect("the catalogue");
    let current = Catalogue { etag: String::new(), ..current.into_inner().catalogue.expect("a catalogue") };
    let unchanged = Unchanged::since_now(&world).await;
    let next = current.permissions.len();
    let with = |permission: Permission| {
        let mut catalogue = current.clone();
        catalogue.permissions.push(permission);
        catalogue
    };
    let named = |name: &str| Permission { name: name.into(), ..Default::default() };
    let implying = |name: &str, team_scopable: bool, implied: &str| Permission {
        team_scopable,
        implies: strings(&[implied]),
        ..named(name)
    };
    let at = |field: &str| format!("catalogue.permissions[{next}].{field}");
    for (permission, field) in [
        (named(""), "name"),
        (named("Bad"), "name"),
        (named("a..b"), "name"),
        (named(&"a".repeat(65)), "name"),
        (named("system.mine"), "name"),
        (named("system"), "name"),
        (named("billing.manage"), "name"),
        (Permission { description: "d".repeat(1_001), ..named("x") }, "description"),
        (implying("x", false, "nowhere"), "implies[0]"),
        (implying("x", false, "api_keys.manage"), "implies[0]"),
        (implying("x", false, "api_keys.rotate_self"), "implies[0]"),
        (implying("x", false, "system.verify"), "implies[0]"),
        // What a team-scopable one implies must be team-scopable too.
        (implying("x", true, "billing.manage"), "implies[0]"),
    ] {
        bad_field(apply(&world, with(permission)).await, &at(field));
    }
    let mut fewer = current.clone();
    fewer.permissions.pop();
    bad_field(apply(&world, fewer).await, "catalogue.permissions");
    let many = Catalogue { permissions: (0..257).map(|i| named(&format!("p{i}"))).collect(), ..Default::default() };
    bad_field(apply(&world, many).await, "catalogue.permissions");
    for (role, field) in [
        (Role { kind: 0, ..role() }, "kind"),
        (Role { role_id: "a b".into(), ..role() }, "role_id"),
        (Role { permissions: strings(&["no.such"]), ..role() }, "permissions"),
        (Role { role_id: "owner".into(), ..role() }, "role_id"),
    ] {
        let mut catalogue = current.clone();
        let place = format!("catalogue.default_roles[{}].{field}", catalogue.default_roles.len());
        catalogue.default_roles.push(role);
        bad_field(apply(&world, catalogue).await, &place);
    }
    unchanged.still(&world).await;
    apply(&world, with(implying("x", true, "secrets.use"))).await.expect("a good one");
}

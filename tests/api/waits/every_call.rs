//! Every mutating call of the contract: what its propagation says, and whether it waits.

use std::collections::BTreeSet;

use latchkey::{
    grpc::DESCRIPTORS,
    proto::{
        Account, ApiKey, ApplyCatalogueRequest, BatchUpsertTeamsRequest, BatchUpsertUsersRequest, CreateApiKeyRequest,
        DeleteAccountRequest, DeleteRoleRequest, DeleteTeamRequest, DeleteUserRequest, EnableApiKeyRequest,
        ResumeAccountRequest, RevokeTokenRequest, Role, RoleKind, RotateApiKeyRequest, SuspendAccountRequest, Team,
        UpdateApiKeyRequest, UpsertAccountRequest, UpsertRoleRequest, UpsertTeamRequest, UpsertUserRequest, User,
        UserState,
    },
};
use prost::Message;
use prost_types::{FieldMask, FileDescriptorSet};

use super::*;
use crate::support::{
    calls::{catalogue, head},
    world::strings,
};

/// Each mutating call, and whether it can take authority away as it is made here.
const CALLS: &[(&str, bool)] = &[
    ("CreateApiKey", false),
    ("UpdateApiKey", true),
    ("RotateApiKey", true),
    ("DisableApiKey", true),
    ("EnableApiKey", false),
    ("DeleteApiKey", true),
    ("RevokeToken", true),
    ("UpsertAccount", false),
    ("UpsertAccount again", true),
    ("SuspendAccount", true),
    ("ResumeAccount", false),
    ("DeleteAccount", true),
    ("UpsertTeam", false),
    ("UpsertTeam again", true),
    ("BatchUpsertTeams", false),
    ("BatchUpsertTeams again", true),
    ("DeleteTeam", true),
    ("UpsertRole", false),
    ("UpsertRole again", true),
    ("DeleteRole", true),
    ("UpsertUser", false),
    ("UpsertUser again", true),
    ("BatchUpsertUsers", false),
    ("BatchUpsertUsers again", true),
    ("DeleteUser", true),
    ("ApplyCatalogue", true),
];

/// Calls that tell a propagation and change nothing, or are not offered yet.
const OTHERS: &[&str] = &["AwaitPropagation", "ReportLeakedToken"];

/// Makes the call, on objects of its own that are made by calls which do not wait.
async fn make(world: &World, call: &str, how: How) -> Done {
    match call {
        "CreateApiKey" | "UpdateApiKey" | "RotateApiKey" | "DisableApiKey" | "EnableApiKey" | "DeleteApiKey"
        | "RevokeToken" => of_a_key(world, call, how).await,
        "UpsertAccount" | "UpsertAccount again" | "SuspendAccount" | "ResumeAccount" | "DeleteAccount" => {
            of_an_account(world, call, how).await
        }
        "ApplyCatalogue" => {
            let mut catalogue = catalogue(world).await;
            catalogue.default_roles[0].permissions.clear();
            let message = ApplyCatalogueRequest {
                catalogue: Some(catalogue),
                skip_propagation_wait: how.skip,
                ..Default::default()
            };
            timed!(world.server.operator.directory(), apply_catalogue, how, message)
        }
        _ => of_the_directory(world, call, how).await,
    }
}

async fn of_a_key(world: &World, call: &str, how: How) -> Done {
    let (owner, account_id, skip_propagation_wait) = (world.user("owner"), ACME.to_owned(), how.skip);
    let held = key("k", &["incidents.view"]);
    if call == "CreateApiKey" {
        let message =
            CreateApiKeyRequest { account_id, api_key: Some(held), skip_propagation_wait, ..Default::default() };
        return timed!(owner.keys(), create_api_key, how, message);
    }
    let minted = create(&owner, ACME, &held).await.expect("minted");
    let key_id = minted.api_key.expect("a key").key_id;
    match call {
        "UpdateApiKey" => {
            let api_key = Some(ApiKey { key_id, ..key("k", &[]) });
            let update_mask = Some(FieldMask { paths: strings(&["account_permissions"]) });
            let message =
                UpdateApiKeyRequest { account_id, api_key, update_mask, skip_propagation_wait, ..Default::default() };
            timed!(owner.keys(), update_api_key, how, message)
        }
        "RotateApiKey" => {
            let message = RotateApiKeyRequest { account_id, key_id, skip_propagation_wait, ..Default::default() };
            timed!(owner.keys(), rotate_api_key, how, message)
        }
        "DisableApiKey" => disable(&owner, &key_id, how).await.expect("answered in time"),
        "EnableApiKey" => {
            disable(&owner, &key_id, How { skip: true, timeout: None }).await.expect("disabled");
            let message = EnableApiKeyRequest { account_id, key_id, skip_propagation_wait, ..Default::default() };
            timed!(owner.keys(), enable_api_key, how, message)
        }
        "DeleteApiKey" => delete(&owner, &key_id, how).await.expect("answered in time"),
        _ => {
            let itself = world.server.caller(&minted.token);
            timed!(itself.tokens(), revoke_token, how, RevokeTokenRequest { skip_propagation_wait })
        }
    }
}

async fn of_an_account(world: &World, call: &str, how: How) -> Done {
    let account_id = call.replace(' ', "_");
    let skip_propagation_wait = how.skip;
    let upsert = |display_name: &str, skip_propagation_wait| UpsertAccountRequest {
        account: Some(Account {
            account_id: account_id.clone(),
            display_name: display_name.into(),
            ..Default::default()
        }),
        skip_propagation_wait,
        ..Default::default()
    };
    let mut client = world.directory.directory();
    if call == "UpsertAccount" {
        return timed!(client, upsert_account, how, upsert("one", skip_propagation_wait));
    }
    client.upsert_account(upsert("one", true)).await.expect("an account");
    match call {
        "UpsertAccount again" => timed!(client, upsert_account, how, upsert("two", skip_propagation_wait)),
        "SuspendAccount" => {
            timed!(client, suspend_account, how, SuspendAccountRequest { account_id, skip_propagation_wait })
        }
        "ResumeAccount" => {
            let first = SuspendAccountRequest { account_id: account_id.clone(), skip_propagation_wait: true };
            client.suspend_account(first).await.expect("suspended");
            timed!(client, resume_account, how, ResumeAccountRequest { account_id, skip_propagation_wait })
        }
        _ => {
            let message = DeleteAccountRequest { account_id, skip_propagation_wait, ..Default::default() };
            timed!(client, delete_account, how, message)
        }
    }
}

fn a_team(name: &str) -> Team {
    Team { team_id: "t".into(), display_name: name.into(), ..Default::default() }
}

fn a_role(name: &str) -> Role {
    Role { role_id: "r".into(), display_name: name.into(), kind: RoleKind::Custom.into(), ..Default::default() }
}

fn a_user(name: &str) -> User {
    User {
        user_id: "u".into(),
        display_name: name.into(),
        state: UserState::Active.into(),
        base_role_id: "owner".into(),
        ..Default::default()
    }
}

/// A team, a role or a user, in an account of the call's own.
async fn of_the_directory(world: &World, call: &str, how: How) -> Done {
    let mut client = world.directory.directory();
    let account_id = call.replace(' ', "_");
    let account = Account { account_id: account_id.clone(), ..Default::default() };
    let message = UpsertAccountRequest { account: Some(account), ..Default::default() };
    client.upsert_account(message).await.expect("an account");
    let skip_propagation_wait = how.skip;
    let id = || account_id.clone();
    let team = |name: &str| UpsertTeamRequest {
        account_id: id(),
        team: Some(a_team(name)),
        skip_propagation_wait,
        ..Default::default()
    };
    let role = |name: &str| UpsertRoleRequest {
        account_id: id(),
        role: Some(a_role(name)),
        skip_propagation_wait,
        ..Default::default()
    };
    let user = |name: &str| UpsertUserRequest {
        account_id: id(),
        user: Some(a_user(name)),
        skip_propagation_wait,
        ..Default::default()
    };
    let teams =
        |name: &str| BatchUpsertTeamsRequest { account_id: id(), teams: vec![a_team(name)], skip_propagation_wait };
    let users =
        |name: &str| BatchUpsertUsersRequest { account_id: id(), users: vec![a_user(name)], skip_propagation_wait };
    if call.contains(' ') || call.starts_with("Delete") {
        // Creations do not wait.
        client.upsert_team(team("one")).await.expect("a team");
        client.upsert_role(role("one")).await.expect("a role");
        client.upsert_user(user("one")).await.expect("a user");
    }
    match call {
        "UpsertTeam" | "UpsertTeam again" => timed!(client, upsert_team, how, team("two")),
        "UpsertRole" | "UpsertRole again" => timed!(client, upsert_role, how, role("two")),
        "UpsertUser" | "UpsertUser again" => timed!(client, upsert_user, how, user("two")),
        "BatchUpsertTeams" | "BatchUpsertTeams again" => timed!(client, batch_upsert_teams, how, teams("two")),
        "BatchUpsertUsers" | "BatchUpsertUsers again" => timed!(client, batch_upsert_users, how, users("two")),
        "DeleteTeam" => {
            let team_id = "t".into();
            let message = DeleteTeamRequest { account_id: id(), team_id, skip_propagation_wait, ..Default::default() };
            timed!(client, delete_team, how, message)
        }
        "DeleteRole" => {
            let role_id = "r".into();
            let message = DeleteRoleRequest { account_id: id(), role_id, skip_propagation_wait, ..Default::default() };
            timed!(client, delete_role, how, message)
        }
        "DeleteUser" => {
            let user_id = "u".into();
            let message = DeleteUserRequest { account_id: id(), user_id, skip_propagation_wait, ..Default::default() };
            timed!(client, delete_user, how, message)
        }
        other => panic!("how is {other} made?"),
    }
}

#[test]
fn the_table_has_every_call_that_tells_a_propagation() {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors").file;
    let own: Vec<_> = files.iter().filter(|file| file.package() == "latchkey.v1").collect();
    let telling: BTreeSet<_> = own
        .iter()
        .flat_map(|file| &file.message_type)
        .filter(|message| message.field.iter().any(|field| field.name() == "propagation"))
        .map(|message| format!(".latchkey.v1.{}", message.name()))
        .collect();
    let methods = own.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let rows: BTreeSet<_> =
        methods.filter(|method| telling.contains(method.output_type())).map(|method| method.name()).collect();
    let listed = CALLS.iter().map(|(call, _)| call.split(' ').next().expect("a name"));
    assert_eq!(listed.chain(OTHERS.iter().copied()).collect::<BTreeSet<_>>(), rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_every_mutating_call_is_complete_at_the_revision_of_its_event() {
    let world = World::start().await;
    for (call, _) in CALLS {
        let done = make(&world, call, How::default()).await.propagation;
        assert_eq!((done.complete, done.pending_replicas), (true, 0), "{call}");
        assert_eq!(done.revision.map(|revision| revision.number), Some(head(&world).await), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_what_can_take_authority_away_waits_for_a_lost_replica_and_nothing_else_does() {
    let world = World::start().await;
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    for (call, narrows) in CALLS {
        let Done { propagation: done, elapsed } = make(&world, call, How::within(500)).await;
        assert_eq!((done.complete, done.pending_replicas), (!narrows, i32::from(*narrows)), "{call}");
        assert!(!narrows || elapsed >= Duration::from_millis(300), "{call} {elapsed:?}");
        assert_eq!(done.revision.map(|revision| revision.number), Some(head(&world).await), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_not_to_wait_is_answered_at_once() {
    let world = World::start().await;
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    for (call, narrows) in CALLS {
        let Done { propagation: done, elapsed } = make(&world, call, How { skip: true, timeout: None }).await;
        // The lost one; its own server may not have applied it yet either.
        let pending = if *narrows { 1..=2 } else { 0..=0 };
        assert!(done.complete != *narrows && pending.contains(&done.pending_replicas), "{call} {done:?}");
        assert!(elapsed < Duration::from_secs(3), "{call} {elapsed:?}");
        assert_eq!(done.revision.map(|revision| revision.number), Some(head(&world).await), "{call}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_validates_waits_for_no_replica_and_is_not_complete() {
    let world = World::start().await;
    add_dead_replica(&world, FOR_EVER_MS, 0).await;
    let head = head(&world).await;
    for role_id in ["new", "standard"] {
        let role = Role {
            role_id: role_id.into(),
            kind: if role_id == "new" { RoleKind::Custom } else { RoleKind::Base }.into(),
            ..Default::default()
        };
        let message =
            UpsertRoleRequest { account_id: ACME.into(), role: Some(role), validate_only: true, ..Default::default() };
        let done = timed!(world.directory.directory(), upsert_role, How::default(), message).propagation;
        assert_eq!((done.complete, done.pending_replicas), (false, 0), "{role_id}");
        assert_eq!(done.revision.map(|revision| revision.number), Some(head), "{role_id}");
    }
}

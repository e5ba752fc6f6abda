//! A watch ends with its caller's authority, says why, and tells nothing after.

use std::time::Duration;

use latchkey::proto::{ApiKey, DeleteApiKeyRequest, Role, RoleKind, UpsertRoleRequest, UserState, api_key::Expiry};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{Watch, at, narrow, teams};
use crate::support::{Caller, World, calls::*, world::*};

/// The watch ended for a reason, and none of the events from `ended` on was told.
#[track_caller]
fn assert_ended((events, status): (Vec<i64>, Status), ended: i64, code: Code, reason: &str, names: &str) {
    assert!(events.iter().all(|event| *event < ended), "{events:?} of {ended} and later");
    assert_refused(Err::<(), _>(status), code, reason, names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_its_callers_key_loses_its_authority() {
    let world = World::start().await;
    let owner = world.user("owner");
    for (n, (how, code, reason, names)) in [
        ("deleted", Code::Unauthenticated, "BAD_CREDENTIALS", "DELETED"),
        ("disabled", Code::Unauthenticated, "BAD_CREDENTIALS", "DISABLED"),
        ("rotated", Code::Unauthenticated, "BAD_CREDENTIALS", "ROTATED"),
        ("revoked", Code::Unauthenticated, "BAD_CREDENTIALS", "DELETED"),
        ("narrowed", Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage"),
        ("suspended", Code::Unauthenticated, "ACCOUNT_SUSPENDED", "suspended"),
    ]
    .into_iter()
    .enumerate()
    {
        let minted = create(&owner, ACME, &key("manager", &["api_keys.manage"])).await.unwrap();
        let (id, caller) = (minted.api_key.unwrap().key_id, world.server.caller(&minted.token));
        let before = head(&world).await;
        let mut quiet = Watch::open(&caller, ACME, at(before)).await.expect(how);
        let mut replaying = Watch::open(&caller, ACME, None).await.expect(how);
        match how {
            "deleted" => drop(delete(&owner, ACME, &id).await.unwrap()),
            "disabled" => drop(disable(&owner, ACME, &id).await.unwrap()),
            "rotated" => drop(rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap()),
            "revoked" => drop(revoke(&caller).await.unwrap()),
            "narrowed" => {
                let none = ApiKey { key_id: id.clone(), ..key("k", &[]) };
                drop(update(&owner, ACME, none, &["account_permissions"]).await.unwrap());
            }
            _ => suspend(&world, ACME).await,
        }
        teams(&world, ACME, &format!("after{n}-"), 3).await;
        for watch in [&mut quiet, &mut replaying] {
            assert_ended(watch.end().await, before + 1, code, reason, names);
        }
        let refused = Watch::open(&caller, ACME, None).await;
        assert_refused(refused, code, reason, names);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_soon_after_its_caller_expires() {
    let world = World::start().await;
    let ttl = Duration::from_millis(1_500);
    let expiring = ApiKey { expiry: Some(Expiry::Ttl(millis(1_500))), ..key("k", &["system.events"]) };
    let minted = create(&world.server.operator, "system", &expiring).await.unwrap();
    let expires = Instant::now() + ttl;
    let mut watch = Watch::open(&world.server.caller(&minted.token), ACME, at(head(&world).await)).await.expect("open");
    let end = watch.end().await;
    let late = Instant::now().saturating_duration_since(expires);
    // Half a second, and the rest for a busy machine.
    assert!(late < Duration::from_millis(1_500), "{late:?}");
    assert_ended(end, 0, Code::Unauthenticated, "BAD_CREDENTIALS", "EXPIRED");
}

/// A base role that manages keys, or does not.
async fn put_role(world: &World, permissions: &[&str]) {
    let role = Role {
        role_id: "shifting".into(),
        kind: RoleKind::Base.into(),
        permissions: strings(permissions),
        ..Default::default()
    };
    let request = UpsertRoleRequest { account_id: ACME.into(), role: Some(role), ..Default::default() };
    world.directory.directory().upsert_role(request).await.expect("a role");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_for_a_user_ends_when_the_user_or_the_service_loses_its_authority() {
    let world = World::start().await;
    let operator = &world.server.operator;
    for (n, (how, code, reason, names)) in [
        ("deactivated", Code::Unauthenticated, "BAD_USER", "user"),
        ("narrowed", Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage"),
        ("service narrowed", Code::PermissionDenied, "PERMISSION_MISSING", "system.impersonate"),
        ("service deleted", Code::Unauthenticated, "BAD_CREDENTIALS", "DELETED"),
        ("suspended", Code::Unauthenticated, "ACCOUNT_SUSPENDED", "suspended"),
    ]
    .into_iter()
    .enumerate()
    {
        put_role(&world, &["api_keys.manage"]).await;
        world.make_user(ACME, "watcher", "shifting", &[], UserState::Active).await;
        let minted = create(operator, "system", &key("service", &["system.impersonate"])).await.unwrap();
        let id = minted.api_key.unwrap().key_id;
        let caller: Caller = world.server.caller(&minted.token).for_user(ACME, "watcher");
        let before = head(&world).await;
        let mut quiet = Watch::open(&caller, ACME, at(before)).await.expect(how);
        let mut replaying = Watch::open(&caller, ACME, None).await.expect(how);
        match how {
            "deactivated" => world.make_user(ACME, "watcher", "shifting", &[], UserState::Deactivated).await,
            "narrowed" => put_role(&world, &["incidents.view"]).await,
            "service narrowed" => {
                let none = ApiKey { key_id: id, ..key("k", &[]) };
                drop(update(operator, "system", none, &["account_permissions"]).await.unwrap());
            }
            "service deleted" => {
                let request = DeleteApiKeyRequest { account_id: "system".into(), key_id: id, ..Default::default() };
                operator.keys().delete_api_key(request).await.expect("deleted");
            }
            _ => suspend(&world, ACME).await,
        }
        teams(&world, ACME, &format!("after{n}-"), 3).await;
        for watch in [&mut quiet, &mut replaying] {
            assert_ended(watch.end().await, before + 1, code, reason, names);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_events_opens_no_watch() {
    let world = World::start().await;
    let denied = Watch::open(&world.verifier, "", None).await;
    assert_refused(denied, Code::PermissionDenied, "PERMISSION_MISSING", "system.events");
    let denied = Watch::open(&world.user("red_manager"), ACME, None).await;
    assert_refused(denied, Code::PermissionDenied, "PERMISSION_MISSING", "api_keys.manage");
    let hidden = Watch::open(&world.user("owner"), OTHER, None).await;
    assert_refused(hidden, Code::NotFound, "NOT_FOUND", "account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_that_still_waits_is_not_sent_after_the_end_of_authority() {
    let world = World::start().await;
    teams(&world, ACME, "many", 1_000).await;
    let minted = create(&world.user("owner"), ACME, &key("manager", &["api_keys.manage"])).await.unwrap();
    for caller in [world.server.caller(&minted.token), world.user("owner")] {
        let mut watch = Watch::open(&narrow(&world, &caller).await, ACME, None).await.expect("open");
        watch.event().await.expect("open");
        if caller.on_behalf_of.is_none() {
            delete(&world.user("owner"), ACME, &minted.api_key.as_ref().unwrap().key_id).await.unwrap();
        } else {
            world.make_user(ACME, "owner", "owner", &[], UserState::Deactivated).await;
        }
        // What the client's window had taken already still comes.
        let (events, status) = watch.end().await;
        assert!(events.len() < 700, "{}", events.len());
        let reason = if caller.on_behalf_of.is_none() { "BAD_CREDENTIALS" } else { "BAD_USER" };
        assert_refused(Err::<(), _>(status), Code::Unauthenticated, reason, "");
    }
}

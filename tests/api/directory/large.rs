//! Accounts and teams of any size are deleted in bounded time, and what is left is removed later.
//!
//! A tenth of the size that is promised; `LATCHKEY_TEST_LARGE=1` for all of it, with the times.

use std::time::Duration;

use latchkey::proto::{
    ApiKeyState, EventKind, GetIdentityRequest, ListApiKeysRequest, ListEventsRequest, VerificationOutcome as Outcome,
    VerifyEventChainRequest,
};
use prost::Message;
use tokio::time::Instant;
use tonic::Code;
use tonic_types::StatusExt;

use super::*;
use crate::support::{Server, sql};

/// Users with a role on each of five teams, and keys that all name the first of them, behind the server's back.
const ROWS: &str = "
    BEGIN;
    ALTER TABLE api_keys DISABLE TRIGGER USER; ALTER TABLE api_key_teams DISABLE TRIGGER USER;
    INSERT INTO teams (account_id, team_id, display_name, revision_epoch, revision_number)
        SELECT 'acme', 'big' || t, 'T', 1, 1 FROM generate_series(1, 5) t;
    INSERT INTO users (account_id, user_id, display_name, state, base_role_id, revision_epoch, revision_number)
        SELECT 'acme', 'u' || n, 'U', 'active', 'standard', 1, 1 FROM generate_series(1, {USERS}) n;
    INSERT INTO user_roles (account_id, user_id, role_id, role_kind, team_id)
        SELECT 'acme', 'u' || n, 'manager', 'team', 'big' || t FROM generate_series(1, {USERS}) n, generate_series(1, 5) t;
    CREATE TEMP TABLE made AS SELECT gen_random_uuid() AS key_id, n FROM generate_series(1, {KEYS}) n;
    INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, state,
            token_hint, create_time, update_time, rotate_time, revision_epoch, revision_number)
        SELECT key_id, 'acme', 'k', '', '{}', '{}', '{secrets.use}', 'active', 'lk_', now(), now(), now(), 1, 1 FROM made;
    INSERT INTO api_key_teams SELECT 'acme', key_id, 'big1' FROM made;
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time)
        SELECT sha256(key_id::text::bytea), key_id, 'test', now() FROM made;
    INSERT INTO token_usage SELECT digest, key_id, now() FROM api_key_secrets
        ON CONFLICT DO NOTHING;
    UPDATE accounts SET api_key_count = api_key_count + {KEYS} WHERE account_id = 'acme';
    ALTER TABLE api_keys ENABLE TRIGGER USER; ALTER TABLE api_key_teams ENABLE TRIGGER USER;
    COMMIT;";

struct Size {
    users: usize,
    keys: usize,
    is_whole: bool,
}

fn size() -> Size {
    let is_whole = std::env::var_os("LATCHKEY_TEST_LARGE").is_some();
    let of = |whole: usize| if is_whole { whole } else { whole / 10 };
    Size { users: of(100_000), keys: of(200_000), is_whole }
}

async fn large_world() -> (World, Size) {
    let server = Server::start_with(|flags| flags.with("api_keys_per_account_max", "1000000")).await;
    let (world, size) = (World::on(server).await, size());
    let rows = ROWS.replace("{USERS}", &size.users.to_string()).replace("{KEYS}", &size.keys.to_string());
    timed(&size, "written", sql::run(&world.server.database, &rows)).await;
    (world, size)
}

async fn timed<T>(size: &Size, what: &str, call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = call.await;
    if size.is_whole {
        println!("{what}: {} ms", started.elapsed().as_millis());
    }
    done
}

async fn count(world: &World, from: &str) -> usize {
    let lines = sql::lines(&world.server.database, &format!("SELECT count(*)::text AS line FROM {from}")).await;
    lines[0].parse().expect("a number")
}

async fn purged(world: &World) {
    let started = Instant::now();
    while count(world, "accounts WHERE purging OR purging_team_ids <> '{}'").await > 0 {
        assert!(started.elapsed() < Duration::from_secs(600), "the purge goes on");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The events of a kind after a number, all pages; none is larger than a watcher takes.
async fn all_events(world: &World, kind: EventKind) -> Vec<latchkey::proto::Event> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEventsRequest { page_size: 20, page_token, kinds: vec![kind.into()], ..Default::default() };
        let page = world.auditor.events().list_events(request).await.expect("a page").into_inner();
        events.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            assert!(events.iter().all(|event| event.encoded_len() <= 1 << 20));
            return events;
        }
    }
}

async fn chain_verifies(world: &World) {
    let mut start_number = 0;
    loop {
        let request = VerifyEventChainRequest { start_number, ..Default::default() };
        let report = world.auditor.events().verify_event_chain(request).await.expect("a report").into_inner();
        assert!(report.valid, "{report:?}");
        start_number = report.next_start_number;
        if start_number == 0 {
            return;
        }
    }
}

fn still_deleting<T>(result: Result<T, Status>, names: &str) {
    let Err(status) = result else { panic!("it must be refused") };
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    refused::<()>(Err(status), Code::FailedPrecondition, "STILL_DELETING", names);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_team_and_an_account_of_any_size_are_deleted_at_once_and_purged_after() {
    let (world, size) = large_world().await;
    let owner = world.user("owner");
    let last = mint(&owner, &team_key("last", &[], &["big1"], &["secrets.use"])).await.expect("a key");
    let shared = mint(&owner, &team_key("shared", &[], &["big1", "red"], &["secrets.use"])).await.expect("a key");
    let u1 = world.user("u1");
    let identity = async |size: &Size| {
        let identity = timed(size, "GetIdentity", u1.tokens().get_identity(GetIdentityRequest {})).await;
        format!("{:?}", identity.expect("an identity").into_inner())
    };
    assert!(identity(&size).await.contains("\"big1\""));
    let on_big1 =
        ListApiKeysRequest { account_id: ACME.into(), team_id: "big1".into(), page_size: 10, ..Default::default() };
    let listed =
        async || owner.keys().list_api_keys(on_big1.clone()).await.expect("a page").into_inner().api_keys.len();
    assert_eq!(listed().await, 10);
    assert_eq!(world.outcome(&last.token, "secrets.use", &["big1"]).await, Outcome::Valid);

    timed(&size, "DeleteTeam", delete_team(&world.directory, "big1", "")).await.expect("deleted");
    still_deleting(put_team(&world.directory, team("big1", "again")).await, "big1");
    still_deleting(delete_role(&world.directory, "manager", "").await, "manager");
    for made in [&last, &shared] {
        assert_eq!(world.outcome(&made.token, "secrets.use", &["big1"]).await, Outcome::PermissionDenied);
        assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Valid);
    }
    assert_eq!(world.outcome(&shared.token, "secrets.use", &["red"]).await, Outcome::Valid);
    assert_eq!(get(&owner, last.id()).await.expect("a key").team_scope, None);
    assert_eq!(get(&owner, shared.id()).await.expect("a key").team_scope.expect("red").team_ids, ["red"]);
    not_found(get_team(&world.directory, "big1").await);
    not_found(delete_team(&world.directory, "big1", "").await);
    assert_eq!(listed().await, 0);
    assert!(!identity(&size).await.contains("\"big1\""));
    let manager = get_user(&world.directory, "u1").await.expect("a user");
    assert!(manager.team_roles.iter().all(|held| held.team_id != "big1") && manager.team_roles.len() == 4);
    bad_field(mint(&owner, &team_key("k", &[], &["big1"], &["secrets.use"])).await, "api_key.team_scope.team_ids");
    // An edit meanwhile finds the key without it, and others are served.
    rename(&owner, last.id()).await.expect("renamed");
    mint_in(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("another account's");

    timed(&size, "the team's purge", purged(&world)).await;
    assert_eq!(count(&world, "api_key_teams WHERE team_id = 'big1'").await, 0);
    assert_eq!(count(&world, "user_roles WHERE team_id = 'big1'").await, 0);
    let events = all_events(&world, EventKind::TeamPurged).await;
    let keys: std::collections::BTreeSet<_> = events.iter().flat_map(|event| &event.affected_key_ids).collect();
    // The one that was edited meanwhile was rid of it by then, or not.
    assert!(keys.len() == size.keys + 2 || keys.len() == size.keys + 1, "{}", keys.len());
    let users: usize = events.iter().flat_map(|event| &event.changes).map(|change| change.removed.len()).sum();
    assert_eq!(users, size.users);
    assert_eq!(change(events.last().expect("an event"), "state").1, "deleted");
    put_team(&world.directory, team("big1", "again")).await.expect("its id is free");
    assert_eq!(get(&owner, last.id()).await.expect("a key").team_scope, None);
    assert_eq!(listed().await, 0);

    timed(&size, "DeleteAccount", delete_account(&world.directory, ACME, "")).await.expect("deleted");
    for made in [&last, &shared] {
        assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Deleted);
        let request = latchkey::proto::GetApiKeyRequest { account_id: ACME.into(), key_id: made.id().into() };
        let key = world.server.operator.keys().get_api_key(request).await.expect("a key").into_inner();
        let key = key.api_key.expect("a key");
        assert_eq!((key.state(), key.team_scope.is_none()), (ApiKeyState::Deleted, true));
        assert!(key.delete_time.is_some());
    }
    unauthenticated(list(&owner).await, "BAD_USER");
    not_found(get_account(&world.directory, ACME).await);
    not_found(get_user(&world.directory, "u1").await);
    timed(&size, "DeleteAccount again", delete_account(&world.directory, ACME, "")).await.expect("deleted already");
    timed(&size, "the account's purge", purged(&world)).await;
    for table in ["users", "user_roles", "teams", "roles", "api_key_teams"] {
        assert_eq!(count(&world, &format!("{table} WHERE account_id = 'acme'")).await, 0, "{table}");
    }
    assert_eq!(count(&world, "api_keys WHERE account_id = 'acme' AND state <> 'deleted'").await, 0);
    assert_eq!(world.verify(&last.token, None).await.outcome(), Outcome::Deleted);
    let events = all_events(&world, EventKind::AccountPurged).await;
    let keys: usize = events.iter().map(|event| event.affected_key_ids.len()).sum();
    assert!(keys >= size.keys + 2);
    assert_eq!(change(events.last().expect("an event"), "contents").1, "deleted");
    timed(&size, "VerifyEventChain", chain_verifies(&world)).await;
}

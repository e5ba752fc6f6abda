//! Accounts: their birth, suspension and end.

use latchkey::proto::{
    AccountState, ApiKeyState, EventKind, ListRolesRequest, ResumeAccountRequest, SuspendAccountRequest,
    VerificationOutcome as Outcome,
};
use tonic::Code;

use super::*;

async fn suspend(caller: &Caller, account: &str) -> Result<Account, Status> {
    let request = SuspendAccountRequest { account_id: account.into(), ..Default::default() };
    Ok(caller.directory().suspend_account(request).await?.into_inner().account.expect("an account"))
}

async fn resume(caller: &Caller, account: &str) -> Result<Account, Status> {
    let request = ResumeAccountRequest { account_id: account.into(), ..Default::default() };
    Ok(caller.directory().resume_account(request).await?.into_inner().account.expect("an account"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_new_account_has_the_default_roles_and_nothing_else() {
    let world = World::start().await;
    let before = head(&world).await;
    let made = put_account(&world.directory, account("new", "New")).await.expect("an account");
    assert_eq!((made.state(), made.api_key_count), (AccountState::Active, 0));
    assert!(made.create_time.is_some());
    let event = only_event_after(&world, before).await;
    assert_eq!(event.kind(), EventKind::AccountCreated);
    let request = ListRolesRequest { account_id: "new".into(), ..Default::default() };
    let roles = world.directory.directory().list_roles(request).await.expect("roles").into_inner().roles;
    let ids: Vec<_> = roles.iter().map(|role| role.role_id.as_str()).collect();
    assert_eq!(ids, ["admin", "manager", "member", "owner", "standard"]);
    assert_eq!(change(&event, "roles").2, strings(&ids));
    assert!(roles.iter().find(|role| role.role_id == "owner").expect("owner").all_permissions);
    assert!(roles.iter().all(|role| role.etag == made.etag), "of the account's own event");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_an_unchanged_account_appends_no_event() {
    let world = World::start().await;
    let first = put_account(&world.directory, account("new", "New")).await.expect("an account");
    let before = head(&world).await;
    let again = put_account(&world.directory, account("new", "New")).await.expect("the same");
    assert_eq!((head(&world).await, &again), (before, &first));
    let renamed = put_account(&world.directory, account("new", "Newer")).await.expect("another name");
    let event = only_event_after(&world, before).await;
    assert_eq!(event.kind(), EventKind::AccountUpdated);
    assert_eq!((change(&event, "display_name").0, change(&event, "display_name").1), ("New", "Newer"));
    let retried = Account { etag: first.etag.clone(), ..account("new", "Newer") };
    assert_eq!(put_account(&world.directory, retried).await.expect("unchanged"), renamed);
    let outdated = Account { etag: first.etag, ..account("new", "Newest") };
    stale(put_account(&world.directory, outdated).await);
    stale(put_account(&world.directory, Account { etag: renamed.etag.clone(), ..account("newer", "N") }).await);
    let current = Account { etag: renamed.etag, ..account("new", "Newest") };
    put_account(&world.directory, current).await.expect("the current etag");
    // A replacement takes the name away if it has none.
    let nameless = put_account(&world.directory, account("new", "")).await.expect("no name");
    assert_eq!(nameless.display_name, "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a2_suspending_and_resuming_are_idempotent() {
    let world = World::start().await;
    let made = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let before = head(&world).await;
    let suspended = suspend(&world.directory, ACME).await.expect("suspended");
    assert_eq!(suspended.state(), AccountState::Suspended);
    assert_eq!(suspend(&world.directory, ACME).await.expect("again"), suspended);
    assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::AccountSuspended);
    let resumed = resume(&world.directory, ACME).await.expect("resumed");
    assert_eq!(resumed.state(), AccountState::Active);
    assert_eq!(resume(&world.directory, ACME).await.expect("again"), resumed);
    assert_eq!(world.verify(&made.token, None).await.outcome(), Outcome::Valid);
    assert_eq!(kinds_after(&world, before).await, [EventKind::AccountSuspended, EventKind::AccountResumed]);
    // Replacing a suspended account resumes nothing.
    suspend(&world.directory, ACME).await.expect("suspended");
    let renamed = put_account(&world.directory, account(ACME, "Renamed")).await.expect("renamed");
    assert_eq!(renamed.state(), AccountState::Suspended);
    not_found(suspend(&world.directory, "no-such-account").await);
    not_found(resume(&world.directory, "no-such-account").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a5_a_deleted_accounts_keys_are_deleted_and_its_id_is_never_used_again() {
    let world = World::start().await;
    let kept = mint_in(&world.product.for_user(OTHER, "owner"), OTHER, &key("k", &[])).await.expect("a key");
    let one = mint(&world.user("owner"), &key("k", &["billing.manage"])).await.expect("a key");
    let two = mint(&world.user("owner"), &team_key("k", &[], &["red"], &["secrets.use"])).await.expect("a key");
    let gone = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    delete(&world.user("owner"), gone.id()).await.expect("deleted before");
    let etag = get_account(&world.directory, ACME).await.expect("it is there").etag;
    stale(delete_account(&world.directory, ACME, "1-1").await);
    let before = head(&world).await;
    delete_account(&world.directory, ACME, &etag).await.expect("deleted");
    let event = only_event_after(&world, before).await;
    assert_eq!(event.kind(), EventKind::AccountDeleted);
    let mut affected = event.affected_key_ids.clone();
    affected.sort();
    let mut keys = vec![one.id().to_owned(), two.id().to_owned()];
    keys.sort();
    assert_eq!(affected, keys);
    for made in [&one, &two] {
        let answer = world.verify(&made.token, None).await;
        assert_eq!((answer.outcome(), answer.key_id.as_str()), (Outcome::Deleted, made.id()));
    }
    assert_eq!(world.verify(&kept.token, None).await.outcome(), Outcome::Valid);
    unauthenticated(list(&world.user("owner")).await, "BAD_USER");
    unauthenticated(list(&world.server.caller(&one.token)).await, "BAD_CREDENTIALS");
    not_found(get_account(&world.directory, ACME).await);
    not_found(get_user(&world.directory, "owner").await);
    not_found(suspend(&world.directory, ACME).await);
    not_found(put_team(&world.directory, team("new", "New")).await);
    not_found(mint(&world.server.operator, &key("k", &[])).await);
    delete_account(&world.directory, ACME, "").await.expect("again");
    assert_eq!(head(&world).await, before + 1, "repeating it appends nothing");
    let reused = put_account(&world.directory, account(ACME, "Acme")).await;
    refused(reused, Code::FailedPrecondition, "ID_NOT_REUSABLE", "");
    not_found(delete_account(&world.directory, "no-such-account", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k3_an_account_counts_its_keys_that_are_not_deleted() {
    let world = World::start().await;
    let owner = world.user("owner");
    let one = mint(&owner, &key("one", &[])).await.expect("a key");
    let two = mint(&owner, &key("two", &[])).await.expect("a key");
    disable(&owner, two.id()).await.expect("off");
    assert_eq!(get_account(&world.directory, ACME).await.expect("an account").api_key_count, 2);
    delete(&owner, one.id()).await.expect("gone");
    assert_eq!(get_account(&world.directory, ACME).await.expect("an account").api_key_count, 1);
    let deleted = list(&owner).await.expect("a list");
    assert_eq!(deleted.iter().filter(|key| key.state() == ApiKeyState::Deleted).count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_account_system_has_no_directory() {
    let world = World::start().await;
    for caller in [&world.directory, &world.server.operator] {
        forbidden(put_account(caller, account("system", "Mine")).await, "A4");
        forbidden(suspend(caller, "system").await, "A4");
        forbidden(resume(caller, "system").await, "A4");
        forbidden(delete_account(caller, "system", "").await, "A4");
        let team = UpsertTeamRequest {
            account_id: "system".into(),
            team: Some(team("t", "")),
            validate_only: false,
            ..Default::default()
        };
        forbidden(caller.directory().upsert_team(team).await, "A4");
        let role = role("r", RoleKind::Base, &[]);
        let role = UpsertRoleRequest {
            account_id: "system".into(),
            role: Some(role),
            validate_only: false,
            ..Default::default()
        };
        forbidden(caller.directory().upsert_role(role).await, "A4");
        let user = user("u", "owner");
        let user = UpsertUserRequest {
            account_id: "system".into(),
            user: Some(user),
            validate_only: false,
            ..Default::default()
        };
        forbidden(caller.directory().upsert_user(user).await, "A4");
    }
    put_account(&world.directory, account("system2", "Yours")).await.expect("any other id");
}

//! The table of errors: a test for each row, and nothing of the inside in any of them.

use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use latchkey::proto::{
    ApiKey, DeleteRoleRequest, GetIdentityRequest, GetTeamRequest, ListEventsRequest, Requirement, Revision, Team,
    UpsertTeamRequest, VerificationOutcome as Outcome, VerifyTokenRequest, VerifyTokensRequest,
};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    calls::*,
    support::{Caller, Server, World, database::postgres, world::*},
};

fn details<T>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let status = result.map(drop).expect_err("must be refused");
    (status.code(), status.message().to_owned(), status.get_error_details())
}

fn metadata(details: &ErrorDetails, name: &str) -> String {
    let info = details.error_info().expect("every error carries ErrorInfo");
    info.metadata.get(name).unwrap_or_else(|| panic!("`{name}` is not in {info:?}")).clone()
}

async fn identity(caller: &Caller) -> Result<(), Status> {
    caller.tokens().get_identity(GetIdentityRequest {}).await.map(drop)
}

async fn superuser(database: &str) -> AsyncPgConnection {
    let url = postgres().await.superuser_url(database);
    AsyncPgConnection::establish(&url).await.expect("a connection")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_fields_are_invalid_argument_and_all_named_at_once() {
    let world = World::start().await;
    let bad = ApiKey { comment: "\0".into(), ..team_key(" ", &["NO"], &["a b"], &["incidents.view"]) };
    let (code, _, details) = details(mint(&world.user("owner"), &bad).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "INVALID_FIELD");
    let violations = &details.bad_request().expect("BadRequest").field_violations;
    let fields: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
    let expected =
        ["api_key.name", "api_key.comment", "api_key.account_permissions[0]", "api_key.team_scope.team_ids[0]"];
    assert_eq!(fields, expected);
    assert!(violations.iter().all(|violation| !violation.description.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_are_unauthenticated_and_say_how() {
    let world = World::start().await;
    let owner = world.user("owner");
    let made = async |key: ApiKey| mint(&owner, &key).await.expect("a key");
    let (live, off, gone, turned) =
        (made(key("k", &[])).await, made(key("k", &[])).await, made(key("k", &[])).await, made(key("k", &[])).await);
    let short = ApiKey {
        expiry: Some(latchkey::proto::api_key::Expiry::Ttl(prost_types::Duration { seconds: 0, nanos: 50_000_000 })),
        ..key("k", &[])
    };
    let short = made(short).await;
    disable(&owner, off.id()).await.expect("off");
    delete(&owner, gone.id()).await.expect("gone");
    rotate_with(&owner, ACME, turned.id(), Some(0)).await.expect("rotated");
    tokio::time::sleep(Duration::from_millis(80)).await;
    identity(&world.server.caller(&live.token)).await.expect("a live token");
    for (token, outcome) in [
        ("nonsense", "MALFORMED"),
        (&unknown_token(), "UNKNOWN"),
        (&off.token, "DISABLED"),
        (&gone.token, "DELETED"),
        (&turned.token, "ROTATED"),
        (&short.token, "EXPIRED"),
    ] {
        let (code, message, details) = details(identity(&world.server.caller(token)).await);
        assert_eq!(code, Code::Unauthenticated, "{outcome}");
        assert_eq!(details.error_info().expect("ErrorInfo").reason, "BAD_CREDENTIALS");
        assert_eq!(metadata(&details, "outcome"), outcome);
        assert!(!message.contains(token), "no token is echoed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_permission_is_named_with_its_team() {
    let world = World::start().await;
    let (code, _, account) = details(mint(&world.user("admin"), &key("k", &["secrets.use"])).await);
    assert_eq!((code, metadata(&account, "permission").as_str()), (Code::PermissionDenied, "secrets.use"));
    assert!(!account.error_info().expect("ErrorInfo").metadata.contains_key("team_id"));
    let on_team = mint(&world.user("admin"), &team_key("k", &[], &["blue"], &["secrets.use"])).await;
    let (_, message, on_team) = details(on_team);
    assert_eq!(
        (metadata(&on_team, "permission"), metadata(&on_team, "team_id")),
        ("secrets.use".into(), "blue".into())
    );
    assert!(message.contains("secrets.use") && message.contains("blue"), "{message}");
    let manager = mint(&world.user("owner"), &key("m", &["api_keys.manage"])).await.expect("a key");
    let made = mint(&world.server.caller(&manager.token), &key("k", &["api_keys.manage"])).await;
    let (code, message, details) = details(made);
    assert_eq!((code, metadata(&details, "rule").as_str()), (Code::PermissionDenied, "M5"));
    assert!(message.contains("api_keys.manage"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_and_invisible_cannot_be_distinguished() {
    let world = World::start().await;
    let invisible = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let caller = world.user("red_manager");
    let (code, message, _) = details(get(&caller, invisible.id()).await);
    let absent = details(get(&caller, "key_01h2xcejqtf2nbrexx3vqjhp41").await);
    assert_eq!((code, &message), (Code::NotFound, &absent.1));
    assert!(!message.contains(invisible.id()));
    let request = GetTeamRequest { account_id: ACME.into(), team_id: "nowhere".into() };
    not_found(world.directory.directory().get_team(request).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_etag_is_aborted() {
    let world = World::start().await;
    let made = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let edit = |etag: &str| ApiKey { etag: etag.into(), ..key("new", &[]) };
    let edited = update(&world.user("owner"), made.id(), &["name"], edit(&made.key.etag)).await.expect("current");
    assert_ne!(edited.etag, made.key.etag);
    for etag in [made.key.etag.as_str(), "nonsense", "0", "1-", "\"1\""] {
        let other = ApiKey { etag: etag.into(), ..key("newer", &[]) };
        stale(update(&world.user("owner"), made.id(), &["name"], other).await);
    }
    // The retry of what succeeded changes nothing, and is no conflict.
    let again = update(&world.user("owner"), made.id(), &["name"], edit(&made.key.etag)).await.expect("unchanged");
    assert_eq!(again, edited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_state_is_a_failed_precondition_and_a_quota_resource_exhausted() {
    let limited = |flags: latchkey::settings::Flags| flags.with("api_keys_per_account_max", "6");
    let world = World::on(Server::start_with(limited).await).await;
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &[])).await.expect("a key");
    disable(&owner, made.id()).await.expect("off");
    wrong_state(rotate(&owner, made.id()).await);
    delete(&owner, made.id()).await.expect("gone");
    wrong_state(enable(&owner, made.id()).await);
    let request = DeleteRoleRequest { account_id: ACME.into(), role_id: "owner".into(), ..Default::default() };
    refused(world.directory.directory().delete_role(request).await, Code::FailedPrecondition, "IN_USE", "owner");
    for i in 0..6 {
        mint(&owner, &key(&i.to_string(), &[])).await.expect("deleted keys do not count");
    }
    let (code, _, details) = details(mint(&owner, &key("seventh", &[])).await);
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "QUOTA_EXCEEDED");
    assert_eq!((metadata(&details, "quota"), metadata(&details, "limit")), ("api_keys_per_account".into(), "6".into()));
}

/// UNAVAILABLE with RetryInfo, and nothing of the inside.
#[track_caller]
fn assert_unavailable<T>(what: &str, result: Result<T, Status>, database: &str) {
    let (code, message, details) = details(result);
    assert_eq!(code, Code::Unavailable, "{what}: {message}");
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "STORE_UNAVAILABLE", "{what}");
    let delay = details.retry_info().expect("RetryInfo").retry_delay.expect("a delay");
    assert!(delay > Duration::ZERO, "{what}");
    for inside in [database, "127.0.0.1", "postgres", "latchkey_app", "connection", "SQL", "relation", "diesel", "pool"]
    {
        let text = format!("{message} {details:?}");
        assert!(!text.to_lowercase().contains(&inside.to_lowercase()), "{what} tells `{inside}`: {text}");
    }
}

async fn asked(world: &World, token: &str) -> Result<Outcome, Status> {
    let request = VerifyTokenRequest { token: token.into(), ..Default::default() };
    let answer = world.verifier.tokens().verify_token(request).await?.into_inner();
    Ok(answer.verification.expect("a verification").outcome())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_database_whatever_is_not_known_is_unavailable_and_all_comes_back() {
    let world = World::start().await;
    let owner = world.user("owner");
    let database = world.server.database.name.as_str();
    let cached = mint(&owner, &key("k", &[])).await.expect("a key");
    let uncached = mint(&owner, &key("k", &[])).await.expect("a key");
    assert_eq!(asked(&world, &cached.token).await.expect("an answer"), Outcome::Valid);
    let mut sql = superuser("postgres").await;
    let cut = format!(
        "ALTER DATABASE {database} ALLOW_CONNECTIONS false; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
    );
    sql.batch_execute(&cut).await.expect("the database is cut off");

    for _ in 0..3 {
        assert_unavailable("an uncached token", asked(&world, &uncached.token).await, database);
        assert_unavailable("an unknown token", asked(&world, &unknown_token()).await, database);
        // Its lease vouches for what it has in memory; when that is over, it cannot know either.
        match asked(&world, &cached.token).await {
            Ok(outcome) => assert_eq!(outcome, Outcome::Valid),
            refused => assert_unavailable("a cached token", refused, database),
        }
    }
    assert_eq!(asked(&world, "nonsense").await.expect("needs no database"), Outcome::Malformed);
    let check = |token: &str| latchkey::proto::TokenCheck { token: token.into(), requirement: None };
    let request = VerifyTokensRequest { checks: vec![check("nonsense"), check(&uncached.token)], ..Default::default() };
    assert_unavailable("a batch", world.verifier.tokens().verify_tokens(request).await, database);
    assert_unavailable("a caller", identity(&world.server.caller(&uncached.token)).await, database);
    assert_unavailable("a read", list(&owner).await, database);
    assert_unavailable("a mutation", mint(&owner, &key("k", &[])).await, database);
    let events = world.auditor.events().list_events(ListEventsRequest::default()).await;
    assert_unavailable("the log", events, database);

    sql.batch_execute(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true")).await.expect("it is back");
    let mut tries = 0;
    while asked(&world, &uncached.token).await.ok() != Some(Outcome::Valid) || list(&owner).await.is_err() {
        tries += 1;
        assert!(tries < 100, "the server did not recover");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(asked(&world, &unknown_token()).await.expect("an answer"), Outcome::Unknown);
    mint(&owner, &key("k", &[])).await.expect("mutations too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mutation_that_waits_for_a_lock_too_long_is_unavailable_and_changes_nothing() {
    let hasty = |flags: latchkey::settings::Flags| flags.with("database_timeout_ms", "200");
    let world = World::on(Server::start_with(hasty).await).await;
    let (owner, before) = (world.user("owner"), head(&world).await);
    let mut sql = superuser(&world.server.database.name).await;
    sql.batch_execute("BEGIN; SELECT FROM accounts WHERE account_id = 'acme' FOR UPDATE").await.expect("locked");
    assert_unavailable("a mutation", mint(&owner, &key("k", &[])).await, &world.server.database.name);
    list(&owner).await.expect("reads wait for no lock");
    sql.batch_execute("ROLLBACK").await.expect("unlocked");
    assert_eq!(head(&world).await, before);
    mint(&owner, &key("k", &[])).await.expect("a key");
}

/// While a transaction holds the account's lock, who may wait for it and who is sent away before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a4_no_caller_waits_for_or_holds_up_an_account_beyond_its_own() {
    let world = World::start().await;
    let stranger =
        mint_in(&world.product.for_user(OTHER, "owner"), OTHER, &key("stranger", &["api_keys.manage"])).await;
    let stranger = world.server.caller(&stranger.expect("a key").token);
    let mut sql = superuser(&world.server.database.name).await;
    sql.batch_execute("BEGIN; SELECT FROM accounts WHERE account_id = 'acme' FOR UPDATE").await.expect("locked");
    assert_refused(mint_in(&stranger, ACME, &key("k", &[])).await, Code::NotFound, "NOT_FOUND", "account");
    let team = Team { team_id: "red".into(), ..Default::default() };
    let request = UpsertTeamRequest { account_id: ACME.into(), team: Some(team), ..Default::default() };
    assert_refused(stranger.directory().upsert_team(request).await, Code::NotFound, "NOT_FOUND", "account");
    sql.batch_execute("ROLLBACK").await.expect("unlocked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_does_not_come_is_unavailable() {
    let world = World::start().await;
    let request = |number| VerifyTokenRequest {
        token: world.product.token.clone(),
        requirement: None,
        min_revision: Some(Revision { epoch: 1, number }),
    };
    let head = head(&world).await;
    world.verifier.tokens().verify_token(request(head)).await.expect("it is there");
    let (code, _, details) = details(world.verifier.tokens().verify_token(request(head + 1)).await);
    assert_eq!(code, Code::Unavailable);
    assert_eq!(details.error_info().expect("ErrorInfo").reason, "REVISION_NOT_REACHED");
    assert!(details.retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bug_is_internal_with_a_fixed_text() {
    let world = World::start().await;
    let mut sql = superuser(&world.server.database.name).await;
    // What no migration does: the statements of the build do not fit the schema.
    sql.batch_execute("ALTER TABLE api_keys RENAME COLUMN comment TO surprise").await.expect("broken");
    for result in
        [mint(&world.user("owner"), &key("k", &[])).await.map(drop), list(&world.user("owner")).await.map(drop)]
    {
        let (code, message, details) = details(result);
        assert_eq!((code, message.as_str()), (Code::Internal, "internal error: the server's log has the details"));
        let info = details.error_info().expect("ErrorInfo");
        assert_eq!((info.reason.as_str(), info.metadata.len()), ("INTERNAL", 0));
    }
    sql.batch_execute("ALTER TABLE api_keys RENAME COLUMN surprise TO comment").await.expect("mended");
    mint(&world.user("owner"), &key("k", &[])).await.expect("the connections are good again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_refuses_only_malformed_questions() {
    let world = World::start().await;
    let requirement = |account: &str, permission: &str| Requirement {
        account_id: account.into(),
        permission: permission.into(),
        team_ids: vec![],
    };
    let ask = |requirement: Requirement| {
        let token = world.product.token.clone();
        let request = VerifyTokenRequest { token, requirement: Some(requirement), min_revision: None };
        let mut client = world.verifier.tokens();
        async move { client.verify_token(request).await }
    };
    // An account that is not there is no error: no key is of it.
    let answer = ask(requirement("no-such-account", "billing.manage")).await.expect("an answer").into_inner();
    assert_eq!(answer.verification.expect("a verification").outcome(), Outcome::PermissionDenied);
    bad_field(ask(requirement(ACME, "no.such")).await, "requirement.permission");
    bad_field(ask(requirement("", "billing.manage")).await, "requirement.account_id");
}

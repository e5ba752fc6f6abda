//! A database that is another one than its log was written in: a copy, or one that was recovered to a new timeline.

use std::{os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use diesel_async::{AsyncConnection, AsyncPgConnection};
use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    proto::{CreateApiKeyRequest, ListApiKeysRequest, VerificationOutcome, VerifyTokenRequest},
    server::{self, RunningServer},
    store::migrate,
    telemetry::Metrics,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::support::{
    Caller, Server,
    database::{self, Database},
    server::{connect, settings},
    world::{self, create},
};

async fn start(database: &Database) -> RunningServer {
    let settings = settings(&database.app_url, |flags| flags);
    server::start(&settings, Arc::new(Metrics::new())).await.expect("it starts, to say that it cannot answer")
}

/// What a caller is answered: a verification's outcome, a read and a mutation.
async fn answers(caller: &Caller) -> [Result<(), Code>; 3] {
    let request = VerifyTokenRequest { token: caller.token.clone(), requirement: None, min_revision: None };
    let verified = caller.tokens().verify_token(request).await.map(|response| {
        let outcome = response.into_inner().verification.expect("a verification").outcome();
        assert_eq!(outcome, VerificationOutcome::Valid);
    });
    let request = ListApiKeysRequest { account_id: "system".into(), ..Default::default() };
    let listed = caller.keys().list_api_keys(request).await.map(drop);
    let request = CreateApiKeyRequest {
        account_id: "system".into(),
        api_key: Some(world::key("new", &["system.verify"])),
        ..Default::default()
    };
    let created = caller.keys().create_api_key(request).await.map(drop);
    [verified, listed, created].map(|answer| answer.map_err(|status| status.code()))
}

async fn health(caller: &Caller) -> ServingStatus {
    let mut client = HealthClient::new(caller.channel.clone());
    client.check(HealthCheckRequest::default()).await.expect("health answers").into_inner().status()
}

/// A server on a database that is another one: it answers nothing, until an operator accepts the history.
async fn refuses_until_accepted(database: &Database, token: &str) {
    let running = start(database).await;
    let caller = Caller { channel: connect(running.address()).await, token: token.to_owned(), on_behalf_of: None };
    // More than once: what the follower does meanwhile changes nothing.
    for _ in 0..3 {
        assert_eq!(answers(&caller).await, [Err(Code::Unavailable); 3]);
        assert_eq!(health(&caller).await, ServingStatus::NotServing);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // Another one that starts is no way around it.
    let second = start(database).await;
    let there = Caller { channel: connect(second.address()).await, ..caller.clone() };
    assert_eq!(answers(&there).await, [Err(Code::Unavailable); 3]);
    second.stop().await;
    let settings = settings(&database.app_url, |flags| flags);
    let command = server::open(&settings).await.expect("the command opens it");
    let accepted = command.app.accept_history().await.expect("accepted");
    assert_eq!(accepted.after.epoch, accepted.before.epoch + 1);
    for _ in 0..500 {
        if health(&caller).await == ServingStatus::Serving {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(answers(&caller).await, [Ok(()); 3]);
    let minted = create(&caller, "system", &world::key("later", &["system.verify"])).await.expect("minted");
    let revision = minted.propagation.expect("a propagation").revision.expect("a revision");
    assert_eq!(revision.epoch, accepted.after.epoch, "no revision is given out twice");
    running.stop().await;
    // And a restart of the accepted one is no restore.
    let running = start(database).await;
    let caller = Caller { channel: connect(running.address()).await, ..caller };
    assert_eq!(answers(&caller).await, [Ok(()); 3]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_a_copy_that_was_made_while_every_replica_was_stopped_is_unavailable_until_accepted() {
    let server = Server::start().await;
    let (token, original) = (server.operator.token.clone(), server.database.clone());
    server.running.stop().await;
    let postgres = database::postgres().await;
    let name = format!("{}_restored", original.name);
    let mut copied = postgres.create_database(&name, Some(&original.name)).await;
    for _ in 0..200 {
        if copied.is_ok() {
            break;
        }
        // The server's last connections are ending.
        tokio::time::sleep(Duration::from_millis(50)).await;
        copied = postgres.create_database(&name, Some(&original.name)).await;
    }
    copied.expect("no client is connected");
    let copy = Database {
        app_url: postgres.app_url(&name).expect("the password is on file"),
        owner_url: postgres.owner_url(&name).expect("the password is on file"),
        name,
    };
    refuses_until_accepted(&copy, &token).await;
    // The original is what it was.
    let running = start(&original).await;
    let caller = Caller { channel: connect(running.address()).await, token, on_behalf_of: None };
    assert_eq!(answers(&caller).await, [Ok(()); 3]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_a_database_that_was_recovered_to_a_new_timeline_is_unavailable_until_accepted() {
    let scratch = tempfile::tempdir().expect("a folder");
    // PostgreSQL may run as another user.
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o711)).expect("it is ours");
    // A log that a recovery can be made from.
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let options = Options { remove_on_stop: false, settings, ..Options::throwaway(scratch.path().join("pg")) };
    let database = |postgres: &PrivatePostgres| Database {
        app_url: postgres.app_url(DATABASE).expect("the password is on file"),
        owner_url: postgres.owner_url(DATABASE).expect("the password is on file"),
        name: DATABASE.into(),
    };
    let postgres = PrivatePostgres::start(options.clone()).await.expect("PostgreSQL starts");
    postgres.create_roles_and_database().await.expect("roles and database are made");
    let of = database(&postgres);
    migrate::migrate(&of.owner_url, APP_ROLE, |_| {}).await.expect("it migrates");
    let server = Server::start_on(of, |flags| flags).await;
    let token = server.operator.token.clone();
    server.running.stop().await;
    postgres.stop().await.expect("it stops");
    // A plain restart of PostgreSQL is no restore.
    let postgres = PrivatePostgres::start(options.clone()).await.expect("PostgreSQL starts");
    let running = start(&database(&postgres)).await;
    let caller = Caller { channel: connect(running.address()).await, token: token.clone(), on_behalf_of: None };
    assert_eq!(answers(&caller).await, [Ok(()); 3]);
    running.stop().await;
    postgres.stop().await.expect("it stops");
    let folder = options.data_dir.join("postgres/data");
    let signal = folder.join("recovery.signal");
    std::fs::write(&signal, "").expect("the folder can be written to");
    let owner = std::fs::metadata(&folder).expect("it is there");
    // The operator of PostgreSQL removes the file when the recovery is over.
    std::os::unix::fs::chown(&signal, Some(std::os::unix::fs::MetadataExt::uid(&owner)), None).expect("may be given");
    let mut recovering = options.clone();
    recovering.settings.push(("restore_command".into(), "false".into()));
    let postgres = PrivatePostgres::start(recovering).await.expect("PostgreSQL recovers");
    let recovered = database(&postgres);
    // It takes connections before its recovery is over.
    let writable = format!("{}?target_session_attrs=read-write", recovered.app_url);
    for _ in 0..500 {
        if AsyncPgConnection::establish(&writable).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    refuses_until_accepted(&recovered, &token).await;
    postgres.stop().await.expect("it stops");
}

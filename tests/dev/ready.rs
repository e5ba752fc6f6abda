//! What `latchkey dev` has ready when it says so, and what a second run finds.

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
use latchkey::proto::{
    GetApiKeyRequest, GetIdentityRequest, GetTeamRequest, ListRolesRequest, ListTeamsRequest, ListUsersRequest, Team,
    UpsertTeamRequest, VerificationOutcome, VerifyTokenRequest,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::{v1, v1alpha};

use super::{
    Dev,
    support::{
        Caller,
        process::{Signal, scratch},
        world::{SERVICES, create, key},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_it_prints_its_line_everything_is_there() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let dev = Dev::start(&data_dir).await;
    let channel = dev.operator.channel.clone();

    let health = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("health");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);
    assert_eq!(list_v1(&channel).await, SERVICES);
    assert_eq!(list_v1alpha(&channel).await, SERVICES);

    let identity = dev.operator.tokens().get_identity(GetIdentityRequest {}).await.expect("a live token").into_inner();
    assert_eq!(identity.account_id, "system");
    assert!(identity.account_permissions.contains(&"system.operate".to_owned()), "{identity:?}");
    check_demo_account(&dev.operator).await;
    check_database(&dev.database_url).await;

    dev.process.signal(Signal::INT);
    assert_eq!(dev.assert_stops(&data_dir), "", "one line and no more");
}

async fn check_demo_account(operator: &Caller) {
    let account_id = || "demo".to_owned();
    let mut directory = operator.directory();
    let teams = ListTeamsRequest { account_id: account_id(), ..Default::default() };
    let teams = directory.list_teams(teams).await.expect("teams").into_inner().teams;
    assert_eq!(teams.iter().map(|team| team.team_id.as_str()).collect::<Vec<_>>(), ["team-a", "team-b", "team-c"]);
    let roles = ListRolesRequest { account_id: account_id(), ..Default::default() };
    let roles = directory.list_roles(roles).await.expect("roles").into_inner().roles;
    let ids: Vec<_> = roles.iter().map(|role| role.role_id.as_str()).collect();
    assert_eq!(ids, ["admin", "manager", "member", "owner", "standard"]);
    let users = ListUsersRequest { account_id: account_id(), ..Default::default() };
    let users = directory.list_users(users).await.expect("users").into_inner().users;
    let ids: Vec<_> = users.iter().map(|user| user.user_id.as_str()).collect();
    assert_eq!(ids, ["adam", "mia", "olivia", "stan"]);
    assert_eq!(users[3].team_roles[0].role_id, "manager");
}

async fn check_database(url: &str) {
    let mut connection = AsyncPgConnection::establish(url).await.expect("database_url works");
    let mut rows = async |sql: &str| diesel::sql_query(sql).execute(&mut connection).await;
    assert!(rows("SELECT 1 FROM events").await.expect("it may read") > 0);
    assert_eq!(rows("SELECT 1 WHERE current_user = 'latchkey_app'").await, Ok(1));
    for forbidden in ["DELETE FROM events", "UPDATE events SET account_id = 'x'", "CREATE TABLE t (n int)"] {
        assert!(rows(forbidden).await.is_err(), "{forbidden}");
    }
    let privileged =
        "SELECT 1 FROM pg_roles WHERE rolname = current_user AND (rolsuper OR rolcreaterole OR rolcreatedb)";
    assert_eq!(rows(privileged).await, Ok(0));
}

async fn list_v1(channel: &Channel) -> Vec<String> {
    let list = v1::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answer: v1::ServerReflectionResponse = ask(channel, "v1", request).await;
    match answer.message_response.expect("a response") {
        v1::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
            sorted(list.service.into_iter().map(|service| service.name))
        }
        other => panic!("{other:?}"),
    }
}

async fn list_v1alpha(channel: &Channel) -> Vec<String> {
    let list = v1alpha::server_reflection_request::MessageRequest::ListServices(String::new());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let answer: v1alpha::ServerReflectionResponse = ask(channel, "v1alpha", request).await;
    match answer.message_response.expect("a response") {
        v1alpha::server_reflection_response::MessageResponse::ListServicesResponse(list) => {
            sorted(list.service.into_iter().map(|service| service.name))
        }
        other => panic!("{other:?}"),
    }
}

/// One question to reflection, without credentials.
async fn ask<Q, A>(channel: &Channel, version: &str, question: Q) -> A
where
    Q: prost::Message + Default + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("connected");
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let codec = tonic_prost::ProstCodec::<Q, A>::default();
    let request = tonic::Request::new(tokio_stream::once(question));
    let answers = client.streaming(request, path.parse().expect("a path"), codec).await.expect("reflection");
    answers.into_inner().message().await.expect("an answer").expect("one answer")
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

async fn outcome(verifier: &Caller, token: &str) -> VerificationOutcome {
    let request = VerifyTokenRequest { token: token.to_owned(), ..Default::default() };
    let answer = verifier.tokens().verify_token(request).await.expect("an answer");
    answer.into_inner().verification.expect("a verification").outcome()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_run_keeps_the_data_and_ends_the_first_one_s_token() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let first = Dev::start(&data_dir).await;
    let minted = create(&first.operator, "demo", &key("kept", &["incidents.view"])).await.expect("minted");
    let key_id = minted.api_key.expect("a key").key_id;
    let team = Team { team_id: "team-a".into(), display_name: "Renamed".into(), ..Default::default() };
    let request = UpsertTeamRequest { account_id: "demo".into(), team: Some(team), ..Default::default() };
    first.operator.directory().upsert_team(request).await.expect("renamed");
    let first_token = first.operator.token.clone();
    // A running server refuses a second one on its folder, and keeps running.
    let stderr = super::dev(&data_dir, 0).run(super::START_LIMIT).failure();
    assert!(stderr.contains("in use by another running Latchkey") && stderr.contains("--data-dir"), "{stderr}");
    first.process.signal(Signal::TERM);
    first.assert_stops(&data_dir);

    let second = Dev::start(&data_dir).await;
    assert_ne!(second.operator.token, first_token);
    assert_eq!(outcome(&second.operator, &first_token).await, VerificationOutcome::Deleted);
    assert_eq!(outcome(&second.operator, &minted.token).await, VerificationOutcome::Valid);
    let request = GetApiKeyRequest { account_id: "demo".into(), key_id };
    let found = second.operator.keys().get_api_key(request).await.expect("kept").into_inner().api_key.expect("a key");
    assert_eq!(found.name, "kept");
    let request = GetTeamRequest { account_id: "demo".into(), team_id: "team-a".into() };
    let team = second.operator.directory().get_team(request).await.expect("kept").into_inner().team.expect("a team");
    assert_eq!(team.display_name, "Renamed", "a second run changes nothing back");
    second.process.signal(Signal::TERM);
    second.assert_stops(&data_dir);
}

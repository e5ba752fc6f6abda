//! Every RPC of the contract, found in its descriptors: none answers without a caller, and none
//! forgets to ask what the caller may do.

use std::collections::BTreeMap;

use latchkey::{grpc::DESCRIPTORS, proto};
use prost::{
    Message,
    bytes::{Buf, BufMut},
};
use prost_types::{DescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Channel,
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::{
    calls::*,
    support::{World, world::*},
};

const PACKAGE: &str = "latchkey.v1";

/// One RPC of the contract.
pub struct Rpc {
    /// Such as `ApiKeyService.GetApiKey`.
    pub name: String,
    pub input: DescriptorProto,
}

impl Rpc {
    fn path(&self) -> PathAndQuery {
        format!("/{PACKAGE}.{}", self.name.replace('.', "/")).parse().expect("a path")
    }

    /// Sends bytes as the one message of the call, with metadata entries.
    pub async fn send(
        &self,
        channel: &Channel,
        bytes: Vec<u8>,
        entries: &[(&'static str, String)],
    ) -> Result<(), Status> {
        let mut request = Request::new(bytes);
        for (name, value) in entries {
            request.metadata_mut().append(*name, value.parse().expect("ASCII"));
        }
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.expect("connected");
        grpc.unary(request, self.path(), Raw).await.map(drop)
    }

    /// Sends bytes with a bearer token.
    pub async fn send_as(&self, channel: &Channel, token: &str, bytes: Vec<u8>) -> Result<(), Status> {
        self.send(channel, bytes, &[("authorization", crate::support::bearer(token))]).await
    }
}

/// All RPCs of Latchkey's own services.
pub fn rpcs() -> Vec<Rpc> {
    let files = FileDescriptorSet::decode(DESCRIPTORS).expect("descriptors").file;
    let own = || files.iter().filter(|file| file.package() == PACKAGE);
    let messages: BTreeMap<_, _> = own()
        .flat_map(|file| &file.message_type)
        .map(|message| (format!(".{PACKAGE}.{}", message.name()), message))
        .collect();
    let services = own().flat_map(|file| &file.service);
    let rpcs = services.flat_map(|service| service.method.iter().map(move |method| (service.name(), method)));
    rpcs.map(|(service, method)| Rpc {
        name: format!("{service}.{}", method.name()),
        input: messages[method.input_type()].clone(),
    })
    .collect()
}

/// Bytes in, bytes out.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// A message that decodes and is wrong in every field.
fn garbage(input: &DescriptorProto) -> Vec<u8> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    let mut bytes = Vec::new();
    for field in &input.field {
        let number = u32::try_from(field.number()).expect("a field number");
        match field.r#type() {
            Type::String | Type::Bytes => {
                encode_key(number, WireType::LengthDelimited, &mut bytes);
                prost::encoding::encode_varint(8, &mut bytes);
                bytes.extend_from_slice(b"\0 ?! /\n;");
            }
            Type::Message => {
                encode_key(number, WireType::LengthDelimited, &mut bytes);
                encode_varint(0, &mut bytes);
            }
            Type::Bool => {
                encode_key(number, WireType::Varint, &mut bytes);
                encode_varint(1, &mut bytes);
            }
            Type::Int32 | Type::Int64 | Type::Uint64 | Type::Enum => {
                encode_key(number, WireType::Varint, &mut bytes);
                encode_varint(u64::MAX, &mut bytes);
            }
            other => panic!("`{}` is of a type that this does not know: {other:?}", field.name()),
        }
    }
    bytes
}

#[track_caller]
fn assert_unauthenticated(rpc: &Rpc, how: &str, result: Result<(), Status>) {
    let Err(status) = &result else { panic!("{} answered: {how}", rpc.name) };
    assert_eq!(status.code(), Code::Unauthenticated, "{}, {how}: {status:?}", rpc.name);
    unauthenticated(result, "BAD_CREDENTIALS");
}

#[test]
fn the_descriptors_name_the_whole_contract() {
    let names: Vec<_> = rpcs().into_iter().map(|rpc| rpc.name).collect();
    let of = |service: &str| names.iter().filter(|name| name.starts_with(&format!("{service}."))).count();
    let services = ["ApiKeyService", "TokenService", "DirectoryService", "EventService"];
    assert_eq!(services.map(of), [8, 6, 22, 4]);
    assert_eq!(names.len(), 40, "{names:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_rpc_answers_without_a_live_token() {
    let world = World::start().await;
    let channel = &world.server.channel;
    let off = mint(&world.user("owner"), &key("off", &["api_keys.manage"])).await.expect("a key");
    disable(&world.user("owner"), off.id()).await.expect("off");
    let gone = mint(&world.user("owner"), &key("gone", &["api_keys.manage"])).await.expect("a key");
    delete(&world.user("owner"), gone.id()).await.expect("gone");
    let before = head(&world).await;
    for rpc in rpcs() {
        // Whatever the message, authentication comes first.
        for bytes in [vec![], garbage(&rpc.input)] {
            assert_unauthenticated(&rpc, "no header", rpc.send(channel, bytes.clone(), &[]).await);
            let bare = ["", "Bearer", "Bearer ", "Basic YTpi", "Bearerx", world.server.operator.token.as_str()];
            for value in bare {
                let sent = rpc.send(channel, bytes.clone(), &[("authorization", value.into())]).await;
                assert_unauthenticated(&rpc, value, sent);
            }
            for token in ["x", "lk_x", &unknown_token(), "Bearer Bearer"] {
                assert_unauthenticated(&rpc, token, rpc.send_as(channel, token, bytes.clone()).await);
            }
        }
        if rpc.name != "TokenService.RevokeToken" {
            for token in [&off.token, &gone.token] {
                assert_unauthenticated(&rpc, "a dead token", rpc.send_as(channel, token, garbage(&rpc.input)).await);
            }
        }
    }
    assert_eq!(head(&world).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_and_reflection_alone_need_no_caller() {
    use tokio_stream::StreamExt;
    use tonic_reflection::pb::{v1, v1alpha};

    let world = World::start().await;
    let channel = world.server.channel.clone();
    for service in ["", "latchkey.v1.ApiKeyService", "latchkey.v1.TokenService"] {
        let request = HealthCheckRequest { service: service.into() };
        let status = HealthClient::new(channel.clone()).check(request).await.expect("health").into_inner().status;
        assert_eq!(status, 1, "SERVING");
    }
    let request = v1::ServerReflectionRequest {
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let answers = v1::server_reflection_client::ServerReflectionClient::new(channel.clone())
        .server_reflection_info(tokio_stream::iter([request]))
        .await;
    let answer = answers.expect("reflection").into_inner().next().await.expect("an answer").expect("good");
    let Some(v1::server_reflection_response::MessageResponse::ListServicesResponse(services)) = answer.message_response
    else {
        panic!("not a list of services: {answer:?}")
    };
    let mut served: Vec<_> = services.service.into_iter().map(|service| service.name).collect();
    served.sort();
    served.dedup();
    assert_eq!(served, SERVICES, "what is served is covered here");
    let request = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
            "latchkey.v1.ApiKeyService".into(),
        )),
        ..Default::default()
    };
    let answers = v1alpha::server_reflection_client::ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::iter([request]))
        .await;
    let answer = answers.expect("reflection").into_inner().next().await.expect("an answer").expect("good");
    assert!(
        matches!(
            answer.message_response,
            Some(v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_))
        ),
        "{answer:?}"
    );
}

/// What a key of `acme` without any permission is answered.
enum Expected {
    Denied(&'static str),
    NotFound,
    Unimplemented,
    Anything,
}

/// Every RPC with a well-formed request about `acme`.
#[expect(clippy::needless_update, reason = "one macro for requests of one field and of many")]
fn requests(key_id: &str) -> BTreeMap<&'static str, (Vec<u8>, Expected)> {
    use proto::*;
    let (account_id, key_id) = (|| ACME.to_owned(), || key_id.to_owned());
    let (team, user) = (Team { team_id: "red".into(), ..Default::default() }, well_formed_user());
    let role = Role { role_id: "owner".into(), kind: RoleKind::Base.into(), ..Default::default() };
    let account = Account { account_id: account_id(), ..Default::default() };
    let (directory, manage) = (|| Expected::Denied("system.directory"), || Expected::Denied("api_keys.manage"));
    macro_rules! requests {
        ($($name:literal: $request:ident { $($field:ident: $value:expr),* } => $expected:expr;)*) => {
            [$(($name, ($request { $($field: $value,)* ..Default::default() }.encode_to_vec(), $expected))),*].into()
        };
    }
    let edited = ApiKey { key_id: key_id(), ..key("n", &[]) };
    let check = TokenCheck { token: "x".into(), requirement: None };
    requests! {
        "ApiKeyService.CreateApiKey": CreateApiKeyRequest { account_id: account_id(), api_key: Some(key("k", &[])) } => manage();
        "ApiKeyService.GetApiKey": GetApiKeyRequest { account_id: account_id(), key_id: key_id() } => Expected::NotFound;
        "ApiKeyService.ListApiKeys": ListApiKeysRequest { account_id: account_id() } => manage();
        "ApiKeyService.UpdateApiKey": UpdateApiKeyRequest { account_id: account_id(), api_key: Some(edited) } => Expected::NotFound;
        "ApiKeyService.RotateApiKey": RotateApiKeyRequest { account_id: account_id(), key_id: key_id() } => Expected::NotFound;
        "ApiKeyService.DisableApiKey": DisableApiKeyRequest { account_id: account_id(), key_id: key_id() } => Expected::NotFound;
        "ApiKeyService.EnableApiKey": EnableApiKeyRequest { account_id: account_id(), key_id: key_id() } => Expected::NotFound;
        "ApiKeyService.DeleteApiKey": DeleteApiKeyRequest { account_id: account_id(), key_id: key_id() } => Expected::NotFound;
        "TokenService.VerifyToken": VerifyTokenRequest { token: "x".into() } => Expected::Denied("system.verify");
        "TokenService.VerifyTokens": VerifyTokensRequest { checks: vec![check.clone()] } => Expected::Denied("system.verify");
        "TokenService.StreamVerifyTokens": StreamVerifyTokensRequest { checks: vec![check] } => Expected::Denied("system.verify");
        // The token itself is all that these two need.
        "TokenService.GetIdentity": GetIdentityRequest {} => Expected::Anything;
        "TokenService.RevokeToken": RevokeTokenRequest {} => Expected::Anything;
        "TokenService.ReportLeakedToken": ReportLeakedTokenRequest { token: "x".into() } => Expected::Unimplemented;
        "DirectoryService.UpsertAccount": UpsertAccountRequest { account: Some(account) } => directory();
        "DirectoryService.GetAccount": GetAccountRequest { account_id: account_id() } => manage();
        "DirectoryService.ListAccounts": ListAccountsRequest {} => directory();
        "DirectoryService.DeleteAccount": DeleteAccountRequest { account_id: account_id() } => directory();
        "DirectoryService.UpsertTeam": UpsertTeamRequest { account_id: account_id(), team: Some(team.clone()) } => directory();
        "DirectoryService.GetTeam": GetTeamRequest { account_id: account_id(), team_id: "red".into() } => manage();
        "DirectoryService.ListTeams": ListTeamsRequest { account_id: account_id() } => manage();
        "DirectoryService.DeleteTeam": DeleteTeamRequest { account_id: account_id(), team_id: "red".into() } => directory();
        "DirectoryService.UpsertRole": UpsertRoleRequest { account_id: account_id(), role: Some(role) } => directory();
        "DirectoryService.GetRole": GetRoleRequest { account_id: account_id(), role_id: "owner".into() } => manage();
        "DirectoryService.ListRoles": ListRolesRequest { account_id: account_id() } => manage();
        "DirectoryService.DeleteRole": DeleteRoleRequest { account_id: account_id(), role_id: "owner".into() } => directory();
        "DirectoryService.UpsertUser": UpsertUserRequest { account_id: account_id(), user: Some(user.clone()) } => directory();
        "DirectoryService.GetUser": GetUserRequest { account_id: account_id(), user_id: "owner".into() } => manage();
        "DirectoryService.ListUsers": ListUsersRequest { account_id: account_id() } => manage();
        "DirectoryService.DeleteUser": DeleteUserRequest { account_id: account_id(), user_id: "owner".into() } => directory();
        "DirectoryService.BatchUpsertTeams": BatchUpsertTeamsRequest { account_id: account_id(), teams: vec![team] } => directory();
        "DirectoryService.BatchUpsertUsers": BatchUpsertUsersRequest { account_id: account_id(), users: vec![user] } => directory();
        "DirectoryService.SuspendAccount": SuspendAccountRequest { account_id: account_id() } => directory();
        "DirectoryService.ResumeAccount": ResumeAccountRequest { account_id: account_id() } => directory();
        "DirectoryService.GetCatalogue": GetCatalogueRequest {} => manage();
        "DirectoryService.ApplyCatalogue": ApplyCatalogueRequest { catalogue: Some(Catalogue::default()) } => Expected::Denied("system.operate");
        "EventService.ListEvents": ListEventsRequest { account_id: account_id() } => manage();
        "EventService.WatchEvents": WatchEventsRequest { account_id: account_id() } => manage();
        "EventService.VerifyEventChain": VerifyEventChainRequest { account_id: account_id() } => manage();
        "EventService.AwaitPropagation": AwaitPropagationRequest {} => Expected::Anything;
    }
}

fn well_formed_user() -> proto::User {
    let state = proto::UserState::Active.into();
    proto::User { user_id: "owner".into(), state, base_role_id: "owner".into(), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_rpc_refuses_a_caller_without_authority() {
    let world = World::start().await;
    let other = mint(&world.user("owner"), &key("k", &[])).await.expect("a key");
    let powerless = mint(&world.user("owner"), &key("nobody", &[])).await.expect("a key");
    let mut requests = requests(other.id());
    let before = head(&world).await;
    for rpc in rpcs() {
        let Some((bytes, expected)) = requests.remove(rpc.name.as_str()) else { panic!("no row for {}", rpc.name) };
        if rpc.name == "TokenService.RevokeToken" {
            continue;
        }
        let result = rpc.send_as(&world.server.channel, &powerless.token, bytes).await;
        match expected {
            Expected::Denied(permission) => denied(result, permission),
            Expected::NotFound => not_found(result),
            Expected::Unimplemented => refused(result, Code::Unimplemented, "NOT_IMPLEMENTED", ""),
            Expected::Anything => result.expect("the token is all that it needs"),
        }
    }
    assert!(requests.is_empty(), "of RPCs that are not there: {:?}", requests.keys());
    assert_eq!(head(&world).await, before);
}

//! Defines one policy for each method of the server: who may call it, and how large its message may be.

use crate::{app::ports::Lane, domain::permissions::permission::SystemPermission, grpc::request::metadata::OnBehalf};

const KIB: usize = 1024;
/// A message with a few ids.
const TINY: usize = 4 * KIB;
/// A message with ids, a page token, an etag and filters.
const SMALL: usize = 32 * KIB;
/// A message with one object and all its lists: a key on 1,000 teams, a user with as many roles.
const OBJECT: usize = 512 * KIB;
/// A message bounded by the setting `request_bytes_max` alone.
const LARGE: usize = usize::MAX;

/// The callers that may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anyone, without credentials. The number of open calls is bounded.
    Anonymous,
    /// The bearer of any token on record, even an ended one: the method itself authenticates. The number of open calls
    /// is bounded.
    OwnToken,
    /// A bearer whose token is VALID.
    Key(OnBehalf),
    /// A bearer whose token is VALID, calling to verify tokens: frequent enough to be authenticated from the cache
    /// alone.
    Verifier,
}

/// What the gate requires of a method's calls.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Who may call it.
    pub access: Access,
    /// The largest message; never more than the setting `request_bytes_max`.
    pub message_bytes_max: usize,
    /// The lane in which a user that is acted for is looked up: calls that only withdraw authority wait behind no other
    /// kind.
    pub lane: Lane,
    /// The permission that large messages need: callers without it may send only small ones, and the refusal of a
    /// larger one names the limit.
    pub large_for: Option<SystemPermission>,
    /// Whether reading or encoding its answer may hold a thread for milliseconds: then it runs on the bulk threads, and
    /// no verification waits for it. For reads alone: a mutation there would hold its turn, and the barrier's lookup
    /// that others share, while it waits behind pages; a watch would start loads that verifications join.
    pub bulk: bool,
}

impl Policy {
    /// The largest message of a caller that lacks [`Self::large_for`].
    pub const BYTES_MAX_WITHOUT_PERMISSION: usize = SMALL;
}

const fn policy(method: &'static str, access: Access, message_bytes_max: usize) -> Policy {
    Policy { method, access, message_bytes_max, lane: Lane::Callers, large_for: None, bulk: false }
}

const fn narrowing(policy: Policy) -> Policy {
    Policy { lane: Lane::Narrowing, ..policy }
}

const fn bulk(policy: Policy) -> Policy {
    Policy { bulk: true, ..policy }
}

const fn only_for(permission: SystemPermission, policy: Policy) -> Policy {
    Policy { large_for: Some(permission), ..policy }
}

use Access::{Anonymous, Key, OwnToken, Verifier};

const USER_TOO: Access = Key(OnBehalf::Allowed);
const KEY: Access = Key(OnBehalf::Refused);
const DIRECTORY: SystemPermission = SystemPermission::Directory;

/// The policies of all methods of the server.
pub const POLICIES: &[Policy] = &[
    policy("latchkey.v1.ApiKeyService/CreateApiKey", USER_TOO, OBJECT),
    policy("latchkey.v1.ApiKeyService/GetApiKey", USER_TOO, SMALL),
    bulk(policy("latchkey.v1.ApiKeyService/ListApiKeys", USER_TOO, SMALL)),
    policy("latchkey.v1.ApiKeyService/UpdateApiKey", USER_TOO, OBJECT),
    policy("latchkey.v1.ApiKeyService/RotateApiKey", USER_TOO, SMALL),
    narrowing(policy("latchkey.v1.ApiKeyService/DisableApiKey", USER_TOO, SMALL)),
    policy("latchkey.v1.ApiKeyService/EnableApiKey", USER_TOO, SMALL),
    narrowing(policy("latchkey.v1.ApiKeyService/DeleteApiKey", USER_TOO, SMALL)),
    policy("latchkey.v1.DirectoryService/UpsertAccount", KEY, SMALL),
    policy("latchkey.v1.DirectoryService/GetAccount", KEY, SMALL),
    bulk(policy("latchkey.v1.DirectoryService/ListAccounts", KEY, SMALL)),
    policy("latchkey.v1.DirectoryService/DeleteAccount", KEY, SMALL),
    policy("latchkey.v1.DirectoryService/UpsertTeam", KEY, SMALL),
    policy("latchkey.v1.DirectoryService/GetTeam", KEY, SMALL),
    bulk(policy("latchkey.v1.DirectoryService/ListTeams", KEY, SMALL)),
    policy("latchkey.v1.DirectoryService/DeleteTeam", KEY, SMALL),
    only_for(DIRECTORY, policy("latchkey.v1.DirectoryService/UpsertRole", KEY, OBJECT)),
    policy("latchkey.v1.DirectoryService/GetRole", KEY, SMALL),
    bulk(policy("latchkey.v1.DirectoryService/ListRoles", KEY, SMALL)),
    policy("latchkey.v1.DirectoryService/DeleteRole", KEY, SMALL),
    only_for(DIRECTORY, policy("latchkey.v1.DirectoryService/UpsertUser", KEY, OBJECT)),
    policy("latchkey.v1.DirectoryService/GetUser", KEY, SMALL),
    bulk(policy("latchkey.v1.DirectoryService/ListUsers", KEY, SMALL)),
    policy("latchkey.v1.DirectoryService/DeleteUser", KEY, SMALL),
    only_for(DIRECTORY, policy("latchkey.v1.DirectoryService/BatchUpsertTeams", KEY, LARGE)),
    only_for(DIRECTORY, policy("latchkey.v1.DirectoryService/BatchUpsertUsers", KEY, LARGE)),
    policy("latchkey.v1.DirectoryService/SuspendAccount", KEY, SMALL),
    policy("latchkey.v1.DirectoryService/ResumeAccount", KEY, SMALL),
    bulk(policy("latchkey.v1.DirectoryService/GetCatalogue", KEY, TINY)),
    only_for(SystemPermission::Operate, policy("latchkey.v1.DirectoryService/ApplyCatalogue", KEY, LARGE)),
    bulk(policy("latchkey.v1.EventService/ListEvents", USER_TOO, SMALL)),
    policy("latchkey.v1.EventService/WatchEvents", USER_TOO, SMALL),
    bulk(policy("latchkey.v1.EventService/VerifyEventChain", USER_TOO, SMALL)),
    policy("latchkey.v1.EventService/AwaitPropagation", KEY, SMALL),
    only_for(SystemPermission::Verify, policy("latchkey.v1.TokenService/VerifyToken", Verifier, OBJECT)),
    only_for(SystemPermission::Verify, policy("latchkey.v1.TokenService/VerifyTokens", Verifier, LARGE)),
    only_for(SystemPermission::Verify, policy("latchkey.v1.TokenService/StreamVerifyTokens", Verifier, LARGE)),
    policy("latchkey.v1.TokenService/GetIdentity", USER_TOO, TINY),
    policy("latchkey.v1.TokenService/RevokeToken", OwnToken, TINY),
    policy("latchkey.v1.TokenService/ReportLeakedToken", KEY, SMALL),
    policy("grpc.health.v1.Health/Check", Anonymous, TINY),
    policy("grpc.health.v1.Health/Watch", Anonymous, TINY),
    policy("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Anonymous, TINY),
    policy("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Anonymous, TINY),
];

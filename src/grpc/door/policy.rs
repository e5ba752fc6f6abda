//! One line for each method of the server: who may call it, and how large its message may be.

use crate::{app::ports::Lane, domain::permissions::permission::SystemPermission, grpc::request::metadata::OnBehalf};

const KIB: usize = 1024;
/// A message of a few ids.
const TINY: usize = 4 * KIB;
/// A message of ids, a page token, an etag, filters.
const SMALL: usize = 32 * KIB;
/// A message that holds one object with all its lists: a key on 1,000 teams, a user with as many roles.
const OBJECT: usize = 512 * KIB;
/// A message that is bounded by the setting `request_bytes_max` alone.
const LARGE: usize = usize::MAX;

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Everyone, without credentials: so its calls are bounded in number.
    Open,
    /// The bearer of any token on record, even an ended one: the method itself looks. Bounded in number too.
    OwnToken,
    /// A bearer whose token is VALID.
    Key(OnBehalf),
    /// The same, to ask about tokens: so often that it is let in from memory.
    Verifier,
}

/// What the door asks of a method's calls.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// `package.Service/Method`.
    pub method: &'static str,
    /// Who may call it.
    pub who: Who,
    /// The largest message; never more than the setting `request_bytes_max`.
    pub message_bytes_max: usize,
    /// Where a user that is acted for is looked up: what only takes authority away waits behind no other kind.
    pub lane: Lane,
    /// The permission that large messages are for: whoever lacks it may send small ones only, and is told why it is
    /// refused.
    pub large_for: Option<SystemPermission>,
    /// Whether its work or its answer may hold a thread for milliseconds: then it runs on the bulk threads, and no
    /// verification waits for it. Reads alone: a mutation there would hold its turn, and the barrier's look that others
    /// share, while it waits behind pages; a watch would start loads that verifications join.
    pub bulk: bool,
}

impl Policy {
    /// The largest message of a caller that lacks [`Self::large_for`].
    pub const BYTES_MAX_WITHOUT_PERMISSION: usize = SMALL;
}

const fn line(method: &'static str, who: Who, message_bytes_max: usize) -> Policy {
    Policy { method, who, message_bytes_max, lane: Lane::Callers, large_for: None, bulk: false }
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

use Who::{Key, Open, OwnToken, Verifier};

const USER_TOO: Who = Key(OnBehalf::Taken);
const KEY: Who = Key(OnBehalf::Refused);
const DIRECTORY: SystemPermission = SystemPermission::Directory;

/// Every method that the server has.
pub const POLICIES: &[Policy] = &[
    line("latchkey.v1.ApiKeyService/CreateApiKey", USER_TOO, OBJECT),
    line("latchkey.v1.ApiKeyService/GetApiKey", USER_TOO, SMALL),
    bulk(line("latchkey.v1.ApiKeyService/ListApiKeys", USER_TOO, SMALL)),
    line("latchkey.v1.ApiKeyService/UpdateApiKey", USER_TOO, OBJECT),
    line("latchkey.v1.ApiKeyService/RotateApiKey", USER_TOO, SMALL),
    narrowing(line("latchkey.v1.ApiKeyService/DisableApiKey", USER_TOO, SMALL)),
    line("latchkey.v1.ApiKeyService/EnableApiKey", USER_TOO, SMALL),
    narrowing(line("latchkey.v1.ApiKeyService/DeleteApiKey", USER_TOO, SMALL)),
    line("latchkey.v1.DirectoryService/UpsertAccount", KEY, SMALL),
    line("latchkey.v1.DirectoryService/GetAccount", KEY, SMALL),
    bulk(line("latchkey.v1.DirectoryService/ListAccounts", KEY, SMALL)),
    line("latchkey.v1.DirectoryService/DeleteAccount", KEY, SMALL),
    line("latchkey.v1.DirectoryService/UpsertTeam", KEY, SMALL),
    line("latchkey.v1.DirectoryService/GetTeam", KEY, SMALL),
    bulk(line("latchkey.v1.DirectoryService/ListTeams", KEY, SMALL)),
    line("latchkey.v1.DirectoryService/DeleteTeam", KEY, SMALL),
    only_for(DIRECTORY, line("latchkey.v1.DirectoryService/UpsertRole", KEY, OBJECT)),
    line("latchkey.v1.DirectoryService/GetRole", KEY, SMALL),
    bulk(line("latchkey.v1.DirectoryService/ListRoles", KEY, SMALL)),
    line("latchkey.v1.DirectoryService/DeleteRole", KEY, SMALL),
    only_for(DIRECTORY, line("latchkey.v1.DirectoryService/UpsertUser", KEY, OBJECT)),
    line("latchkey.v1.DirectoryService/GetUser", KEY, SMALL),
    bulk(line("latchkey.v1.DirectoryService/ListUsers", KEY, SMALL)),
    line("latchkey.v1.DirectoryService/DeleteUser", KEY, SMALL),
    only_for(DIRECTORY, line("latchkey.v1.DirectoryService/BatchUpsertTeams", KEY, LARGE)),
    only_for(DIRECTORY, line("latchkey.v1.DirectoryService/BatchUpsertUsers", KEY, LARGE)),
    line("latchkey.v1.DirectoryService/SuspendAccount", KEY, SMALL),
    line("latchkey.v1.DirectoryService/ResumeAccount", KEY, SMALL),
    bulk(line("latchkey.v1.DirectoryService/GetCatalogue", KEY, TINY)),
    only_for(SystemPermission::Operate, line("latchkey.v1.DirectoryService/ApplyCatalogue", KEY, LARGE)),
    bulk(line("latchkey.v1.EventService/ListEvents", USER_TOO, SMALL)),
    line("latchkey.v1.EventService/WatchEvents", USER_TOO, SMALL),
    bulk(line("latchkey.v1.EventService/VerifyEventChain", USER_TOO, SMALL)),
    line("latchkey.v1.EventService/AwaitPropagation", KEY, SMALL),
    only_for(SystemPermission::Verify, line("latchkey.v1.TokenService/VerifyToken", Verifier, OBJECT)),
    only_for(SystemPermission::Verify, line("latchkey.v1.TokenService/VerifyTokens", Verifier, LARGE)),
    only_for(SystemPermission::Verify, line("latchkey.v1.TokenService/StreamVerifyTokens", Verifier, LARGE)),
    line("latchkey.v1.TokenService/GetIdentity", USER_TOO, TINY),
    line("latchkey.v1.TokenService/RevokeToken", OwnToken, TINY),
    line("latchkey.v1.TokenService/ReportLeakedToken", KEY, SMALL),
    line("grpc.health.v1.Health/Check", Open, TINY),
    line("grpc.health.v1.Health/Watch", Open, TINY),
    line("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Open, TINY),
    line("grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", Open, TINY),
];

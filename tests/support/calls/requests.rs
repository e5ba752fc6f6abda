//! The requests that tests send most often: one function each, with what every one of them must say. A test that wants
//! another field sets it: `DeleteApiKeyRequest { skip_propagation_wait: true, ..requests::delete_key(account, key_id) }`.

use latchkey::proto::{
    Account, ApiKey, ApplyCatalogueRequest, BatchUpsertTeamsRequest, Catalogue, CreateApiKeyRequest,
    DeleteApiKeyRequest, DeleteTeamRequest, DisableApiKeyRequest, EnableApiKeyRequest, GetApiKeyRequest,
    ListApiKeysRequest, ListEventsRequest, Requirement, ResumeAccountRequest, Revision, RotateApiKeyRequest,
    SuspendAccountRequest, Team, TokenCheck, UpdateApiKeyRequest, UpsertAccountRequest, UpsertTeamRequest,
    UpsertUserRequest, User, VerifyTokenRequest, VerifyTokensRequest,
};
use prost_types::{Duration, FieldMask};

use crate::support::world::strings;

/// The largest page of a list.
pub const PAGE_SIZE_MAX: i32 = 1_000;

// === keys ===

pub fn create_key(account: &str, api_key: &ApiKey) -> CreateApiKeyRequest {
    CreateApiKeyRequest { account_id: account.into(), api_key: Some(api_key.clone()), ..Default::default() }
}

pub fn get_key(account: &str, key_id: &str) -> GetApiKeyRequest {
    GetApiKeyRequest { account_id: account.into(), key_id: key_id.into() }
}

/// A largest page of an account's keys, deleted ones included.
pub fn list_keys(account: &str) -> ListApiKeysRequest {
    let account_id = account.into();
    ListApiKeysRequest { account_id, page_size: PAGE_SIZE_MAX, show_deleted: true, ..Default::default() }
}

/// No paths means no mask.
pub fn update_key(account: &str, api_key: ApiKey, paths: &[&str]) -> UpdateApiKeyRequest {
    let update_mask = (!paths.is_empty()).then(|| FieldMask { paths: strings(paths) });
    UpdateApiKeyRequest { account_id: account.into(), api_key: Some(api_key), update_mask, ..Default::default() }
}

/// No grace means the default.
pub fn rotate_key(account: &str, key_id: &str, grace_period: Option<Duration>) -> RotateApiKeyRequest {
    RotateApiKeyRequest { account_id: account.into(), key_id: key_id.into(), grace_period, ..Default::default() }
}

pub fn disable_key(account: &str, key_id: &str) -> DisableApiKeyRequest {
    DisableApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() }
}

pub fn enable_key(account: &str, key_id: &str) -> EnableApiKeyRequest {
    EnableApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() }
}

pub fn delete_key(account: &str, key_id: &str) -> DeleteApiKeyRequest {
    DeleteApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() }
}

// === tokens ===

pub fn verify_token(token: &str, requirement: Option<Requirement>) -> VerifyTokenRequest {
    VerifyTokenRequest { token: token.into(), requirement, min_revision: None }
}

pub fn verify_tokens(checks: Vec<TokenCheck>) -> VerifyTokensRequest {
    VerifyTokensRequest { checks, min_revision: None }
}

pub fn requirement(account: &str, permission: &str, teams: &[&str]) -> Requirement {
    Requirement { account_id: account.into(), permission: permission.into(), team_ids: strings(teams) }
}

// === the directory ===

pub fn upsert_account(account: &str, display_name: &str) -> UpsertAccountRequest {
    let account = Account { account_id: account.into(), display_name: display_name.into(), ..Default::default() };
    UpsertAccountRequest { account: Some(account), ..Default::default() }
}

pub fn suspend_account(account: &str) -> SuspendAccountRequest {
    SuspendAccountRequest { account_id: account.into(), ..Default::default() }
}

pub fn resume_account(account: &str) -> ResumeAccountRequest {
    ResumeAccountRequest { account_id: account.into(), ..Default::default() }
}

pub fn team(team: &str, display_name: &str) -> Team {
    Team { team_id: team.into(), display_name: display_name.into(), ..Default::default() }
}

pub fn upsert_team(account: &str, team: Team) -> UpsertTeamRequest {
    UpsertTeamRequest { account_id: account.into(), team: Some(team), ..Default::default() }
}

pub fn upsert_teams(account: &str, teams: impl IntoIterator<Item = Team>) -> BatchUpsertTeamsRequest {
    let teams = teams.into_iter().collect();
    BatchUpsertTeamsRequest { account_id: account.into(), teams, ..Default::default() }
}

pub fn delete_team(account: &str, team: &str) -> DeleteTeamRequest {
    DeleteTeamRequest { account_id: account.into(), team_id: team.into(), ..Default::default() }
}

pub fn upsert_user(account: &str, user: User) -> UpsertUserRequest {
    UpsertUserRequest { account_id: account.into(), user: Some(user), ..Default::default() }
}

pub fn apply_catalogue(catalogue: Catalogue) -> ApplyCatalogueRequest {
    ApplyCatalogueRequest { catalogue: Some(catalogue), ..Default::default() }
}

// === the log ===

/// A largest page of the events after a number.
pub fn list_events(number: i64) -> ListEventsRequest {
    let after_revision = Some(Revision { epoch: 1, number });
    ListEventsRequest { page_size: PAGE_SIZE_MAX, after_revision, ..Default::default() }
}

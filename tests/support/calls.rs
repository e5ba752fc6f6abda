//! The calls that tests make most often, each one line to make and to read.

use std::time::Duration;

use latchkey::proto::{
    ApiKey, ApplyCatalogueRequest, ApplyCatalogueResponse, Catalogue, DeleteApiKeyRequest, DisableApiKeyRequest,
    EnableApiKeyRequest, Event, EventKind, GetApiKeyRequest, GetCatalogueRequest, ListApiKeysRequest,
    ListApiKeysResponse, ListEventsRequest, Permission, Propagation, Requirement, ResumeAccountRequest, Revision,
    RevokeTokenRequest, RotateApiKeyRequest, RotateApiKeyResponse, SuspendAccountRequest, UpdateApiKeyRequest,
    UpdateApiKeyResponse,
};
use prost_types::FieldMask;
use tonic::Status;

use super::{Caller, World};

/// Microseconds since the Unix epoch.
pub fn micros(time: &prost_types::Timestamp) -> i64 {
    time.seconds * 1_000_000 + i64::from(time.nanos / 1_000)
}

/// A span of whole seconds.
pub fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A span of milliseconds.
pub fn millis(millis: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::from(millis / 1_000), nanos: millis % 1_000 * 1_000_000 }
}

pub async fn get(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = GetApiKeyRequest { account_id: account.into(), key_id: key_id.into() };
    Ok(caller.keys().get_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn list(caller: &Caller, request: ListApiKeysRequest) -> Result<ListApiKeysResponse, Status> {
    Ok(caller.keys().list_api_keys(request).await?.into_inner())
}

/// Edits a key; no paths means no mask.
pub async fn update(
    caller: &Caller,
    account: &str,
    api_key: ApiKey,
    paths: &[&str],
) -> Result<UpdateApiKeyResponse, Status> {
    let update_mask = (!paths.is_empty()).then(|| FieldMask { paths: super::world::strings(paths) });
    let request = UpdateApiKeyRequest {
        account_id: account.into(),
        api_key: Some(api_key),
        update_mask,
        validate_only: false,
        ..Default::default()
    };
    Ok(caller.keys().update_api_key(request).await?.into_inner())
}

/// Rotates a key; no grace means the default.
pub async fn rotate(
    caller: &Caller,
    account: &str,
    key_id: &str,
    grace_period: Option<prost_types::Duration>,
) -> Result<RotateApiKeyResponse, Status> {
    let request =
        RotateApiKeyRequest { account_id: account.into(), key_id: key_id.into(), grace_period, ..Default::default() };
    Ok(caller.keys().rotate_api_key(request).await?.into_inner())
}

pub async fn disable(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = DisableApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() };
    Ok(caller.keys().disable_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn enable(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = EnableApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() };
    Ok(caller.keys().enable_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn delete(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = DeleteApiKeyRequest { account_id: account.into(), key_id: key_id.into(), ..Default::default() };
    Ok(caller.keys().delete_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn revoke(caller: &Caller) -> Result<Propagation, Status> {
    Ok(caller
        .tokens()
        .revoke_token(RevokeTokenRequest { ..Default::default() })
        .await?
        .into_inner()
        .propagation
        .expect("a propagation"))
}

pub async fn suspend(world: &World, account: &str) {
    let request = SuspendAccountRequest { account_id: account.into(), ..Default::default() };
    world.directory.directory().suspend_account(request).await.expect("the account is suspended");
}

pub async fn resume(world: &World, account: &str) {
    let request = ResumeAccountRequest { account_id: account.into(), ..Default::default() };
    world.directory.directory().resume_account(request).await.expect("the account is resumed");
}

/// The number of the log's last event: what does not move it appended nothing.
pub async fn head(world: &World) -> i64 {
    let request = ListEventsRequest { page_size: 1, ..Default::default() };
    let response = world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner();
    response.head.expect("a head").number
}

/// The events after a number.
pub async fn events_after(world: &World, number: i64) -> Vec<Event> {
    let after_revision = Some(Revision { epoch: 1, number });
    let request = ListEventsRequest { page_size: 1_000, after_revision, ..Default::default() };
    world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner().events
}

/// What happened to a key, in order.
pub async fn kinds_of(world: &World, key_id: &str) -> Vec<EventKind> {
    let request = ListEventsRequest { page_size: 1_000, key_id: key_id.into(), ..Default::default() };
    let response = world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner();
    response.events.iter().map(Event::kind).collect()
}

pub async fn catalogue(world: &World) -> Catalogue {
    let response = world.directory.directory().get_catalogue(GetCatalogueRequest {}).await.expect("a catalogue");
    response.into_inner().catalogue.expect("a catalogue")
}

pub async fn apply(caller: &Caller, catalogue: Catalogue) -> Result<ApplyCatalogueResponse, Status> {
    let request = ApplyCatalogueRequest { catalogue: Some(catalogue), validate_only: false, ..Default::default() };
    Ok(caller.directory().apply_catalogue(request).await?.into_inner())
}

/// Applies the current catalogue with one permission changed.
pub async fn change_permission(
    world: &World,
    name: &str,
    change: impl FnOnce(&mut Permission),
) -> Result<ApplyCatalogueResponse, Status> {
    let mut catalogue = catalogue(world).await;
    change(catalogue.permissions.iter_mut().find(|permission| permission.name == name).expect(name));
    apply(&world.server.operator, catalogue).await
}

pub fn requirement(account: &str, permission: &str, teams: &[&str]) -> Requirement {
    Requirement { account_id: account.into(), permission: permission.into(), team_ids: super::world::strings(teams) }
}

/// Asks again until the answer is right, for what happens beside requests: five seconds at most.
pub async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    for _ in 0..100 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within five seconds: {what}");
}

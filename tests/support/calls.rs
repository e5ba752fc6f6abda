//! The calls that tests make most often, each one line to make and to read: here for any account, in [`acme`] for the one
//! that most tests act in, and in [`requests`] what is sent.

pub mod acme;
pub mod requests;

use std::time::Duration;

use latchkey::proto::{
    ApiKey, ApplyCatalogueResponse, Catalogue, Event, EventKind, GetCatalogueRequest, ListApiKeysRequest,
    ListApiKeysResponse, ListEventsRequest, Permission, Propagation, RevokeTokenRequest, RotateApiKeyResponse,
    UpdateApiKeyResponse,
};
use tonic::Status;

pub use self::requests::requirement;
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
    let request = requests::get_key(account, key_id);
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
    Ok(caller.keys().update_api_key(requests::update_key(account, api_key, paths)).await?.into_inner())
}

/// Rotates a key; no grace means the default.
pub async fn rotate(
    caller: &Caller,
    account: &str,
    key_id: &str,
    grace_period: Option<prost_types::Duration>,
) -> Result<RotateApiKeyResponse, Status> {
    Ok(caller.keys().rotate_api_key(requests::rotate_key(account, key_id, grace_period)).await?.into_inner())
}

pub async fn disable(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = requests::disable_key(account, key_id);
    Ok(caller.keys().disable_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn enable(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = requests::enable_key(account, key_id);
    Ok(caller.keys().enable_api_key(request).await?.into_inner().api_key.expect("a key"))
}

pub async fn delete(caller: &Caller, account: &str, key_id: &str) -> Result<ApiKey, Status> {
    let request = requests::delete_key(account, key_id);
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
    let request = requests::suspend_account(account);
    world.directory.directory().suspend_account(request).await.expect("the account is suspended");
}

pub async fn resume(world: &World, account: &str) {
    let request = requests::resume_account(account);
    world.directory.directory().resume_account(request).await.expect("the account is resumed");
}

/// The number of the log's last event: what does not move it appended nothing.
pub async fn head(world: &World) -> i64 {
    let request = ListEventsRequest { page_size: 1, ..Default::default() };
    let response = world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner();
    response.head.expect("a head").number
}

/// Every event after a number, over all accounts.
pub async fn events_after(world: &World, number: i64) -> Vec<Event> {
    let (mut events, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListEventsRequest { page_token, ..requests::list_events(number) };
        let page = world.auditor.events().list_events(request).await.expect("the auditor reads the log").into_inner();
        events.extend(page.events);
        if page.next_page_token.is_empty() {
            return events;
        }
        page_token = page.next_page_token;
    }
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
    Ok(caller.directory().apply_catalogue(requests::apply_catalogue(catalogue)).await?.into_inner())
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

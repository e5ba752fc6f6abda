//! Calls in account `acme` and refusals, in one line each, for tests about who may do what.

use std::collections::BTreeSet;

use latchkey::domain::token::{PlainToken, Prefix};
use latchkey::proto::{ApiKey, Event, EventKind, api_key::Expiry};
use prost_types::{Duration, Timestamp};
use tonic::{Code, Status};

use super::requests;
pub use super::{events_after, head};
use crate::support::{
    Caller, World,
    world::{ACME, assert_refused, create},
};

/// A key that was minted or rotated. Has no `Debug`: it holds a token.
pub struct Minted {
    pub key: ApiKey,
    pub token: String,
}

impl Minted {
    pub fn id(&self) -> &str {
        &self.key.key_id
    }
}

// === key management, in account `acme` ===

/// Mints a key in `acme`.
pub async fn mint(caller: &Caller, key: &ApiKey) -> Result<Minted, Status> {
    mint_in(caller, ACME, key).await
}

/// Mints a key in an account.
pub async fn mint_in(caller: &Caller, account: &str, key: &ApiKey) -> Result<Minted, Status> {
    let made = create(caller, account, key).await?;
    Ok(Minted { key: made.api_key.expect("a key"), token: made.token })
}

pub async fn get(caller: &Caller, key_id: &str) -> Result<ApiKey, Status> {
    super::get(caller, ACME, key_id).await
}

/// Lists all keys of `acme` that the caller sees, deleted ones included.
pub async fn list(caller: &Caller) -> Result<Vec<ApiKey>, Status> {
    Ok(super::list(caller, requests::list_keys(ACME)).await?.api_keys)
}

/// Edits a key of `acme`: `change` makes the new values, `mask` names them.
pub async fn update(caller: &Caller, key_id: &str, mask: &[&str], change: ApiKey) -> Result<ApiKey, Status> {
    let changed = ApiKey { key_id: key_id.into(), ..change };
    Ok(super::update(caller, ACME, changed, mask).await?.api_key.expect("a key"))
}

/// Renames a key of `acme`: the edit that adds no authority at all.
pub async fn rename(caller: &Caller, key_id: &str) -> Result<ApiKey, Status> {
    update(caller, key_id, &["name"], ApiKey { name: "renamed".into(), ..Default::default() }).await
}

pub async fn rotate(caller: &Caller, key_id: &str) -> Result<Minted, Status> {
    rotate_with(caller, ACME, key_id, None).await
}

pub async fn rotate_with(caller: &Caller, account: &str, key_id: &str, grace: Option<i64>) -> Result<Minted, Status> {
    let rotated = super::rotate(caller, account, key_id, grace.map(super::seconds)).await?;
    Ok(Minted { key: rotated.api_key.expect("a key"), token: rotated.token })
}

pub async fn disable(caller: &Caller, key_id: &str) -> Result<ApiKey, Status> {
    super::disable(caller, ACME, key_id).await
}

pub async fn enable(caller: &Caller, key_id: &str) -> Result<ApiKey, Status> {
    super::enable(caller, ACME, key_id).await
}

pub async fn delete(caller: &Caller, key_id: &str) -> Result<ApiKey, Status> {
    super::delete(caller, ACME, key_id).await
}

// === keys that expire ===

/// The same key, with an expiry some seconds after the epoch.
pub fn until(key: ApiKey, seconds: i64) -> ApiKey {
    ApiKey { expiry: Some(Expiry::ExpireTime(Timestamp { seconds, nanos: 0 })), ..key }
}

/// The same key, with a time to live in seconds.
pub fn living(key: ApiKey, seconds: i64) -> ApiKey {
    ApiKey { expiry: Some(Expiry::Ttl(Duration { seconds, nanos: 0 })), ..key }
}

/// When a key expires, in seconds after the epoch.
pub fn expiry_of(key: &ApiKey) -> i64 {
    match key.expiry {
        Some(Expiry::ExpireTime(time)) => time.seconds,
        _ => panic!("the key does not expire: {key:?}"),
    }
}

// === the log ===

/// The only event after a number.
pub async fn only_event_after(world: &World, number: i64) -> Event {
    let mut events = events_after(world, number).await;
    assert_eq!(events.len(), 1, "{events:?}");
    events.remove(0)
}

/// The kinds of the events after a number.
pub async fn kinds_after(world: &World, number: i64) -> Vec<EventKind> {
    events_after(world, number).await.iter().map(Event::kind).collect()
}

/// What an event says of one field: before, after, added, removed.
pub fn change<'a>(event: &'a Event, field: &str) -> (&'a str, &'a str, &'a [String], &'a [String]) {
    let found = event.changes.iter().find(|change| change.field == field);
    let found = found.unwrap_or_else(|| panic!("`{field}` is not in {event:?}"));
    (&found.before, &found.after, &found.added, &found.removed)
}

pub fn fields(event: &Event) -> BTreeSet<&str> {
    event.changes.iter().map(|change| change.field.as_str()).collect()
}

// === refusals ===

/// A refusal, whatever the call would have returned.
#[track_caller]
pub fn refused<T>(result: Result<T, Status>, code: Code, reason: &str, names: &str) {
    assert_refused(result.map(drop), code, reason, names);
}

/// The caller lacks a permission (or names a team it does not manage).
#[track_caller]
pub fn denied<T>(result: Result<T, Status>, names: &str) {
    refused(result, Code::PermissionDenied, "PERMISSION_MISSING", names);
}

/// A rule forbids it, whatever the caller holds.
#[track_caller]
pub fn forbidden<T>(result: Result<T, Status>, rule: &str) {
    refused(result, Code::PermissionDenied, "NOT_ALLOWED", rule);
}

#[track_caller]
pub fn not_found<T>(result: Result<T, Status>) {
    refused(result, Code::NotFound, "NOT_FOUND", "");
}

#[track_caller]
pub fn stale<T>(result: Result<T, Status>) {
    refused(result, Code::Aborted, "STALE_ETAG", "");
}

#[track_caller]
pub fn wrong_state<T>(result: Result<T, Status>) {
    refused(result, Code::FailedPrecondition, "WRONG_STATE", "");
}

/// A field is wrong, and named.
#[track_caller]
pub fn bad_field<T>(result: Result<T, Status>, field: &str) {
    let status = result.map(drop).expect_err("must be refused");
    let details = tonic_types::StatusExt::get_error_details(&status);
    let fields: Vec<_> = details.bad_request().iter().flat_map(|bad| &bad.field_violations).collect();
    assert!(fields.iter().any(|violation| violation.field == field), "`{field}` is not among {fields:?} of {status:?}");
    refused(Err::<(), _>(status), Code::InvalidArgument, "INVALID_FIELD", field);
}

/// A metadata entry is wrong, and named.
#[track_caller]
pub fn bad_metadata<T>(result: Result<T, Status>, entry: &str) {
    refused(result, Code::InvalidArgument, "INVALID_METADATA", entry);
}

#[track_caller]
pub fn unauthenticated<T>(result: Result<T, Status>, reason: &str) {
    refused(result, Code::Unauthenticated, reason, "");
}

/// A token of the right shape that no server minted.
pub fn unknown_token() -> String {
    invented(0)
}

/// One of many such tokens.
pub fn invented(number: u64) -> String {
    let mut secret = zeroize::Zeroizing::new([7; 32]);
    secret[..8].copy_from_slice(&number.to_le_bytes());
    PlainToken::mint(&Prefix::parse("prefix", "lk").expect("a prefix"), &secret).reveal().to_owned()
}

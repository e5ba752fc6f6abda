//! Objects to store, and the mutations that store them.

use std::collections::BTreeSet;

use latchkey::{
    app::ports::{Append, Lane, Locks, NewSecret, Reader, Stamp, Store, Tx},
    domain::{
        api_key::{ApiKey, ApiKeyContent, ApiKeyState},
        directory::{Account, AccountState, Role, RoleKind, RolePermissions, Team, User, UserState},
        id::{AccountId, KeyId, RoleId, TeamId, UserId},
        log::{
            event::{EventDraft, EventKind, Target},
            revision::Revision,
        },
        permissions::grants::{Grants, TeamScope},
        time::Timestamp,
        token::HashedToken,
    },
    store::PostgresStore,
    verify::{clock::BootClock, primary::Sent},
};
use uuid::Uuid;

/// A moment long past, in whole microseconds.
pub const THEN: Timestamp = Timestamp::from_micros(1_700_000_000_123_456);
/// A moment beyond every one on record.
pub const LATE: Timestamp = Timestamp::from_micros(4_000_000_000_000_000);
const NEVER: Revision = Revision { epoch: 1, number: 0 };

pub fn account_id(id: &str) -> AccountId {
    AccountId::from_stored(id)
}

pub fn team_id(id: &str) -> TeamId {
    TeamId::from_stored(id)
}

pub fn role_id(id: &str) -> RoleId {
    RoleId::from_stored(id)
}

pub fn user_id(id: &str) -> UserId {
    UserId::from_stored(id)
}

pub fn key_id(n: u128) -> KeyId {
    KeyId::from_uuid(Uuid::from_u128(n))
}

/// A digest that is that of key `n`'s token `m`.
pub fn digest(n: u128, m: u8) -> HashedToken {
    let mut bytes = *blake3::hash(&n.to_be_bytes()).as_bytes();
    bytes[31] = m;
    HashedToken::from_bytes(bytes)
}

pub fn secret(n: u128, m: u8) -> NewSecret {
    NewSecret { digest: digest(n, m), pepper_id: "p1".into() }
}

pub fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub fn grants(account: &[&str], teams: &[&str], team_permissions: &[&str]) -> Grants {
    let teams = teams.iter().map(|team| team_id(team)).collect();
    Grants { account_permissions: names(account), team_scope: TeamScope::from_stored(teams, names(team_permissions)) }
}

pub fn account(id: &str) -> Account {
    Account {
        account_id: account_id(id),
        display_name: id.to_uppercase(),
        state: AccountState::Active,
        create_time: THEN,
        api_key_count: 0,
        deleted_api_key_count: 0,
        purging_team_ids: BTreeSet::new(),
        is_purging: false,
        revision: NEVER,
    }
}

pub fn team(id: &str) -> Team {
    Team { team_id: team_id(id), display_name: format!("Team {id}"), revision: NEVER }
}

pub fn role(id: &str, kind: RoleKind, permissions: &[&str]) -> Role {
    let permissions = RolePermissions::Named(names(permissions));
    Role { role_id: role_id(id), display_name: id.into(), kind, permissions, revision: NEVER }
}

pub fn user(id: &str, base: &str, custom: &[&str], team_roles: &[(&str, &str)]) -> User {
    User {
        user_id: user_id(id),
        display_name: id.into(),
        state: UserState::Active,
        base_role_id: role_id(base),
        custom_role_ids: custom.iter().map(|id| role_id(id)).collect(),
        team_roles: team_roles.iter().map(|(team, role)| (team_id(team), role_id(role))).collect(),
        revision: NEVER,
    }
}

pub fn api_key(n: u128, account: &str, grants: Grants) -> ApiKey {
    ApiKey {
        key_id: key_id(n),
        account_id: account_id(account),
        content: ApiKeyContent {
            name: format!("key {n}"),
            comment: "two\nlines".into(),
            metadata: [("env".to_owned(), "prod \"ü\"".to_owned())].into(),
            grants,
            expire_time: None,
        },
        state: ApiKeyState::Active,
        token_hint: "lk_…abcd".into(),
        creator: None,
        create_time: THEN,
        update_time: THEN,
        delete_time: None,
        rotate_time: THEN,
        retiring_end_time: None,
        current_token_last_used_time: None,
        retiring_token_last_used_time: None,
        last_used_time: None,
        revision: NEVER,
    }
}

/// An event that stamps what it happened to.
pub fn event(kind: EventKind, account: &str, target: (&str, &str), stamps: Vec<Stamp>) -> Append {
    let draft = EventDraft {
        kind,
        account_id: Some(account_id(account)),
        actor: None,
        target: Target { kind: target.0.into(), id: target.1.into() },
        changes: vec![],
        affected_key_ids: vec![],
        break_glass: false,
    };
    Append { draft, stamps }
}

pub fn key_event(kind: EventKind, key: &ApiKey) -> Append {
    let stamps = vec![Stamp::ApiKeys(key.account_id.clone(), vec![key.key_id])];
    event(kind, key.account_id.as_str(), ("api_key", &key.key_id.to_string()), stamps)
}

/// Locks an account for a change.
pub fn exclusive(account: &str) -> Locks {
    Locks { exclusive: [account_id(account)].into(), ..Locks::default() }
}

pub async fn begin(store: &PostgresStore, account: &str) -> Box<dyn Tx> {
    store.begin(Lane::Mutations, "test", false, &exclusive(account)).await.expect("begins")
}

pub async fn snapshot(store: &PostgresStore) -> Box<dyn Reader> {
    store.snapshot(Lane::Reads).await.expect("opens")
}

/// An account with the default roles and these teams.
pub async fn put_account(store: &PostgresStore, id: &str, teams: &[&str]) {
    let mut tx = begin(store, id).await;
    tx.put_account(&account(id)).await.expect("account");
    let roles = [
        role("owner", RoleKind::Base, &[]),
        role("standard", RoleKind::Base, &["incidents.view"]),
        role("extra", RoleKind::Custom, &["billing.manage"]),
        role("lead", RoleKind::Team, &["catalog.edit"]),
    ];
    tx.put_roles(&account_id(id), &roles).await.expect("roles");
    tx.put_teams(&account_id(id), &teams.iter().map(|id| team(id)).collect::<Vec<_>>()).await.expect("teams");
    let mut stamps = vec![Stamp::Account(account_id(id)), Stamp::Roles(account_id(id))];
    stamps.extend(teams.iter().map(|team| Stamp::Team(account_id(id), team_id(team))));
    tx.append(vec![event(EventKind::AccountCreated, id, ("account", id), stamps)]).await.expect("appends");
    tx.commit().await.expect("commits");
}

pub async fn put_key(store: &PostgresStore, key: &ApiKey, n: u128) -> Revision {
    let mut tx = begin(store, key.account_id.as_str()).await;
    tx.insert_api_key(key, &secret(n, 0)).await.expect("inserts");
    let revisions = tx.append(vec![key_event(EventKind::ApiKeyCreated, key)]).await.expect("appends");
    tx.commit().await.expect("commits");
    revisions[0]
}

pub async fn get_key(store: &PostgresStore, key: &ApiKey) -> ApiKey {
    snapshot(store).await.api_key(&key.account_id, key.key_id).await.expect("reads").expect("is there")
}

/// What the key becomes when an edit changes its grants.
pub fn with_grants(key: &ApiKey, grants: Grants) -> ApiKey {
    let mut after = key.clone();
    after.content.grants = grants;
    after
}

/// An edit of a key with its event.
pub async fn update_key(store: &PostgresStore, before: &ApiKey, after: &ApiKey) {
    let mut tx = begin(store, before.account_id.as_str()).await;
    tx.update_api_key(before, after).await.expect("updates");
    tx.append(vec![key_event(EventKind::ApiKeyUpdated, after)]).await.expect("appends");
    tx.commit().await.expect("commits");
}

/// A statement that is sent now.
pub fn sent() -> Sent<'static> {
    Sent::new(&BootClock)
}

//! One account that is large beside all others: users with five team roles each, and keys on two of many teams. Written
//! into the tables behind the server's back, and the calls that are made of it.

use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use latchkey::{
    domain::id::KeyId,
    proto::{
        ApiKey, DisableApiKeyRequest, GetIdentityRequest, ListApiKeysRequest, ListEventsRequest, ListUsersRequest,
        RotateApiKeyRequest, UpdateApiKeyRequest,
    },
};
use uuid::Uuid;

use crate::{
    side::PAGE,
    support::{
        Caller,
        world::{create, key},
    },
};

const ACCOUNT: &str = "big";
/// Of one key in ten.
const FILTERED: &str = "secrets.use";
const KEY_ID_BASE: u128 = 0x0191_0000_0000_7000_8000 << 48;
/// Of all events, one in so many is the account's.
const EVENTS_SHARE: u64 = 50;
const EVENTS_MIN: u64 = 5_000;

/// The account's size, and how many events the log has beside.
#[derive(Clone, Copy)]
pub struct Big {
    pub users: u64,
    pub keys: u64,
    pub teams: u64,
}

/// Who calls, and from where.
pub struct Callers {
    operator: Caller,
    product: Caller,
    /// Of a page in the middle of the account's keys.
    deep: String,
    big: Big,
}

/// `{USERS}`, `{KEYS}`, `{TEAMS}`, `{EVENTS}` and `{ACCOUNTS}` are filled in. An event is a copy of the last one made, as
/// far as a list minds.
const SQL: &str = "SET session_replication_role = replica; \
    INSERT INTO accounts (account_id, display_name, state, api_key_count, create_time, revision_epoch, revision_number) \
    VALUES ('big', 'Big', 'active', {KEYS}, now(), 1, 0); \
    INSERT INTO teams (account_id, team_id, display_name, revision_epoch, revision_number) \
    SELECT 'big', 'team-' || t, 'Team ' || t, 1, 0 FROM generate_series(0, {TEAMS} - 1) t; \
    INSERT INTO roles (account_id, role_id, display_name, kind, permissions, all_permissions, revision_epoch, \
     revision_number) VALUES ('big', 'standard', 'Standard', 'base', '{}', false, 1, 0), \
     ('big', 'manager', 'Manager', 'team', '{api_keys.manage,catalog.edit}', false, 1, 0); \
    INSERT INTO users (account_id, user_id, display_name, state, base_role_id, revision_epoch, revision_number) \
    SELECT 'big', 'user-' || u, 'User ' || u, 'active', 'standard', 1, 0 FROM generate_series(0, {USERS} - 1) u; \
    INSERT INTO user_roles (account_id, user_id, role_id, role_kind, team_id) \
    SELECT 'big', 'user-' || u, 'manager', 'team', 'team-' || (u * 7 + t) % {TEAMS} \
    FROM generate_series(0, {USERS} - 1) u, generate_series(0, 4) t; \
    INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, state, \
     token_hint, create_time, update_time, rotate_time, revision_epoch, revision_number) \
    SELECT ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'big', 'key ' || n, '', '{}', \
     CASE n % 10 WHEN 0 THEN '{incidents.view,secrets.use}'::text[] ELSE '{incidents.view}' END, '{catalog.view}', \
     'active', 'lk_', now(), now(), now(), 1, 0 FROM generate_series(0, {KEYS} - 1) n; \
    INSERT INTO api_key_teams (account_id, key_id, team_id) \
    SELECT 'big', ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'team-' || (n + t) % {TEAMS} \
    FROM generate_series(0, {KEYS} - 1) n, generate_series(0, 1) t; \
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) \
    SELECT sha256(('big' || n)::bytea), ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'test', now() \
    FROM generate_series(0, {KEYS} - 1) n; \
    INSERT INTO token_usage (digest, key_id, last_used_time) \
    SELECT sha256(('big' || n)::bytea), ('01910000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now() \
    FROM generate_series(0, {KEYS} - 1) n; \
    INSERT INTO events (number, epoch, event_id, time, kind, account_id, target_type, target_id, affected_key_ids, \
     format_version, payload, hash) \
    SELECT h.number + n, h.epoch, gen_random_uuid(), h.time, e.kind, \
     CASE n % {EVENTS_SHARE} WHEN 0 THEN 'big' ELSE 'a' || n % {ACCOUNTS} END, e.target_type, 'key_' || n, '{}', \
     e.format_version, e.payload, h.hash \
    FROM generate_series(1, {EVENTS}) n, log_head h JOIN events e ON e.number = h.number; \
    UPDATE log_head SET number = number + {EVENTS}; \
    SET session_replication_role = origin";

// === impl Big ===

impl Big {
    /// Writes it into a store of so many keys in so many accounts beside it.
    pub async fn load(self, superuser_url: &str, keys: u64, accounts: u64) {
        let sql = [
            ("{USERS}", self.users),
            ("{KEYS}", self.keys),
            ("{TEAMS}", self.teams),
            ("{EVENTS}", (keys / 10).max(EVENTS_MIN)),
            ("{EVENTS_SHARE}", EVENTS_SHARE),
            ("{ACCOUNTS}", accounts),
        ];
        let sql = sql.iter().fold(SQL.to_owned(), |sql, (name, value)| sql.replace(name, &value.to_string()));
        AsyncPgConnection::establish(superuser_url).await.unwrap().batch_execute(&sql).await.unwrap();
    }

    /// In an order that no page of the database shares.
    fn scattered(of: u64, call: u64) -> u64 {
        call * 611_953 % of
    }

    fn key(self, call: u64) -> String {
        let number = Self::scattered(self.keys, call);
        KeyId::from_uuid(Uuid::from_u128(KEY_ID_BASE | u128::from(number))).to_string()
    }
}

// === impl Callers ===

impl Callers {
    /// Mints what calls, and walks to the middle of the account's keys.
    pub async fn new(operator: &Caller, big: Big) -> Self {
        let service = create(operator, "system", &key("product", &["system.impersonate"])).await.unwrap();
        let product = Caller { token: service.token, ..operator.clone() };
        let (mut deep, mut walked) = (String::new(), 0);
        while walked < big.keys / 2 {
            let page_size = 1_000.min(big.keys / 2) as i32;
            let request = ListApiKeysRequest { page_size, page_token: deep, ..keys_of_big() };
            let page = operator.keys().list_api_keys(request).await.unwrap().into_inner();
            walked += page.api_keys.len() as u64;
            deep = page.next_page_token;
        }
        Self { operator: operator.clone(), product, deep, big }
    }

    fn user(&self, call: u64) -> Caller {
        self.product.for_user(ACCOUNT, &format!("user-{}", Big::scattered(self.big.users, call)))
    }

    pub async fn list_deep(&self) -> Duration {
        let request = ListApiKeysRequest { page_token: self.deep.clone(), ..keys_of_big() };
        list(&self.operator, request).await
    }

    pub async fn list_filtered(&self) -> Duration {
        list(&self.operator, ListApiKeysRequest { permission: FILTERED.into(), ..keys_of_big() }).await
    }

    /// Of a manager of five teams.
    pub async fn list_managed(&self, call: u64) -> Duration {
        list(&self.user(call), keys_of_big()).await
    }

    pub async fn list_users(&self) -> Duration {
        let request = ListUsersRequest { account_id: ACCOUNT.into(), ..Default::default() };
        let mut client = self.operator.directory();
        let sent = Instant::now();
        let page = client.list_users(request).await.unwrap().into_inner();
        let span = sent.elapsed();
        assert_eq!(page.users.len(), PAGE);
        assert!(page.users.iter().all(|user| user.team_roles.len() == 5));
        span
    }

    pub async fn list_events(&self) -> Duration {
        let request = ListEventsRequest { account_id: ACCOUNT.into(), ..Default::default() };
        let mut client = self.operator.events();
        let sent = Instant::now();
        let page = client.list_events(request).await.unwrap().into_inner();
        let span = sent.elapsed();
        assert_eq!(page.events.len(), PAGE);
        span
    }

    pub async fn identity(&self) -> Duration {
        identity(&self.operator).await
    }

    pub async fn identity_on_behalf(&self, call: u64) -> Duration {
        identity(&self.user(call)).await
    }

    pub async fn edit(&self, call: u64) -> Duration {
        let api_key = ApiKey { key_id: self.big.key(call), name: "edited".into(), ..Default::default() };
        let update_mask = Some(prost_types::FieldMask { paths: vec!["name".into()] });
        let request = UpdateApiKeyRequest {
            account_id: ACCOUNT.into(),
            api_key: Some(api_key),
            update_mask,
            ..Default::default()
        };
        let mut client = self.operator.keys();
        let sent = Instant::now();
        client.update_api_key(request).await.unwrap();
        sent.elapsed()
    }

    pub async fn rotate(&self, call: u64) -> Duration {
        let request =
            RotateApiKeyRequest { account_id: ACCOUNT.into(), key_id: self.big.key(call), ..Default::default() };
        let mut client = self.operator.keys();
        let sent = Instant::now();
        client.rotate_api_key(request).await.unwrap();
        sent.elapsed()
    }

    pub async fn disable(&self, call: u64) -> Duration {
        let request =
            DisableApiKeyRequest { account_id: ACCOUNT.into(), key_id: self.big.key(call), ..Default::default() };
        let mut client = self.operator.keys();
        let sent = Instant::now();
        client.disable_api_key(request).await.unwrap();
        sent.elapsed()
    }
}

fn keys_of_big() -> ListApiKeysRequest {
    ListApiKeysRequest { account_id: ACCOUNT.into(), ..Default::default() }
}

async fn list(caller: &Caller, request: ListApiKeysRequest) -> Duration {
    let mut client = caller.keys();
    let sent = Instant::now();
    let page = client.list_api_keys(request).await.unwrap().into_inner();
    let span = sent.elapsed();
    assert_eq!(page.api_keys.len(), PAGE);
    span
}

async fn identity(caller: &Caller) -> Duration {
    let mut client = caller.tokens();
    let sent = Instant::now();
    client.get_identity(GetIdentityRequest {}).await.unwrap();
    sent.elapsed()
}

//! Keys by the hundred thousand, written into the tables behind the server's back: as `migrations/` wants them, with
//! the digests of tokens that can be made again from their numbers.

use diesel::{
    sql_query,
    sql_types::{Array, BigInt, Bytea, Text},
};
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use latchkey::domain::{
    id::KeyId,
    token::{Pepper, PlainToken, Prefix},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::support::server::pepper;

/// Of an account; a key is on two of them.
pub const TEAMS: u64 = 10;
pub const ACCOUNT_PERMISSIONS: [&str; 4] = ["incidents.view", "incidents.create", "settings.view", "workflows.view"];
pub const TEAM_PERMISSIONS: [&str; 4] = ["catalog.view", "schedules.view", "on_call.view", "heartbeats.ping"];
/// Keys a statement.
const BATCH: u64 = 20_000;
const CHECKED_MAX: u64 = 10_000;
/// The first 80 bits of every id: a UUIDv7, as if all were minted in one millisecond, in order of number.
const KEY_ID_BASE: u128 = 0x0190_0000_0000_7000_8000 << 48;

/// So many keys, the n-th in account n modulo so many.
#[derive(Clone, Copy)]
pub struct Keys {
    pub count: u64,
    pub accounts: u64,
}

const ACCOUNTS_SQL: &str = "\
    INSERT INTO accounts (account_id, display_name, state, api_key_count, create_time, revision_epoch, revision_number) \
    SELECT 'a' || n, 'Account ' || n, 'active', {PER_ACCOUNT}, now(), 1, 0 FROM generate_series(0, {ACCOUNTS} - 1) n; \
    INSERT INTO teams (account_id, team_id, display_name, revision_epoch, revision_number) \
    SELECT 'a' || n, 'team-' || t, 'Team ' || t, 1, 0 \
    FROM generate_series(0, {ACCOUNTS} - 1) n, generate_series(0, {TEAMS} - 1) t";

const KEYS_SQL: &str = "WITH batch AS ( \
      SELECT n, 'a' || n % $2 AS account_id, ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid AS key_id, \
      digest, hint FROM unnest($3, $4, $5) AS u (n, digest, hint)), \
     k AS (INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, \
      state, token_hint, create_time, update_time, rotate_time, revision_epoch, revision_number) \
      SELECT key_id, account_id, 'key ' || n, '', '{\"purpose\": \"benchmark\"}', $6, $7, \
      'active', hint, now(), now(), now(), 1, 0 FROM batch), \
     t AS (INSERT INTO api_key_teams (account_id, key_id, team_id) \
      SELECT account_id, key_id, 'team-' || (n / $2 + t) % $1 FROM batch, generate_series(0, 1) t) \
     INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) \
     SELECT digest, key_id, 'test', now() FROM batch";

/// What the triggers would have checked, row by row (K2 and the foreign keys), and the counts. Of few keys only: it
/// checks these statements, which are the same for many.
const CHECK_SQL: &str = "DO $$ BEGIN \
     IF EXISTS (SELECT FROM api_keys k WHERE account_id <> 'system' \
       AND (SELECT count(*) FROM api_key_teams t JOIN teams USING (account_id, team_id) \
       WHERE t.key_id = k.key_id AND t.account_id = k.account_id) <> 2) \
     OR EXISTS (SELECT FROM api_key_secrets s WHERE NOT EXISTS (SELECT FROM api_keys k WHERE k.key_id = s.key_id)) \
     OR EXISTS (SELECT FROM api_keys k LEFT JOIN accounts a USING (account_id) WHERE account_id <> 'system' \
       GROUP BY account_id HAVING count(*) <> max(a.api_key_count)) \
     OR EXISTS (SELECT FROM api_key_secrets s LEFT JOIN peppers p USING (pepper_id) WHERE p.in_use IS NOT TRUE) \
     THEN RAISE 'the keys are not as the schema wants them'; END IF; END $$";

// === impl Keys ===

impl Keys {
    /// Writes them, on two connections. The superuser's, because triggers are put off: for a million keys they would
    /// take most of the time.
    pub async fn load(self, superuser_url: &str) {
        let accounts = ACCOUNTS_SQL
            .replace("{PER_ACCOUNT}", &(self.count / self.accounts).to_string())
            .replace("{ACCOUNTS}", &self.accounts.to_string())
            .replace("{TEAMS}", &TEAMS.to_string());
        let mut connection = connect(superuser_url).await;
        connection.batch_execute(&accounts).await.unwrap();
        let halves = [(0, self.count / 2), (self.count / 2, self.count)];
        let [first, second] = halves.map(|(from, to)| {
            let url = superuser_url.to_owned();
            tokio::spawn(async move { self.load_part(&url, from, to).await })
        });
        first.await.unwrap();
        second.await.unwrap();
        if self.count <= CHECKED_MAX {
            connection.batch_execute(CHECK_SQL).await.unwrap();
        }
        connection.batch_execute("VACUUM (ANALYZE)").await.unwrap();
        connection.batch_execute("CHECKPOINT").await.unwrap();
    }

    async fn load_part(self, superuser_url: &str, from: u64, to: u64) {
        let mut connection = connect(superuser_url).await;
        connection.batch_execute("SET session_replication_role = replica").await.unwrap();
        let pepper = the_pepper();
        let mut next = from;
        while next < to {
            let numbers = next..to.min(next + BATCH);
            next = numbers.end;
            let tokens: Vec<_> = numbers.clone().map(token).collect();
            let digests: Vec<_> = tokens.iter().map(|token| token.parsed().hash(&pepper).as_bytes().to_vec()).collect();
            let hints: Vec<_> = tokens.iter().map(PlainToken::hint).collect();
            sql_query(KEYS_SQL)
                .bind::<BigInt, _>(TEAMS as i64)
                .bind::<BigInt, _>(self.accounts as i64)
                .bind::<Array<BigInt>, _>(numbers.map(|number| number as i64).collect::<Vec<_>>())
                .bind::<Array<Bytea>, _>(digests)
                .bind::<Array<Text>, _>(hints)
                .bind::<Array<Text>, _>(&ACCOUNT_PERMISSIONS[..])
                .bind::<Array<Text>, _>(&TEAM_PERMISSIONS[..])
                .execute(&mut connection)
                .await
                .unwrap();
        }
    }

    pub fn account(self, number: u64) -> String {
        format!("a{}", number % self.accounts)
    }

    /// Every number once for `call` below `count`, in an order that no page of the database shares.
    pub fn scattered(self, call: u64) -> u64 {
        // A prime that divides neither 1,000 nor 1,000,000.
        call * 611_953 % self.count
    }
}

async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.unwrap()
}

pub fn key_id(number: u64) -> String {
    KeyId::from_uuid(Uuid::from_u128(KEY_ID_BASE | u128::from(number))).to_string()
}

/// The token of a number; beyond the count of keys one that no server minted.
pub fn token(number: u64) -> PlainToken {
    let secret = Zeroizing::new(*blake3::hash(&number.to_le_bytes()).as_bytes());
    PlainToken::mint(&Prefix::parse("token_prefix", "lk").unwrap(), &secret)
}

fn the_pepper() -> Pepper {
    let digits = pepper();
    let bytes = std::array::from_fn(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap());
    Pepper::new("test".into(), &Zeroizing::new(bytes))
}

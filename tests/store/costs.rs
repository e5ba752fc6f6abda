//! What each read costs where one account is huge beside many small ones: rows that PostgreSQL itself counted.
//!
//! A plan is an estimate; this is what was read. Every statement that the read methods of the ports run is measured,
//! whoever puts its text together, on a store that was analysed and on one that never was.

use std::{collections::BTreeSet, time::Duration};

use diesel::{QueryableByName, sql_query, sql_types::BigInt};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use futures_util::future::BoxFuture;
use latchkey::{
    app::ports::{ApiKeyFilter, EventFilter, Page},
    domain::{api_key::ApiKeyState, authority::Managed, event::EventKind, id::TeamId, time::Timestamp},
    store::PostgresStore,
    verify::primary::Primary,
};

use crate::{
    database::{Database, connect, fresh_database, store},
    fixtures::*,
};

/// Rows that a page of a list may look at, here.
const ROWS_MAX: u32 = 1_000;
/// What one call may read: three looks (a page, a wider one, where it ended), and what hangs on the rows of a page.
const COST_MAX: i64 = 6 * ROWS_MAX as i64;
/// What a call reads that asks for one thing.
const ONE_MAX: i64 = 1_500;
const RUNS: i64 = 7;
const PAGE: u32 = 51;

/// `a1` has 60,000 keys, most of them deleted, 20,000 users, 1,000 teams, a key with 5,000 ended tokens and one with
/// 10,000 events; `b…` have ten keys each; `d…` are deleted.
const ROWS: &str = "SET session_replication_role = replica; \
    INSERT INTO accounts (account_id, display_name, state, api_key_count, create_time, revision_epoch, revision_number) \
    SELECT 'a1', 'A', 'active', 20000, now(), 1, 0 \
    UNION ALL SELECT 'b' || n, 'B', 'active', 10, now(), 1, 0 FROM generate_series(1, 2000) n \
    UNION ALL SELECT 'd' || n, 'D', 'deleted', 0, now(), 1, 0 FROM generate_series(1, 20000) n; \
    INSERT INTO teams (account_id, team_id, display_name, revision_epoch, revision_number) \
    SELECT 'a1', 't' || t, 'T', 1, 0 FROM generate_series(1, 1000) t \
    UNION ALL SELECT 'b' || n, 't1', 'T', 1, 0 FROM generate_series(1, 2000) n; \
    INSERT INTO roles (account_id, role_id, display_name, kind, permissions, all_permissions, revision_epoch, \
     revision_number) SELECT a, 'owner', 'O', 'base', '{}'::text[], true, 1, 0 \
     FROM (SELECT 'a1' UNION ALL SELECT 'b' || n FROM generate_series(1, 2000) n) x (a) \
    UNION ALL SELECT 'a1', 'manager', 'M', 'team', '{x.z}', false, 1, 0 \
    UNION ALL SELECT 'a1', 'r' || n, 'R', 'team', '{x.q}', false, 1, 0 FROM generate_series(1, 3000) n; \
    INSERT INTO users (account_id, user_id, display_name, state, base_role_id, revision_epoch, revision_number) \
    SELECT 'a1', 'u' || u, 'U', 'active', 'owner', 1, 0 FROM generate_series(1, 20000) u \
    UNION ALL SELECT 'b' || n, 'u1', 'U', 'active', 'owner', 1, 0 FROM generate_series(1, 2000) n; \
    INSERT INTO user_roles (account_id, user_id, role_id, role_kind, team_id) \
    SELECT 'a1', 'u' || u, 'manager', 'team', 't' || (u * 7 + t) % 1000 + 1 \
    FROM generate_series(1, 20000) u, generate_series(0, 4) t; \
    INSERT INTO api_keys (key_id, account_id, name, comment, metadata, account_permissions, team_permissions, state, \
     token_hint, create_time, update_time, delete_time, rotate_time, revision_epoch, revision_number) \
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, \
     CASE WHEN n <= 60000 THEN 'a1' ELSE 'b' || n % 2000 + 1 END, 'k', '', '{}', '{x.y}', '{x.z}', \
     CASE WHEN n <= 60000 AND n % 3 > 0 AND n > 3 THEN 'deleted' ELSE 'active' END, 'lk_', now(), now(), \
     CASE WHEN n <= 60000 AND n % 3 > 0 AND n > 3 THEN now() END, now(), 1, 0 FROM generate_series(1, 80000) n; \
    INSERT INTO api_key_teams (account_id, key_id, team_id) \
    SELECT account_id, key_id, 't1' FROM api_keys WHERE account_id <> 'a1' OR substr(key_id::text, 36) < '8' \
    UNION SELECT account_id, key_id, 't' || (row_number() OVER ()) % 1000 + 1 FROM api_keys WHERE account_id = 'a1'; \
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) \
    SELECT sha256(key_id::text::bytea), key_id, 'p1', now() FROM api_keys \
    WHERE key_id <> '00000000-0000-0000-0000-000000000001'; \
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time, end_time) \
    SELECT sha256(n::text::bytea), '00000000-0000-0000-0000-000000000001', 'p1', now() - n * interval '1 minute', now() \
    FROM generate_series(1, 5000) n; \
    INSERT INTO api_key_secrets (digest, key_id, pepper_id, create_time) \
    VALUES ({DIGEST}, '00000000-0000-0000-0000-000000000001', 'p1', now()); \
    INSERT INTO token_usage (digest, key_id, last_used_time) \
    SELECT digest, key_id, now() FROM api_key_secrets WHERE end_time IS NULL; \
    INSERT INTO events (number, epoch, event_id, time, kind, account_id, target_type, target_id, affected_key_ids, \
     format_version, payload, hash) \
    SELECT n, 1, gen_random_uuid(), now(), 'api_key.created', \
     CASE WHEN n % 6 = 0 OR n % 10 = 1 THEN 'a1' ELSE 'b' || n % 2000 + 1 END, 'api_key', \
     CASE WHEN n % 6 = 0 THEN '{KEY}' ELSE 'key_' || n END, \
     CASE n % 10 WHEN 1 THEN '{00000000-0000-0000-0000-000000000001}'::uuid[] ELSE '{}' END, 1, '\\x7b7d', \
     decode(repeat('00', 32), 'hex') FROM generate_series(1, 60000) n; \
    INSERT INTO event_affected_keys (key_id, number) SELECT affected_key_ids[1], number FROM events \
    WHERE affected_key_ids <> '{}'; \
    UPDATE log_head SET number = 60000; \
    INSERT INTO permissions (name, bit, description, team_scopable, implies, retired) \
    SELECT 'p' || n, n, '', true, '{}', false FROM generate_series(0, 255) n; \
    SET session_replication_role = origin";

const BIG: [&str; 11] = [
    "accounts",
    "teams",
    "roles",
    "users",
    "user_roles",
    "api_keys",
    "api_key_teams",
    "api_key_secrets",
    "token_usage",
    "events",
    "event_affected_keys",
];

/// Rows that sequential scans and indexes gave so far.
const READ_SQL: &str = "SELECT ((SELECT COALESCE(sum(seq_tup_read), 0) FROM pg_stat_user_tables WHERE relname = ANY($1)) \
    + (SELECT COALESCE(sum(idx_tup_read), 0) FROM pg_stat_user_indexes WHERE relname = ANY($1)))::bigint AS count";

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

/// A call of a method, in one way of many, and what it may read.
struct Case {
    method: &'static str,
    what: String,
    most: i64,
    call: Box<dyn Fn(PostgresStore) -> BoxFuture<'static, ()> + Send>,
}

fn case<F>(
    method: &'static str,
    most: i64,
    what: impl Into<String>,
    call: impl Fn(PostgresStore) -> F + Send + 'static,
) -> Case
where
    F: Future<Output = ()> + Send + 'static,
{
    Case { method, what: what.into(), most, call: Box::new(move |store| Box::pin(call(store))) }
}

/// One call of a method of the reader.
macro_rules! reads {
    ($($method:ident($($argument:expr),*) <= $most:expr;)*) => {
        vec![$(case(stringify!($method), $most, stringify!($($argument),*), |store| async move {
            let mut reader = snapshot(&store).await;
            reader.$method($($argument),*).await.expect(stringify!($method));
        })),*]
    };
}

fn first<Cursor>() -> Page<Cursor> {
    Page { limit: PAGE, after: None }
}

/// Calls that ask for one thing, or for a page without filters.
fn plain_reads() -> Vec<Case> {
    reads! {
        head() <= ONE_MAX;
        head_hash() <= ONE_MAX;
        anchor() <= ONE_MAX;
        now() <= ONE_MAX;
        catalogue() <= ONE_MAX;
        default_roles() <= ONE_MAX;
        caller(&digest(1, 1)) <= ONE_MAX;
        token(&digest(1, 1)) <= ONE_MAX;
        user_principal(&account_id("a1"), &user_id("u77")) <= ONE_MAX;
        account(&account_id("a1")) <= ONE_MAX;
        accounts(&first()) <= ONE_MAX;
        accounts(&Page { limit: PAGE, after: Some(account_id("b5")) }) <= ONE_MAX;
        api_key(&account_id("a1"), key_id(1)) <= COST_MAX;
        api_keys_on_team(&account_id("a1"), &team_id("t1"), 100) <= COST_MAX;
        tokens_of_api_key(key_id(1), 100) <= ONE_MAX;
        purging_accounts(10) <= ONE_MAX;
        api_keys_due(Timestamp::from_micros(i64::MAX / 4), 10) <= ONE_MAX;
        team(&account_id("a1"), &team_id("t1")) <= ONE_MAX;
        teams(&account_id("a1"), &first()) <= ONE_MAX;
        missing_teams(&account_id("a1"), &[team_id("t1"), team_id("x")].into()) <= ONE_MAX;
        role(&account_id("a1"), &role_id("owner")) <= ONE_MAX;
        roles(&account_id("a1"), &first()) <= ONE_MAX;
        role_in_use(&account_id("a1"), &role_id("owner")) <= ONE_MAX;
        role_in_use(&account_id("a1"), &role_id("r5")) <= ONE_MAX;
        user(&account_id("a1"), &user_id("u77")) <= ONE_MAX;
        users(&account_id("a1"), &first()) <= ONE_MAX;
        users(&account_id("a1"), &Page { limit: PAGE, after: Some(user_id("u5")) }) <= ONE_MAX;
    }
}

fn key_lists() -> Vec<Case> {
    let many = |n: u32| Managed::Teams((1..=n).map(|t| team_id(&format!("t{t}"))).collect::<BTreeSet<TeamId>>());
    let few: Managed = Managed::Teams([team_id("t1")].into());
    let mut cases = Vec::new();
    for visible in [Managed::Account, few, many(5), many(200), many(1_000)] {
        for team in [None, Some(team_id("t1"))] {
            for (permission, states) in [(None, None), (Some("no.such"), None), (None, Some(ApiKeyState::Disabled))] {
                for show_deleted in [false, true] {
                    for after in [None, Some(key_id(30_000))] {
                        let filter = ApiKeyFilter {
                            team_id: team.clone(),
                            permission: permission.map(str::to_owned),
                            states: states.into_iter().collect(),
                            show_deleted,
                        };
                        // With a thousand teams, each is looked at sixteen rows deep; and a page may be had twice.
                        let teams = if let Managed::Teams(teams) = &visible { teams.len() as i64 } else { 0 };
                        let most = COST_MAX + 3 * 16 * teams;
                        let what = format!("{teams} teams, {filter:?}, after {after:?}");
                        let (visible, page) = (visible.clone(), Page { limit: PAGE, after });
                        cases.push(case("api_keys", most, what, move |store| {
                            let (visible, filter, page) = (visible.clone(), filter.clone(), page.clone());
                            async move {
                                let mut reader = snapshot(&store).await;
                                let a1 = account_id("a1");
                                reader.api_keys(&a1, &visible, &filter, &page, ROWS_MAX).await.expect("a page");
                            }
                        }));
                    }
                }
            }
        }
    }
    cases
}

fn event_lists() -> Vec<Case> {
    let mut cases = Vec::new();
    for account in [None, Some("a1"), Some("b7")] {
        for key in [None, Some(key_id(1)), Some(key_id(99_999))] {
            for kinds in [&[][..], &[EventKind::TeamDeleted]] {
                for after in [None, Some(30_000)] {
                    let filter = EventFilter {
                        account_id: account.map(account_id),
                        kinds: kinds.iter().copied().collect(),
                        key_id: key,
                    };
                    let what = format!("{filter:?}, after {after:?}");
                    // Of an account that is a good part of the log, the planner walks the log itself.
                    let most = if account == Some("a1") { COST_MAX + 2 * i64::from(ROWS_MAX) } else { COST_MAX };
                    cases.push(case("events", most, what, move |store| {
                        let (filter, page) = (filter.clone(), Page { limit: PAGE, after });
                        async move {
                            snapshot(&store).await.events(&filter, &page, ROWS_MAX).await.expect("a page");
                        }
                    }));
                }
            }
        }
    }
    cases
}

/// What a verification and the follower read.
fn primary_reads() -> Vec<Case> {
    vec![
        case("fill", ONE_MAX, "known, unknown", |store| async move {
            store.fill(&[digest(1, 1), digest(2, 2)], &sent()).await.expect("filled");
        }),
        case("head", ONE_MAX, "of the primary", |store| async move {
            Primary::head(&store, &sent()).await.expect("a head");
        }),
        case("events_after", ONE_MAX, "a page", |store| async move {
            store.events_after(30_000, 100).await.expect("events");
        }),
        case("refresh", ONE_MAX, "", |store| async move {
            store.refresh().await.expect("a catalogue");
        }),
        case("missing_peppers", ONE_MAX, "", |store| async move {
            Primary::missing_peppers(&store).await.expect("known");
        }),
    ]
}

async fn skewed(analysed: bool) -> Database {
    let db = fresh_database().await;
    let hex: String = digest(1, 1).as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let rows = ROWS.replace("{DIGEST}", &format!("'\\x{hex}'")).replace("{KEY}", &key_id(1).to_string());
    let still: String =
        BIG.iter().map(|table| format!("ALTER TABLE {table} SET (autovacuum_enabled = false);")).collect();
    let analyse = if analysed { "ANALYZE" } else { "" };
    connect(&db.url).await.batch_execute(&format!("{still} {rows}; {analyse}")).await.expect("rows");
    db.store.close();
    db
}

/// Rows read so far, once nobody else is connected: backends say what they did when they end.
async fn read(db: &Database) -> i64 {
    let mut conn = connect(&db.url).await;
    loop {
        let others = "SELECT count(*) AS count FROM pg_stat_activity \
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let others: Count = sql_query(others).get_result(&mut conn).await.expect("a count");
        if others.count == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Before PostgreSQL 15, a process of its own gathers it.
    let version = "SELECT current_setting('server_version_num')::bigint AS count";
    let version: Count = sql_query(version).get_result(&mut conn).await.expect("a version");
    tokio::time::sleep(Duration::from_millis(if version.count < 150_000 { 600 } else { 20 })).await;
    let tables: Vec<&str> = BIG.to_vec();
    sql_query(READ_SQL)
        .bind::<diesel::sql_types::Array<diesel::sql_types::Text>, _>(tables)
        .get_result::<Count>(&mut conn)
        .await
        .expect("a count")
        .count
}

async fn check(db: &Database, cases: Vec<Case>) {
    let mut dear = Vec::new();
    let mut before = read(db).await;
    for case in cases {
        // Repeated, so that generic plans are chosen too.
        let store = store(&db.url, Duration::from_secs(30));
        for _ in 0..RUNS {
            (case.call)(store.clone()).await;
        }
        store.close();
        drop(store);
        let after = read(db).await;
        let cost = (after - before) / RUNS;
        if cost > case.most {
            dear.push(format!("{} rows (at most {}): {}({})", cost, case.most, case.method, case.what));
        }
        before = after;
    }
    assert!(dear.is_empty(), "{} calls read too much:\n{}", dear.len(), dear.join("\n"));
}

fn all() -> Vec<Case> {
    plain_reads().into_iter().chain(key_lists()).chain(event_lists()).chain(primary_reads()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_looks_at_more_rows_than_its_share_in_a_huge_account() {
    check(&skewed(true).await, all()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_before_the_planner_has_heard_of_any_row() {
    check(&skewed(false).await, all()).await;
}

/// A method that is added to a port has to be measured too.
#[test]
fn every_read_of_the_ports_is_measured() {
    let measured: BTreeSet<_> = all().iter().map(|case| case.method).collect();
    let methods = |source: &'static str, port: &str| -> BTreeSet<&'static str> {
        let body = source.split(&format!("pub trait {port}")).nth(1).expect(port);
        let body = body.split("\n}\n").next().expect("an end");
        body.lines().filter_map(|line| line.trim().strip_prefix("async fn ")?.split(['(', '<']).next()).collect()
    };
    let reader = methods(include_str!("../../src/app/ports.rs"), "Reader");
    let primary = methods(include_str!("../../src/verify/primary.rs"), "Primary");
    assert!(reader.len() > 20 && primary.len() > 5, "the ports are read: {reader:?} {primary:?}");
    // These write one row of `replicas`; and only a change of the catalogue asks what is held on teams: `plans_writes`.
    let others = ["register", "acknowledge", "deregister", "held_on_teams"];
    let missing: Vec<_> =
        reader.union(&primary).filter(|method| !measured.contains(*method) && !others.contains(*method)).collect();
    assert!(missing.is_empty(), "not measured: {missing:?}");
}

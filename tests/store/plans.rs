//! On big tables, no query of the miss path scans one.

use diesel::{
    QueryableByName, sql_query,
    sql_types::{BigInt, Text},
};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use latchkey::{
    app::ports::{ApiKeyFilter, EventFilter, Page},
    store::{
        log::{event_list, events, stamps},
        objects::{
            api_keys, catalogue,
            key_list::{self, Rows},
        },
        replica::{fill, replicas},
    },
};

use crate::{
    database::{Database, connect, fresh_database},
    fixtures::*,
};

const ROWS: &str = "
    INSERT INTO accounts SELECT 'a' || n, 'A', 'active', 0, now(), 1, 0 FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO teams SELECT 'a' || n, 't' || t, 'T', 1, 0 FROM generate_series(1, {ACCOUNTS}) n, generate_series(1, 5) t;
    INSERT INTO roles SELECT 'a' || n, 'owner', 'O', 'base', '{}', true, 1, 0 FROM generate_series(1, {ACCOUNTS}) n;
    INSERT INTO users SELECT 'a' || n, 'u' || u, 'U', 'active', 'owner', 'base', 1, 0
        FROM generate_series(1, {ACCOUNTS}) n, generate_series(1, 5) u;
    BEGIN;
    INSERT INTO api_keys SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, 'a' || (n % {ACCOUNTS} + 1),
        'k', '', '{}', '{x.y}', '{x.z}', NULL, 'active', 'lk_', NULL, NULL, NULL, now(), now(), NULL, now(), 1, 0
        FROM generate_series(1, 20000) n;
    INSERT INTO api_key_teams SELECT account_id, key_id, 't1' FROM api_keys;
    COMMIT;
    INSERT INTO api_key_secrets SELECT decode(replace(key_id::text, '-', '') || repeat('00', 16), 'hex'), key_id,
        'p1', now() FROM api_keys;
    INSERT INTO token_usage SELECT digest, key_id, now() FROM api_key_secrets;
    INSERT INTO events SELECT n, 1, gen_random_uuid(), now(), 'api_key.created', 'a' || (n % {ACCOUNTS} + 1), 'api_key',
        'key_' || n, '{}', 1, '\\x7b7d', decode(repeat('00', 32), 'hex') FROM generate_series(1, 20000) n;
    INSERT INTO event_affected_keys SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n % 2000), 12, '0'))::uuid, n
        FROM generate_series(1, 20000) n;
    INSERT INTO permissions SELECT 'p' || n, n, '', true, '{}', false FROM generate_series(0, 255) n;
    ANALYZE";

/// One row each, at most 256 (P1), one a pepper, or one a process.
const MAY_BE_SCANNED: [&str; 5] = ["log_head", "catalogue_head", "permissions", "peppers", "replicas"];

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

#[derive(QueryableByName)]
struct Count {
    #[diesel(sql_type = BigInt)]
    count: i64,
}

async fn big_database() -> Database {
    big_database_of(2_000).await
}

/// With 20,000 keys in so many accounts.
async fn big_database_of(accounts: u32) -> Database {
    let db = fresh_database().await;
    let rows = ROWS.replace("{ACCOUNTS}", &accounts.to_string());
    connect(&db.url).await.batch_execute(&rows).await.unwrap();
    db
}

async fn explain(conn: &mut AsyncPgConnection, types: &str, values: &str, sql: &str) -> Vec<String> {
    let (types, values) =
        if types.is_empty() { (String::new(), String::new()) } else { (format!("({types})"), format!("({values})")) };
    conn.batch_execute(&format!("DEALLOCATE ALL; PREPARE q{types} AS {sql}")).await.unwrap();
    let lines: Vec<Line> = sql_query(format!("EXPLAIN EXECUTE q{values}")).load(conn).await.unwrap();
    lines.into_iter().map(|line| line.line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_miss_path_is_unique_index_look_ups_in_every_plan_mode() {
    let db = big_database().await;
    let mut conn = connect(&db.url).await;
    let (one_digest, two_digests) = (fill::sql(1), fill::sql(2));
    for mode in ["force_custom_plan", "force_generic_plan"] {
        conn.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
        for (types, values, sql) in [
            ("text[], bytea", "'{p1}', '\\x01'", &one_digest[..]),
            ("text[], bytea, bytea", "'{p1}', '\\x01', '\\x02'", &two_digests),
            ("", "", events::HEAD_SQL),
            ("bigint, bigint", "19990, 100", events::EVENTS_AFTER_SQL),
            ("", "", catalogue::HEAD_SQL),
            ("", "", catalogue::LOAD_SQL),
            ("uuid, bigint, bigint, bytea", "NULL, 1, 5, '\\x00'", replicas::ACKNOWLEDGE_SQL),
            ("uuid, bigint, bigint, bytea", "NULL, 1, 5, '\\x00'", replicas::RENEW_SQL),
            ("uuid, text", "'00000000-0000-0000-0000-000000000001', 'a2'", &api_keys::get_sql()),
        ] {
            let plan = explain(&mut conn, types, values, sql).await;
            for line in &plan {
                let scanned = line.split_once("Seq Scan on ").map(|(_, table)| table.split(' ').next().unwrap());
                assert!(scanned.is_none_or(|table| MAY_BE_SCANNED.contains(&table)), "{mode}: {plan:#?}");
                if [&one_digest, &two_digests].contains(&&sql.to_owned()) {
                    let index = line.split_once(" using ").or_else(|| line.split_once("Index Scan on "));
                    let index = index.map(|(_, index)| index.split(' ').next().unwrap());
                    assert!(index.is_none_or(|index| index.ends_with("_pkey")), "{mode}: {plan:#?}");
                }
            }
            assert!(!plan.iter().any(|line| line.contains("LockRows")), "no locking clause: {plan:#?}");
        }
    }
}

/// A plan takes longer than the run that it is for. Accounts are large, as where the first page is little of them.
#[tokio::test(flavor = "multi_thread")]
async fn what_every_call_runs_is_not_planned_each_time() {
    let db = big_database_of(4).await;
    let mut conn = connect(&db.url).await;
    let (list, page) = (ApiKeyFilter::default(), |limit| Page { limit, after: None });
    for (types, values, sql) in [
        ("text[], bytea", "'{p1}', '\\x01'", fill::sql(1)),
        ("text[], bytea, bytea", "'{p1}', '\\x01', '\\x02'", fill::sql(2)),
        ("text, bigint", "'a2', 51", key_list::list_sql(Rows::Account, &list, &page(51), 10_000).page),
        ("text, bigint", "'a2', 101", key_list::list_sql(Rows::Account, &list, &page(101), 10_000).page),
        ("text, bigint", "'a2', 1001", key_list::list_sql(Rows::Account, &list, &page(1_001), 10_000).page),
        ("uuid, text", "'00000000-0000-0000-0000-000000000001', 'a2'", api_keys::get_sql()),
        (
            "bigint, bigint, uuid, text",
            "1, 5, '00000000-0000-0000-0000-00000000ffff', 'a2'",
            stamps::STAMP_KEY_SQL.to_owned(),
        ),
    ] {
        conn.batch_execute(&format!("DEALLOCATE ALL; PREPARE q({types}) AS {sql}")).await.unwrap();
        for _ in 0..8 {
            conn.batch_execute(&format!("EXECUTE q({values})")).await.unwrap();
        }
        let planned: Count = sql_query("SELECT custom_plans AS count FROM pg_prepared_statements WHERE name = 'q'")
            .get_result(&mut conn)
            .await
            .unwrap();
        // PostgreSQL plans five for their values before it compares.
        assert_eq!(planned.count, 5, "{sql}");
    }
}

/// The planner hears of them at the next ANALYZE: a tenth of a million tokens later. Until then an index of ended ones
/// looks empty, and each row of a page would walk it.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_is_looked_up_among_all_tokens_that_ended() {
    let db = big_database().await;
    let mut conn = connect(&db.url).await;
    let list =
        key_list::list_sql(Rows::Account, &ApiKeyFilter::default(), &Page { limit: 51, after: None }, 10_000).page;
    for mode in ["force_custom_plan", "force_generic_plan"] {
        conn.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
        for (types, values, sql) in [
            ("uuid, text", "'00000000-0000-0000-0000-000000000001', 'a2'", &api_keys::get_sql()),
            ("text, bigint", "'a2', 51", &list),
        ] {
            let plan = explain(&mut conn, types, values, sql).await;
            assert!(!plan.iter().any(|line| line.contains("api_key_secrets_ended")), "{mode}: {plan:#?}");
        }
    }
}

/// PostgreSQL never analyses a table of one row: by default the planner takes it for two thousand, and the
/// product of two such tables for enough work to compile (a second, seen).
#[tokio::test(flavor = "multi_thread")]
async fn on_a_young_database_the_planner_expects_one_head() {
    let db = fresh_database().await;
    let mut conn = connect(&db.url).await;
    let plan = explain(&mut conn, "text[], bytea", "'{p1}', '\\x01'", &fill::sql(1)).await;
    let rows = plan[0].split("rows=").nth(1).unwrap().split(' ').next().unwrap();
    assert!(rows.parse::<u32>().unwrap() <= 2, "{plan:#?}");
}

/// Whatever is asked of a list: its rows come from an index in the list's order, so that it can stop.
#[tokio::test(flavor = "multi_thread")]
async fn every_list_walks_an_index_in_its_own_order() {
    let db = big_database().await;
    let mut conn = connect(&db.url).await;
    // What a reader's snapshot sets, for the session.
    conn.batch_execute(&snapshot_settings()).await.unwrap();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        conn.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
        for (types, values, sql) in every_list() {
            let plan = explain(&mut conn, &types, &values, &sql).await;
            for line in &plan {
                assert!(!line.contains("Seq Scan") && !line.contains("Bitmap"), "{mode}: {sql}\n{plan:#?}");
            }
        }
    }
}

fn snapshot_settings() -> String {
    let begin = latchkey::store::SNAPSHOT_BEGIN_SQL;
    begin.split_once(';').expect("settings after BEGIN").1.replace("SET LOCAL", "SET")
}

/// The types of its values, values, and the text of every statement that a list of keys or events may run.
fn every_list() -> Vec<(String, String, String)> {
    let mut lists = Vec::new();
    let key = "'00000000-0000-0000-0000-00000000ffff'";
    for (rows, teams) in [
        (Rows::Account, None),
        (Rows::Team, Some(("text", "'t1'"))),
        (Rows::Teams { share: 64 }, Some(("text[]", "'{t1,t2}'"))),
    ] {
        for n in 0..16 {
            let is = |bit: u32| n >> bit & 1 == 1;
            let filter = ApiKeyFilter {
                permission: is(0).then(|| "x.y".to_owned()),
                states: is(1).then_some(latchkey::domain::api_key::ApiKeyState::Disabled).into_iter().collect(),
                show_deleted: is(2),
                ..Default::default()
            };
            let page = Page { limit: 51, after: is(3).then(|| key_id(0xffff)) };
            let of_rows = [Some(("text", "'a2'")), teams, is(3).then_some(("uuid", key))];
            let passes = [is(0).then_some(("text", "'x.y'")), is(1).then_some(("text[]", "'{disabled}'"))];
            let list = key_list::list_sql(rows, &filter, &page, 10_000);
            lists.extend(list.reached.map(|sql| bound(of_rows.into_iter(), sql)));
            let limit = [Some(("bigint", "51"))];
            lists.push(bound(of_rows.into_iter().chain(passes).chain(limit), list.page));
        }
    }
    for n in 0..8 {
        let is = |bit: u32| n >> bit & 1 == 1;
        let filter = EventFilter {
            account_id: is(0).then(|| account_id("a2")),
            kinds: is(1).then_some(latchkey::domain::log::event::EventKind::TeamDeleted).into_iter().collect(),
            key_id: is(2).then(|| key_id(1)),
        };
        let of_rows = [
            Some(("bigint", "100")),
            is(0).then_some(("text", "'a2'")),
            is(2).then_some(("text", "'key_1'")),
            is(2).then_some(("uuid", key)),
        ];
        let list = event_list::list_sql(&filter, 51, 10_000);
        lists.extend(list.reached.map(|sql| bound(of_rows.into_iter(), sql)));
        let kinds = is(1).then_some(("text[]", "'{team.deleted}'"));
        lists.push(bound(of_rows.into_iter().chain([kinds, Some(("bigint", "51"))]), list.page));
    }
    lists
}

fn bound(values: impl Iterator<Item = Option<(&'static str, &'static str)>>, sql: String) -> (String, String, String) {
    let (types, values): (Vec<_>, Vec<_>) = values.flatten().unzip();
    (types.join(", "), values.join(", "), sql)
}

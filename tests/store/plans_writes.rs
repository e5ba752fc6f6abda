//! On big tables, nothing that deletes, purges, erases or forgets scans one: each looks at what it removes.

use diesel::{QueryableByName, sql_query, sql_types::Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use latchkey::store::{api_keys, catalogue, peppers, purge, secrets, users};

use crate::database::{connect, fresh_database};

/// One large account among small ones. A tenth of the keys is deleted, and each has a token that ended.
const ROWS: &str = "
    INSERT INTO accounts SELECT 'a' || n, 'A', 'active', 0, now(), 1, 0 FROM generate_series(1, 2000) n;
    INSERT INTO teams SELECT 'a' || n, 't' || t, 'T', 1, 0 FROM generate_series(1, 2000) n, generate_series(1, 3) t;
    INSERT INTO roles SELECT 'a' || n, r, 'R', CASE r WHEN 'owner' THEN 'base' ELSE 'team' END, '{}', false, 1, 0
        FROM generate_series(1, 2000) n, unnest(ARRAY['owner', 'lead']) r;
    CREATE TEMP TABLE place AS SELECT n, CASE WHEN n <= 10000 THEN 'a1' ELSE 'a' || (n % 2000 + 1) END AS account_id,
        ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid AS key_id FROM generate_series(1, 20000) n;
    INSERT INTO users SELECT account_id, 'u' || n, 'U', 'active', 'owner', 'base', 1, 0 FROM place;
    INSERT INTO user_roles SELECT account_id, 'u' || n, 'lead', 'team', 't' || t FROM place, generate_series(1, 3) t;
    BEGIN;
    INSERT INTO api_keys SELECT key_id, account_id, 'k', '', '{}', '{x.y}', '{x.z}', NULL,
        CASE WHEN n % 10 = 0 THEN 'deleted' ELSE 'active' END, 'lk_', NULL, NULL, NULL, now(), now(),
        CASE WHEN n % 10 = 0 THEN now() - n * interval '1 hour' END, now(), 1, 0 FROM place;
    INSERT INTO api_key_teams SELECT account_id, key_id, 't' || t FROM api_keys, generate_series(1, 2) t;
    COMMIT;
    INSERT INTO api_key_secrets SELECT sha256((key_id::text || e)::bytea), key_id, 'p1', now() - e * interval '1 day',
        CASE WHEN e > 0 THEN now() - e * interval '1 day' END FROM api_keys, generate_series(0, 1) e;
    INSERT INTO token_usage SELECT digest, key_id, now() FROM api_key_secrets;
    ANALYZE";

/// One row a pepper.
const MAY_BE_SCANNED: [&str; 1] = ["peppers"];

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text, column_name = "QUERY PLAN")]
    line: String,
}

async fn explain(conn: &mut AsyncPgConnection, types: &str, values: &str, sql: &str) -> Vec<String> {
    conn.batch_execute(&format!("DEALLOCATE ALL; PREPARE q({types}) AS {sql}")).await.expect(sql);
    let lines: Vec<Line> = sql_query(format!("EXPLAIN EXECUTE q({values})")).load(conn).await.expect(sql);
    lines.into_iter().map(|line| line.line).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_removed_is_found_by_an_index_in_every_plan_mode() {
    const KEY: &str = "'00000000-0000-0000-0000-000000000001'";
    let db = fresh_database().await;
    let mut conn = connect(&db.url).await;
    conn.batch_execute(ROWS).await.expect("the rows");
    let key_list = format!("'a1', ARRAY[{KEY}]::uuid[]");
    let (of_team, of_account) = (purge::key_teams_sql(true), purge::key_teams_sql(false));
    let (roles_of_team, roles_of_account) = (purge::user_roles_sql(true), purge::user_roles_sql(false));
    let objects = [("users", "user_id"), ("teams", "team_id"), ("roles", "role_id")]
        .map(|(table, id_column)| purge::objects_sql(table, id_column));
    // What runs after it has asked for indexes; and everything else.
    let by_indexes = [
        ("text, bigint", "'a1', 1001", purge::ACCOUNT_SIZE_SQL),
        ("text, bigint, text", "'a1', 1001, 't1'", purge::TEAM_SIZE_SQL),
        ("text, bigint, timestamptz, text", "'a1', 1000, now(), 't1'", &of_team),
        ("text, bigint, timestamptz", "'a1', 1000, now()", &of_account),
        ("text, bigint", "'a1', 1000", purge::KEYS_SQL),
        ("text, bigint, text", "'a1', 1000, 't1'", &roles_of_team),
        ("text, bigint", "'a1', 1000", &roles_of_account),
        ("text, bigint", "'a1', 1000", &objects[0]),
        ("text, bigint", "'a1', 1000", &objects[1]),
        ("text, bigint", "'a1', 1000", &objects[2]),
        ("text", "'rare.name'", catalogue::HELD_ON_TEAMS_SQL),
    ];
    let others = [
        ("bigint", "100", purge::ACCOUNTS_SQL),
        // What was deleted, or ended, long ago.
        ("timestamptz, bigint", "now() - interval '2 years', 200", purge::DUE_SQL),
        ("text, uuid[], timestamptz, bigint", &format!("{key_list}, now(), 2000"), purge::CHOOSE_SQL),
        ("text, uuid[]", &key_list, purge::ERASE_SQL),
        ("timestamptz, bigint", "now() - interval '2 years', 1000", secrets::FORGET_SQL),
        // A rotation.
        ("uuid, bigint", &format!("{KEY}, 10000"), secrets::COUNT_SQL),
        ("uuid, bigint", &format!("{KEY}, 1000"), secrets::FOLD_USAGE_SQL),
        // Quotas, a user, a start.
        ("text, text, bigint", "'a2', 't1', 10", api_keys::COUNT_ON_TEAM_SQL),
        ("text, text", "'a1', 'u1'", users::PRINCIPAL_ROLES_SQL),
        ("text, text[]", "'a1', '{u1,u2}'", users::ROLES_SQL),
        ("text, text[], text[], text[], text[]", "'a1', '{u1}', '{u1}', '{lead}', '{t1}'", users::DELETE_ROLES_SQL),
        ("text[]", "'{p1}'", peppers::CLEAR_SQL),
    ];
    let mut scans = Vec::new();
    for mode in ["force_custom_plan", "force_generic_plan"] {
        conn.batch_execute(&format!("SET plan_cache_mode = {mode}")).await.expect(mode);
        for (first, statements) in [(purge::LOOK_UP_SQL, &by_indexes[..]), ("SELECT", &others[..])] {
            conn.batch_execute(&format!("BEGIN; {first}")).await.expect("begins");
            for (types, values, sql) in statements {
                let plan = explain(&mut conn, types, values, sql).await;
                for line in &plan {
                    let table =
                        line.split_once("Seq Scan on ").map(|(_, table)| table.split(' ').next().expect("a name"));
                    if table.is_some_and(|table| !MAY_BE_SCANNED.contains(&table)) {
                        scans.push(format!("{mode}: {sql}: {plan:#?}"));
                    }
                }
            }
            conn.batch_execute("ROLLBACK").await.expect("rolls back");
        }
    }
    assert!(scans.is_empty(), "{}", scans.join("\n"));
}

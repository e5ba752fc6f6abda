//! V6: the chain verifies, and whatever is changed behind Latchkey's back is found where it is.

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use latchkey::proto::{VerifyEventChainRequest, VerifyEventChainResponse};
use tonic::Status;

use crate::{
    calls::*,
    support::{Server, World, database::postgres, world::*},
};

async fn verify_from(world: &World, start_number: i64) -> Result<VerifyEventChainResponse, Status> {
    let request = VerifyEventChainRequest { account_id: String::new(), start_number };
    Ok(world.auditor.events().verify_event_chain(request).await?.into_inner())
}

async fn connect(url: &str) -> AsyncPgConnection {
    AsyncPgConnection::establish(url).await.expect("a connection")
}

async fn superuser(world: &World) -> AsyncPgConnection {
    connect(&postgres().await.superuser_url(&world.server.database.name)).await
}

/// A world whose server does not look at the log by itself while the test changes it.
async fn quiet_world() -> World {
    let slow = |flags: latchkey::settings::Flags| flags.with("poll_interval_ms", "10000").with("lease_ms", "60000");
    let world = World::on(Server::start_with(slow).await).await;
    mint(&world.user("owner"), &team_key("k", &["billing.manage"], &["red"], &["secrets.use"])).await.expect("a key");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_an_untouched_chain_is_valid_from_anywhere() {
    let world = World::start().await;
    let head = head(&world).await;
    for start in [0, 1, 2, head / 2, head, head + 1] {
        let report = verify_from(&world, start).await.expect("a report");
        assert!(report.valid, "{report:?}");
        assert_eq!(report.verified_events, head + 1 - start.max(1));
        assert_eq!(report.verified_through.expect("a revision").number, head);
        assert_eq!((report.next_start_number, report.first_invalid_number, report.problem.as_str()), (0, 0, ""));
    }
    for start in [-1, head + 2, i64::MAX, i64::MIN] {
        bad_field(verify_from(&world, start).await, "start_number");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_whatever_is_tampered_with_is_reported_at_its_number() {
    let world = quiet_world().await;
    let head = head(&world).await;
    let n = head / 2;
    let mut sql = superuser(&world).await;
    sql.batch_execute("CREATE TABLE kept AS SELECT * FROM events; CREATE TABLE kept_head AS SELECT * FROM log_head")
        .await
        .expect("copies");
    let one = |set: &str| format!("UPDATE events SET {set} WHERE number = {n}");
    for (tamper, at) in [
        (one("payload = set_byte(payload, 20, get_byte(payload, 20) # 1)"), n),
        (one("payload = payload || ' '"), n),
        (one("payload = ''"), n),
        (one("hash = set_byte(hash, 31, get_byte(hash, 31) # 1)"), n),
        (one("kind = 'api_key.deleted'"), n),
        (one("account_id = 'other'"), n),
        (one("account_id = NULL"), n),
        (one("target_id = 'x'"), n),
        (one("target_type = 'catalogue'"), n),
        (one("event_id = gen_random_uuid()"), n),
        (one("time = time + interval '1 microsecond'"), n),
        (one("epoch = 2"), n),
        (one("affected_key_ids = ARRAY[gen_random_uuid()]"), n),
        (format!("DELETE FROM events WHERE number = {n}"), n),
        ("DELETE FROM events WHERE number = 1".to_owned(), 1),
        (format!("DELETE FROM events WHERE number = {head}"), head),
        (format!("DELETE FROM events WHERE number > {n}"), n + 1),
        // Two events that change places, bytes and hashes and all.
        (
            format!(
                "UPDATE events e SET payload = o.payload, hash = o.hash, format_version = o.format_version FROM kept o \
                 WHERE e.number IN ({n}, {n} + 1) AND o.number = 2 * {n} + 1 - e.number"
            ),
            n,
        ),
    ] {
        sql.batch_execute(&tamper).await.unwrap_or_else(|error| panic!("{tamper}: {error}"));
        let report = verify_from(&world, 0).await.expect("a report");
        assert!(!report.valid, "{tamper}");
        assert_eq!(report.first_invalid_number, at, "{tamper}: {report:?}");
        assert_eq!(report.verified_through.expect("a revision").number, at - 1, "{tamper}");
        assert!(!report.problem.is_empty());
        assert_eq!(report.next_start_number, 0);
        sql.batch_execute("DELETE FROM events; INSERT INTO events SELECT * FROM kept").await.expect("restored");
        assert!(verify_from(&world, 0).await.expect("a report").valid, "restored after {tamper}");
    }
    for (tamper, at) in [
        (format!("UPDATE log_head SET number = {}", head - 1), head),
        (format!("UPDATE log_head SET number = {}", head + 1), head + 1),
        ("UPDATE log_head SET hash = decode(repeat('ab', 32), 'hex')".to_owned(), head),
    ] {
        sql.batch_execute(&tamper).await.expect("tampered");
        let report = verify_from(&world, 0).await.expect("a report");
        assert_eq!((report.valid, report.first_invalid_number), (false, at), "{tamper}: {report:?}");
        let restore = "UPDATE log_head h SET number = k.number, hash = k.hash FROM kept_head k";
        sql.batch_execute(restore).await.expect("restored");
    }
    assert!(verify_from(&world, 0).await.expect("a report").valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_the_servers_own_role_cannot_change_the_past() {
    let world = World::start().await;
    let mut sql = connect(&world.server.database.app_url).await;
    sql.batch_execute("SELECT count(*) FROM events").await.expect("it reads");
    for statement in [
        "UPDATE events SET payload = payload",
        "UPDATE events SET hash = hash WHERE number = 1",
        "DELETE FROM events",
        "DELETE FROM events WHERE number = 1",
        "TRUNCATE events",
        "DROP TABLE events",
        "ALTER TABLE events ADD COLUMN x int",
        "CREATE RULE r AS ON INSERT TO events DO INSTEAD NOTHING",
        "CREATE TRIGGER t BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DELETE FROM log_head",
        "TRUNCATE log_head",
        "UPDATE log_anchor SET number = 1",
        "DELETE FROM log_anchor",
        "TRUNCATE log_anchor",
    ] {
        let refused = sql.batch_execute(statement).await.expect_err(statement).to_string();
        assert!(refused.contains("permission denied") || refused.contains("must be owner"), "{statement}: {refused}");
    }
    assert!(verify_from(&world, 0).await.expect("a report").valid);
}

//! T2: what is stored of a token, and under which pepper.

use latchkey::{
    proto::VerificationOutcome as Outcome,
    server,
    settings::{self, Settings},
    telemetry::Metrics,
};
use std::sync::Arc;

use crate::support::{Server, World, calls::*, database::Database, logs, server as testing, sql, world::*};

/// Settings with these peppers, the first minting; a secret is 64 hex digits.
fn settings(database: &Database, peppers: &[(&str, &str)]) -> Settings {
    let list: Vec<_> = peppers.iter().map(|(id, _)| format!("{id}=env:PEPPER_{id}")).collect();
    let environment = peppers.iter().map(|(id, secret)| (format!("PEPPER_{id}"), (*secret).to_owned()));
    let flags = settings::Flags::default()
        .with("listen_address", "127.0.0.1:0")
        .with("database_url", &database.app_url)
        .with("poll_interval_ms", "200")
        .with("peppers", list.join(","));
    settings::load(&flags, environment).expect("good settings")
}

async fn start(database: &Database, peppers: &[(&str, &str)]) -> Result<server::RunningServer, String> {
    let started = server::start(&settings(database, peppers), Arc::new(Metrics::new())).await;
    started.map_err(|error| error.to_string())
}

fn secret(name: &str) -> String {
    let digits = blake3::hash(format!("{name} {}", testing::pepper()).as_bytes()).to_hex().to_string();
    logs::keep_secret(name, &digits);
    digits
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_the_database_holds_digests_and_neither_tokens_nor_peppers() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let rotated = rotate(&owner, ACME, &id, Some(seconds(0))).await.unwrap().token;
    for token in [&minted.token, &rotated] {
        world.verify(token, None).await;
    }
    let rows = sql::dump(&world.server.database).await;
    let (pepper, marker) = (testing::pepper(), &id);
    assert!(rows.iter().any(|row| row.contains("incidents.view")), "the dump shows what is there");
    let event_of_key = hex(marker.as_bytes());
    assert!(rows.iter().any(|row| row.contains(&event_of_key)), "the events' bytes too");
    for token in [&minted.token, &rotated, &world.server.operator.token, &world.verifier.token] {
        let body = &token[token.find('_').unwrap() + 1..];
        for part in [&body[..16], &body[16..32], &body[32..48]] {
            let (text, bytes) = (part, hex(part.as_bytes()));
            assert!(rows.iter().all(|row| !row.contains(text) && !row.contains(&bytes)), "part of a token is stored");
        }
    }
    assert!(rows.iter().all(|row| !row.contains(pepper) && !row.contains(&hex(pepper.as_bytes()))));
    // What is stored is the keyed hash: without the pepper it cannot even be recognised.
    let bytes: Vec<_> = (0..32).map(|i| u8::from_str_radix(&pepper[2 * i..2 * i + 2], 16).unwrap()).collect();
    let keyed = blake3::keyed_hash(&bytes.try_into().unwrap(), rotated.as_bytes());
    assert!(rows.iter().any(|row| row.starts_with("public.api_key_secrets") && row.contains(&keyed.to_hex()[..])));
    let plain = blake3::hash(rotated.as_bytes());
    assert!(rows.iter().all(|row| !row.contains(&plain.to_hex()[..])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_tokens_verify_under_every_live_pepper_and_are_minted_under_the_first() {
    let mut world = World::start().await;
    let old = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token;
    let database = world.server.database.clone();
    let next = secret("next");
    let running = start(&database, &[("next", &next), ("test", testing::pepper())]).await.expect("two peppers");
    let channel = testing::connect(running.address()).await;
    for caller in [&mut world.verifier, &mut world.product] {
        caller.channel = channel.clone();
    }
    // The server without it ends, so that no replica lacks the new one.
    std::mem::replace(&mut world.server.running, running).stop().await;
    let new = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token;
    for _ in 0..2 {
        assert_eq!(world.outcome(&old, "incidents.view", &[]).await, Outcome::Valid);
        assert_eq!(world.outcome(&new, "incidents.view", &[]).await, Outcome::Valid);
    }
    let by_pepper = "SELECT pepper_id || ' ' || count(*) AS line FROM api_key_secrets GROUP BY pepper_id ORDER BY 1";
    let counts = sql::lines(&database, by_pepper).await;
    assert!(counts.contains(&"next 1".to_owned()), "{counts:?}");
    world.server.running.stop().await;
    // Once no live token needs the old one, it may go; until then no server starts without it.
    let problem = start(&database, &[("next", &next)]).await.err().expect("live tokens need `test`");
    assert!(problem.contains("test"), "{problem}");
    sql::run(&database, "UPDATE api_key_secrets SET end_time = now() - interval '1 s' WHERE pepper_id = 'test'").await;
    start(&database, &[("next", &next)]).await.expect("no live token needs `test`").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t2_a_server_without_a_live_pepper_or_with_another_secret_under_its_id_does_not_start() {
    let server = Server::start().await;
    let (database, other) = (server.database.clone(), secret("other"));
    server.running.stop().await;
    let problem = start(&database, &[("fresh", &other)]).await.err().expect("the operator's token needs `test`");
    assert!(problem.contains("test") && !problem.contains(&other), "{problem}");
    let problem = start(&database, &[("test", &other)]).await.err().expect("another secret");
    assert!(problem.contains("`test`") && !problem.contains(&other), "{problem}");
    let problem =
        start(&database, &[("fresh", &secret("fresh")), ("test", &other)]).await.err().expect("another secret");
    assert!(problem.contains("`test`") && !problem.contains(&other), "{problem}");
    // The refused starts bound nothing to the ids they came with.
    let right = [("fresh", &*secret("corrected")), ("test", testing::pepper())];
    start(&database, &right).await.expect("the right ones").stop().await;
}

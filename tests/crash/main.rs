//! kill -9 of the server in the middle of a stream of mutations, fifty times, on a PostgreSQL that keeps what it
//! acknowledged.
//!
//! After each restart: the chain verifies (V6); the log's changes, replayed, are exactly what the API shows, with each
//! object's etag that of its last event (V5); every mutation that was answered is there as it was answered; and what
//! was not answered is there completely or not at all.

#[path = "../support/mod.rs"]
mod support;

mod check;
mod clients;
mod model;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use support::{calls::requests, ground::Ground, logs, random::Random, world::apply_example_catalogue};

use self::{
    check::Checker,
    clients::{ACCOUNT, Client, Known, SIDE_ACCOUNT},
};

const KILLS: u64 = 50;
const CLIENTS: usize = 4;
/// How long the clients run before a kill, at most.
const ROUND_MICROS_MAX: usize = 500_000;
/// As loud as can be: `deploy/test` looks for secrets in them.
const LOGS: &str = "trace";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_answered_survives_kill_9_and_nothing_is_half_done() {
    logs::start();
    let mut random = Random::from_environment();
    let ground = Ground::new("crash", vec![]).await;
    let token = ground.bootstrap();
    let (mut server, mut operator) = ground.serve(&token, LOGS).await;
    apply_example_catalogue(&operator).await;
    for account in [ACCOUNT, SIDE_ACCOUNT] {
        operator.directory().upsert_account(requests::upsert_account(account, account)).await.expect("an account");
    }
    let known = Arc::new(Mutex::new(Known::default()));
    let mut checker = Checker::new(&operator).await;
    let mut events_cut = 0;
    for kill in 1..=KILLS {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CLIENTS {
            let random = random.fork();
            clients.spawn(Client { caller: operator.clone(), random, known: known.clone() }.run());
        }
        tokio::time::sleep(Duration::from_micros(random.below(ROUND_MICROS_MAX) as u64)).await;
        server.kill();
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client does not panic");
        }
        (server, operator) = ground.serve(&token, LOGS).await;
        // No client runs: no other process needs it.
        let mut now_known = std::mem::take(&mut *known.lock().expect("no panic"));
        events_cut += checker.check(&operator, &mut now_known, &format!("after kill {kill}")).await;
        *known.lock().expect("no panic") = now_known;
    }
    let (answers, tokens) = {
        let known = known.lock().expect("no panic");
        (known.acks.len(), known.minted.len())
    };
    let events = checker.head();
    println!("{events} events, {answers} answers, {tokens} tokens, {events_cut} committed and not answered");
    assert!(answers > 500, "too few mutations to mean anything: {answers}");
    assert!(events_cut > 0, "no kill hit between a commit and its answer: the interesting moment was missed");
    check::secrets(&ground.database.owner_url).await;
}

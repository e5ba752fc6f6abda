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

use latchkey::proto::{Account, UpsertAccountRequest};
use support::{ground::Ground, logs, world::apply_example_catalogue};

use self::{
    check::Checker,
    clients::{ACCOUNT, Client, Known, Random, SIDE_ACCOUNT},
};

const KILLS: u64 = 50;
const CLIENTS: u64 = 4;
/// How long the clients run before a kill, at most.
const ROUND_MS_MAX: u64 = 500;
/// As loud as can be: `deploy/test` looks for secrets in them.
const LOGS: &str = "trace";
/// Repeats a run: `LATCHKEY_TEST_SEED=… cargo test --test crash`.
const SEED: &str = "LATCHKEY_TEST_SEED";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_was_answered_survives_kill_9_and_nothing_is_half_done() {
    logs::start();
    let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(fresh_seed);
    println!("{SEED}={seed}");
    let mut random = Random(seed);
    let ground = Ground::new("crash", vec![]).await;
    let token = ground.bootstrap();
    let (mut server, mut operator) = ground.serve(&token, LOGS).await;
    apply_example_catalogue(&operator).await;
    for account in [ACCOUNT, SIDE_ACCOUNT] {
        let account = Account { account_id: account.into(), display_name: account.into(), ..Default::default() };
        let request = UpsertAccountRequest { account: Some(account), ..Default::default() };
        operator.directory().upsert_account(request).await.expect("an account");
    }
    let known = Arc::new(Mutex::new(Known::default()));
    let mut checker = Checker::new(&operator).await;
    let mut events_cut = 0;
    for kill in 1..=KILLS {
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..CLIENTS {
            let random = Random(seed ^ (kill << 32) ^ client);
            clients.spawn(Client { caller: operator.clone(), random, known: known.clone() }.run());
        }
        tokio::time::sleep(Duration::from_micros(random.below(ROUND_MS_MAX * 1_000))).await;
        server.kill();
        while let Some(ended) = clients.join_next().await {
            ended.expect("a client does not panic");
        }
        (server, operator) = ground.serve(&token, LOGS).await;
        // No client runs: nobody else needs it.
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

fn fresh_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("random bytes");
    u64::from_le_bytes(bytes)
}

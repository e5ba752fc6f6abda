//! How long "revoked means revoked" takes: see the README beside this file.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark measures real time, and fails where it stands"
)]

mod report;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use latchkey::proto::{
    Account, DeleteApiKeyRequest, Propagation, UpsertAccountRequest, VerificationOutcome as Outcome, VerifyTokenRequest,
};
use support::{
    Caller,
    ground::Ground,
    process::Process,
    sql,
    world::{ACME, apply_example_catalogue, create, key},
};
use tonic::Request;

const REPLICAS: usize = 3;
const REVOCATIONS: usize = 400;
const WARM_UP: usize = 20;
const HEALTHY_P99_LIMIT: Duration = Duration::from_millis(25);
/// The product's default, its margin for drift (one part in a hundred), and what the budget adds.
const LEASE: Duration = Duration::from_secs(10);
const MARGIN: Duration = Duration::from_millis(100);
const BEYOND: Duration = Duration::from_secs(1);
const EARLY_DEADLINE: Duration = Duration::from_secs(1);
const KILLS: usize = 3;
const LOGS: &str = "warn,latchkey=info";

struct Bench {
    ground: Ground,
    /// The last one is killed, and started again.
    servers: Vec<Process>,
    /// a caller who may verify, at each server.
    verifiers: Vec<Caller>,
    /// At the first server.
    operator: Caller,
}

fn main() {
    if !report::asked() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run());
}

async fn run() {
    let ground = Ground::new("bench", vec![("track_commit_timestamp".into(), "on".into())]).await;
    let cores = std::thread::available_parallelism().unwrap();
    println!("PostgreSQL {}, {cores} cores, {REPLICAS} replicas", ground.postgres.major());
    let mut bench = Bench::start(ground).await;
    bench.healthy_confirmed().await;
    bench.healthy_refused().await;
    bench.one_killed().await;
    let Bench { ground, servers, .. } = bench;
    drop(servers);
    ground.postgres.stop().await.unwrap();
}

// === impl Bench ===

impl Bench {
    async fn start(ground: Ground) -> Self {
        let token = ground.bootstrap();
        let (mut servers, mut verifiers) = (Vec::new(), Vec::new());
        for _ in 0..REPLICAS {
            let (server, caller) = ground.serve(&token, LOGS).await;
            servers.push(server);
            verifiers.push(caller);
        }
        let operator = verifiers[0].clone();
        apply_example_catalogue(&operator).await;
        let account = Account { account_id: ACME.into(), display_name: ACME.into(), ..Default::default() };
        let request = UpsertAccountRequest { account: Some(account), ..Default::default() };
        operator.directory().upsert_account(request).await.unwrap();
        let verifier = create(&operator, "system", &key("verifier", &["system.verify"])).await.unwrap();
        verifiers.iter_mut().for_each(|caller| caller.token.clone_from(&verifier.token));
        Self { ground, servers, verifiers, operator }
    }

    /// A key that every replica answers for from memory: its token and its id.
    async fn cached_key(&self) -> (String, String) {
        let minted = create(&self.operator, ACME, &key("k", &["incidents.view"])).await.unwrap();
        for verifier in self.verifiers.iter().chain(&self.verifiers) {
            assert_eq!(outcome(verifier, &minted.token).await, Outcome::Valid);
        }
        (minted.token, minted.api_key.unwrap().key_id)
    }

    async fn healthy_confirmed(&mut self) {
        let mut spans = Vec::new();
        for round in 0..WARM_UP + REVOCATIONS {
            let (token, key_id) = self.cached_key().await;
            let sent = Instant::now();
            let done = delete(&self.operator, &key_id, None).await;
            let span = sent.elapsed();
            assert!(done.complete, "{done:?}");
            for verifier in &self.verifiers {
                assert_eq!(outcome(verifier, &token).await, Outcome::Deleted);
            }
            if round >= WARM_UP {
                spans.push(span);
            }
        }
        table("send to complete answer", &mut spans);
        let p99 = quantile(&spans, 99);
        budget("confirmed_revocation_p99", p99, HEALTHY_P99_LIMIT);
    }

    /// Every replica is asked without a pause, which takes the processor from what it waits for.
    async fn healthy_refused(&mut self) {
        let mut spans = Vec::new();
        for round in 0..WARM_UP + REVOCATIONS {
            let (token, key_id) = self.cached_key().await;
            let give_up = Arc::new(AtomicBool::new(false));
            let polls: Vec<_> = self
                .verifiers
                .iter()
                .map(|verifier| tokio::spawn(refused_at(verifier.clone(), token.clone(), give_up.clone())))
                .collect();
            let done = delete(&self.operator, &key_id, None).await;
            assert!(done.complete, "{done:?}");
            let mut last = Duration::ZERO;
            for poll in polls {
                let at = tokio::time::timeout(Duration::from_secs(5), poll).await.expect("refused soon").unwrap();
                last = last.max(at);
            }
            give_up.store(true, Ordering::Relaxed);
            let committed = self.committed_at(done.revision.unwrap().number).await;
            if round >= WARM_UP {
                spans.push(last.saturating_sub(committed));
            }
        }
        table("commit to last refusal", &mut spans);
    }

    /// When an event's transaction wrote its commit record, by the clock of this machine.
    async fn committed_at(&self, number: i64) -> Duration {
        let query = format!(
            "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint::text AS line \
             FROM events WHERE number = {number}"
        );
        let lines = sql::lines(&self.ground.database, &query).await;
        Duration::from_micros(lines[0].parse().unwrap())
    }

    async fn one_killed(&mut self) {
        let mut spans = Vec::new();
        let mut early_spans = Vec::new();
        for _ in 0..KILLS {
            let (_, early_key) = self.cached_key().await;
            let (_, key_id) = self.cached_key().await;
            self.servers.pop().unwrap().kill();
            let timed = async |key_id: &str, deadline| {
                let sent = Instant::now();
                (delete(&self.operator, key_id, deadline).await, sent.elapsed())
            };
            let (waited, early) = tokio::join!(timed(&key_id, None), timed(&early_key, Some(EARLY_DEADLINE)));
            assert!(waited.0.complete, "{:?}", waited.0);
            assert_eq!((early.0.complete, early.0.pending_replicas), (false, 1));
            spans.push(waited.1);
            early_spans.push(early.1);
            let token = self.verifiers.pop().unwrap().token;
            let (server, verifier) = self.ground.serve(&token, LOGS).await;
            self.servers.push(server);
            self.verifiers.push(verifier);
        }
        table("one killed: send to complete", &mut spans);
        table("one killed: early answer", &mut early_spans);
        budget("one_killed_complete", *spans.last().unwrap(), LEASE + MARGIN + BEYOND);
        budget("one_killed_early_answer", *early_spans.last().unwrap(), EARLY_DEADLINE);
    }
}

async fn outcome(verifier: &Caller, token: &str) -> Outcome {
    let request = VerifyTokenRequest { token: token.into(), ..Default::default() };
    verifier.tokens().verify_token(request).await.unwrap().into_inner().verification.unwrap().outcome()
}

/// When the first refusal arrived, since the Unix epoch.
async fn refused_at(verifier: Caller, token: String, give_up: Arc<AtomicBool>) -> Duration {
    loop {
        let outcome = outcome(&verifier, &token).await;
        if outcome != Outcome::Valid || give_up.load(Ordering::Relaxed) {
            assert_eq!(outcome, Outcome::Deleted);
            return SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        }
    }
}

async fn delete(caller: &Caller, key_id: &str, deadline: Option<Duration>) -> Propagation {
    let mut request =
        Request::new(DeleteApiKeyRequest { account_id: ACME.into(), key_id: key_id.into(), ..Default::default() });
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    caller.keys().delete_api_key(request).await.unwrap().into_inner().propagation.unwrap()
}

/// Sorts the spans and prints their distribution.
fn table(name: &str, spans: &mut [Duration]) {
    spans.sort_unstable();
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(|percent| ms(quantile(spans, percent)));
    println!("{name:<30} n {:>4}  p50 {p50:>8.2}  p90 {p90:>8.2}  p99 {p99:>8.2}  max {max:>8.2} ms", spans.len());
}

/// The least span that `percent` of the sorted ones do not exceed.
fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}

fn budget(name: &str, value: Duration, limit: Duration) {
    report::budget(&format!("{name}_ms"), ms(value), ms(limit));
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

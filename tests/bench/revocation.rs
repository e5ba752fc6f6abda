//! How long "revoked means revoked" takes: see the README beside this file.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark fails where it stands, and prints")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use latchkey::{
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    proto::{DeleteApiKeyRequest, Propagation, VerificationOutcome as Outcome, VerifyTokenRequest},
    store::migrate,
};
use support::{
    Caller, Server, World,
    database::Database,
    sql,
    world::{ACME, create, key},
};
use tonic::Request;

const REVOCATIONS: usize = 400;
const WARM_UP: usize = 20;
const HEALTHY_P99_LIMIT: Duration = Duration::from_millis(25);
/// The lease of the replica that is killed, its margin for drift (one part in a hundred), and what the budget adds.
const DEAD_LEASE: Duration = Duration::from_secs(5);
const DEAD_MARGIN: Duration = Duration::from_millis(50);
const BEYOND: Duration = Duration::from_secs(1);
const EARLY_DEADLINE: Duration = Duration::from_secs(1);
const KILLS: usize = 3;

struct Bench {
    world: World,
    more: [Server; 2],
    admin: Caller,
    verifiers: Vec<Caller>,
    over: bool,
}

fn main() {
    // `cargo test --benches` runs this too, and asks for nothing.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let over = runtime.block_on(run());
    assert!(!over, "a budget is exceeded");
}

async fn run() -> bool {
    let folder = std::env::temp_dir().join(format!("latchkey-bench-{}", std::process::id()));
    let options = Options {
        remove_on_stop: true,
        settings: vec![("track_commit_timestamp".into(), "on".into())],
        ..Options::durable(folder)
    };
    // Dropping it stops it: also when a panic passes here.
    let postgres = PrivatePostgres::start(options).await.unwrap();
    postgres.create_roles_and_database().await.unwrap();
    let owner_url = postgres.owner_url(DATABASE).unwrap();
    migrate::migrate(&owner_url, APP_ROLE, |_| {}).await.unwrap();
    let database = Database { name: DATABASE.into(), app_url: postgres.app_url(DATABASE).unwrap(), owner_url };
    println!("PostgreSQL {}, {} cores, 3 replicas", postgres.major(), std::thread::available_parallelism().unwrap());
    let mut bench = Bench::start(database).await;
    bench.healthy_confirmed().await;
    bench.healthy_refused().await;
    bench.one_killed().await;
    let Bench { world, more, over, .. } = bench;
    world.server.running.stop().await;
    for server in more {
        server.running.stop().await;
    }
    postgres.stop().await.unwrap();
    over
}

// === impl Bench ===

impl Bench {
    async fn start(database: Database) -> Self {
        let server = async || {
            // What the tests lower, as the product has it.
            Server::start_on(database.clone(), |flags| flags.with("poll_interval_ms", "1000")).await
        };
        let world = World::on(server().await).await;
        let more = [server().await, server().await];
        let verifiers = std::iter::once(&world.server).chain(&more);
        let verifiers =
            verifiers.map(|server| Caller { channel: server.channel.clone(), ..world.verifier.clone() }).collect();
        let admin = world.user("admin");
        Self { world, more, admin, verifiers, over: false }
    }

    /// A key that every replica answers for from memory: its token and its id.
    async fn cached_key(&self) -> (String, String) {
        let minted = create(&self.admin, ACME, &key("k", &["incidents.view"])).await.unwrap();
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
            let done = delete(&self.admin, &key_id, None).await;
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
        self.budget("confirmed_revocation_p99", p99, HEALTHY_P99_LIMIT);
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
            let done = delete(&self.admin, &key_id, None).await;
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
        let lines = sql::lines(&self.world.server.database, &query).await;
        Duration::from_micros(lines[0].parse().unwrap())
    }

    async fn one_killed(&mut self) {
        let mut spans = Vec::new();
        let mut early_spans = Vec::new();
        for _ in 0..KILLS {
            let (_, early_key) = self.cached_key().await;
            let (_, key_id) = self.cached_key().await;
            // What a killed process leaves: a row that nobody renews.
            let insert = format!(
                "INSERT INTO replicas (incarnation, lease_ms, stale_max_ms, pepper_ids, name) \
                 VALUES (gen_random_uuid(), {}, 0, ARRAY['test'], 'killed')",
                DEAD_LEASE.as_millis()
            );
            sql::run(&self.world.server.database, &insert).await;
            let (waited, early) = tokio::join!(
                async {
                    let sent = Instant::now();
                    (delete(&self.admin, &key_id, None).await, sent.elapsed())
                },
                async {
                    let sent = Instant::now();
                    (delete(&self.admin, &early_key, Some(EARLY_DEADLINE)).await, sent.elapsed())
                }
            );
            assert!(waited.0.complete, "{:?}", waited.0);
            assert_eq!((early.0.complete, early.0.pending_replicas), (false, 1));
            spans.push(waited.1);
            early_spans.push(early.1);
        }
        table("one killed: send to complete", &mut spans);
        table("one killed: early answer", &mut early_spans);
        self.budget("one_killed_complete", *spans.last().unwrap(), DEAD_LEASE + DEAD_MARGIN + BEYOND);
        self.budget("one_killed_early_answer", *early_spans.last().unwrap(), EARLY_DEADLINE);
    }

    fn budget(&mut self, name: &str, value: Duration, limit: Duration) {
        let over = value > limit;
        self.over |= over;
        let verdict = if over { "over" } else { "ok" };
        println!("budget {name}_ms {:.2} {:.0} {verdict}", ms(value), ms(limit));
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

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1_000.0
}

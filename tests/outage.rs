//! PostgreSQL goes away under load and comes back: cached keys verify until the lease ends, then nothing is
//! known, then everything is again; no answer is wrong and no operator restarts the server (V1, V2).
//!
//! `LATCHKEY_TEST_OUTAGE_SECONDS=60` makes the outages as long.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail a test where they stand, as tests do")]
#![expect(clippy::disallowed_methods, reason = "a lease ends in real time")]

#[path = "outage/postgres.rs"]
mod postgres;
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use latchkey::proto::VerificationOutcome as Outcome;
use support::{
    Caller, Server, World,
    calls::{delete, requests},
    ground,
    process::Signal,
    server::connect,
    world::{ACME, create, key},
};
use tonic::{Code, Status};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt;

use postgres::Postgres;

const LEASE: Duration = Duration::from_secs(2);
/// Between an answer's being sent and its being noted, on a busy machine.
const SLACK: Duration = Duration::from_millis(500);
const BACK_WITHIN: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(20);

/// What one verification of the load came to.
struct Seen {
    sent: Instant,
    answered: Instant,
    answer: Result<(Outcome, bool), Status>,
}

/// Verifies a token again and again until the stop flag is set.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<Seen>>,
}

// === impl Load ===

impl Load {
    fn start(verifier: Caller, token: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut seen = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let sent = Instant::now();
                let answer = verify(&verifier, &token).await;
                seen.push(Seen { sent, answered: Instant::now(), answer });
                tokio::time::sleep(TICK).await;
            }
            seen
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

fn outage() -> Duration {
    let seconds = std::env::var("LATCHKEY_TEST_OUTAGE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().expect("a number of seconds")))
}

async fn verify(verifier: &Caller, token: &str) -> Result<(Outcome, bool), Status> {
    let answer =
        verifier.tokens().verify_token(requests::verify_token(token, None)).await?.into_inner().verification.unwrap();
    Ok((answer.outcome(), answer.stale))
}

async fn serving(world: &World) -> bool {
    let mut client = HealthClient::new(world.server.channel.clone());
    let health = client.check(HealthCheckRequest::default()).await.unwrap().into_inner();
    health.status() == ServingStatus::Serving
}

async fn world(postgres: &Postgres, stale_max: Duration) -> World {
    let change = |flags: latchkey::settings::Flags| {
        let millis = |span: Duration| span.as_millis().to_string();
        flags.with("lease_ms", millis(LEASE)).with("stale_max_ms", millis(stale_max)).with("database_timeout_ms", "500")
    };
    World::on(Server::start_on(postgres.database(), change).await).await
}

/// The whole story, whatever takes PostgreSQL away.
async fn goes_and_comes_back(postgres: &mut Postgres, kind: postgres::Outage, stale_max: Duration) {
    let world = world(postgres, stale_max).await;
    let admin = world.user("admin");
    let good = create(&admin, ACME, &key("good", &["incidents.view"])).await.unwrap().token;
    let bad = create(&admin, ACME, &key("bad", &["incidents.view"])).await.unwrap();
    for token in [&good, &bad.token] {
        assert_eq!(verify(&world.verifier, token).await.unwrap().0, Outcome::Valid);
    }
    delete(&admin, ACME, &bad.api_key.unwrap().key_id).await.unwrap();
    assert!(serving(&world).await);
    let of_good = Load::start(world.verifier.clone(), good);
    let of_bad = Load::start(world.verifier.clone(), bad.token);
    tokio::time::sleep(Duration::from_millis(500)).await;

    let gone = Instant::now();
    postgres.take_away(kind).await;
    tokio::time::sleep_until((gone + LEASE + stale_max + SLACK).into()).await;
    assert!(!serving(&world).await, "health follows the lease");
    tokio::time::sleep_until((gone + outage()).into()).await;
    postgres.bring_back(kind).await;
    let back = Instant::now();
    tokio::time::sleep(BACK_WITHIN + SLACK).await;
    assert!(serving(&world).await, "health follows the lease back");

    let of_good = of_good.end().await;
    check_good(&of_good, gone, back, stale_max);
    check_bad(&of_bad.end().await, back);
    world.server.running.stop().await;
}

fn check_good(seen: &[Seen], gone: Instant, back: Instant, stale_max: Duration) {
    let serves_until = gone + LEASE + stale_max;
    let mut stale = 0;
    let mut refused = 0;
    for Seen { sent, answered, answer } in seen {
        match answer {
            Ok((outcome, is_stale)) => {
                assert_eq!(*outcome, Outcome::Valid, "never a wrong answer");
                assert!(*sent <= serves_until || *answered >= back - SLACK, "answered without a lease");
                assert!(!is_stale || (!stale_max.is_zero() && *sent > gone), "stale without a reason");
                stale += u32::from(*is_stale);
            }
            Err(status) => {
                check_unavailable(status);
                refused += 1;
                // The last renewal was at most a third of a lease before, whatever comes after.
                assert!(*answered > gone + LEASE / 3 + stale_max, "refused while it had a lease");
                assert!(*sent < back + BACK_WITHIN, "no service in time after PostgreSQL's return");
            }
        }
    }
    assert!(refused > 0, "the outage outlasts the lease");
    assert_eq!(stale > 0, !stale_max.is_zero(), "answers after the lease say that they may be stale");
    assert!(seen.last().is_some_and(|seen| seen.answer.is_ok()), "service is back");
}

/// What was revoked before: DELETED or unavailable, never anything else.
fn check_bad(seen: &[Seen], back: Instant) {
    for Seen { sent, answer, .. } in seen {
        match answer {
            Ok((outcome, _)) => assert_eq!(*outcome, Outcome::Deleted, "never a wrong answer"),
            Err(status) => {
                check_unavailable(status);
                assert!(*sent < back + BACK_WITHIN, "no service in time after PostgreSQL's return");
            }
        }
    }
}

fn check_unavailable(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(status.get_details_retry_info().is_some(), "says when to try again: {status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_a_postgres_that_hangs_ends_service_with_the_lease_and_no_longer() {
    let mut postgres = Postgres::start("hangs").await;
    goes_and_comes_back(&mut postgres, postgres::Outage::Hang, Duration::ZERO).await;
    postgres.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_a_postgres_that_stops_ends_service_with_the_lease_and_no_longer() {
    let mut postgres = Postgres::start("stops").await;
    goes_and_comes_back(&mut postgres, postgres::Outage::Stop, Duration::ZERO).await;
    postgres.stop().await;
}

/// Calls fail at once while PostgreSQL is known to be away, and are answered soon after its return.
async fn fails_fast(postgres: &mut Postgres, kind: postgres::Outage) {
    const AT_ONCE: Duration = Duration::from_millis(200);
    // The time limit that a call would otherwise take each time.
    let change = |flags: latchkey::settings::Flags| {
        flags.with("lease_ms", LEASE.as_millis().to_string()).with("database_timeout_ms", "3000")
    };
    let world = World::on(Server::start_on(postgres.database(), change).await).await;
    let admin = world.user("admin");
    let good = create(&admin, ACME, &key("good", &["incidents.view"])).await.unwrap();
    let dead = create(&admin, ACME, &key("dead", &[])).await.unwrap();
    let (good_id, dead_id) = (good.api_key.unwrap().key_id, dead.api_key.unwrap().key_id);
    delete(&admin, ACME, &dead_id).await.unwrap();
    assert_eq!(verify(&world.verifier, &good.token).await.unwrap().0, Outcome::Valid);
    postgres.take_away(kind).await;
    tokio::time::sleep(LEASE + Duration::from_secs(2)).await;
    // The first may still wait for what nobody has found out yet.
    check_unavailable(&verify(&world.verifier, &good.token).await.unwrap_err());
    let operator = &world.server.operator;
    let mut slow = 0;
    for _ in 0..5 {
        let verified = timed(verify(&world.verifier, &good.token)).await;
        let created = timed(create(operator, ACME, &key("k", &[]))).await;
        let deleted = timed(delete(&admin, ACME, &good_id)).await;
        let read = timed(support::calls::get(operator, ACME, &good_id)).await;
        let revoked = timed(support::calls::revoke(&world.server.caller(&dead.token))).await;
        for (status, took) in [verified, created, deleted, read, revoked] {
            check_unavailable(&status);
            slow += u32::from(took > AT_ONCE);
        }
    }
    // Of 25 calls on a busy machine, one or two may be late for reasons of its own.
    assert!(slow <= 2, "{slow} of 25 calls were not answered at once");
    postgres.bring_back(kind).await;
    let back = Instant::now();
    while verify(&world.verifier, &good.token).await.is_err() {
        assert!(back.elapsed() < BACK_WITHIN + SLACK, "no service in time after PostgreSQL's return");
        tokio::time::sleep(TICK).await;
    }
    assert_eq!(verify(&world.verifier, &good.token).await.unwrap().0, Outcome::Valid);
    create(operator, ACME, &key("k", &[])).await.unwrap();
    world.server.running.stop().await;
}

async fn timed<T>(call: impl Future<Output = Result<T, Status>>) -> (Status, Duration) {
    let started = Instant::now();
    let Err(status) = call.await else { panic!("answered without a database") };
    (status, started.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_while_postgres_is_known_to_hang_or_be_stopped_calls_fail_at_once_and_soon_go_on_after_it() {
    for (name, kind) in [("hangs-known", postgres::Outage::Hang), ("stops-known", postgres::Outage::Stop)] {
        let mut postgres = Postgres::start(name).await;
        fails_fast(&mut postgres, kind).await;
        postgres.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_stale_max_service_goes_on_that_much_longer_and_says_so() {
    let mut postgres = Postgres::start("stale").await;
    goes_and_comes_back(&mut postgres, postgres::Outage::Hang, Duration::from_secs(3)).await;
    postgres.stop().await;
}

/// How many lines, and how many bytes, a server may log of an outage of some seconds, whatever the load.
const OUTAGE_LINES_MAX: usize = 150;
const OUTAGE_BYTES_MAX: usize = 64 * 1024;
/// Fewer failures than this would show nothing.
const FAILURES_MIN: usize = 1_000;

/// Verifies as fast as answers come, from several tasks; how many calls failed.
async fn fails_under_load(caller: &Caller, span: Duration) -> usize {
    let until = Instant::now() + span;
    let loops = (0..16).map(|_| async {
        let mut failed = 0;
        while Instant::now() < until {
            failed += usize::from(verify(caller, &caller.token).await.is_err());
        }
        failed
    });
    futures_util::future::join_all(loops).await.into_iter().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_logged_as_a_state_and_not_at_every_call() {
    let mut postgres = Postgres::start("logs").await;
    let on = |arguments: &[&str]| ground::on(&postgres.database().app_url, arguments);
    let token = on(&["bootstrap"]).secret_stdout().run(ground::START_LIMIT).success();
    let serve = on(&["serve", "--listen-address", "127.0.0.1:0", "--lease-ms", "1000", "--poll-interval-ms", "200"]);
    let mut process = serve.env("LATCHKEY_LOG_FILTER", "info").env("LATCHKEY_DATABASE_TIMEOUT_MS", "300").spawn();
    let caller = Caller { channel: connect(process.address(ground::START_LIMIT)).await, token, on_behalf_of: None };
    assert_eq!(verify(&caller, &caller.token).await.unwrap().0, Outcome::Valid);
    let before = process.stderr().len();
    postgres.take_away(postgres::Outage::Stop).await;
    // The first calls after the lease begin the outage.
    tokio::time::sleep(2 * LEASE).await;
    let failed = fails_under_load(&caller, Duration::from_secs(5)).await;
    postgres.bring_back(postgres::Outage::Stop).await;
    process.logged("the log is followed again", ground::START_LIMIT);
    process.signal(Signal::TERM);
    let ended = process.wait(ground::START_LIMIT);
    let logged = ended.stderr[before..].to_owned();
    ended.success();
    postgres.stop().await;
    assert!(failed > FAILURES_MIN, "{failed} calls failed");
    assert!(logged.contains("the store is unavailable"), "{logged}");
    assert!(logged.lines().count() <= OUTAGE_LINES_MAX && logged.len() <= OUTAGE_BYTES_MAX, "{logged}");
}

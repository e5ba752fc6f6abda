//! Carries a history out, and has the oracle look after every step.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use latchkey::proto::{self, ApiKey, Propagation, RevokeTokenRequest, api_key::Expiry as ProtoExpiry};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status, transport::Channel};

use crate::{
    ask::{self, Ask, Shared},
    closing,
    cluster::{Postgres, Replica},
    model::{ACCOUNT_PERMISSIONS, Authority, Key, RETIRED, TEAM_PERMISSION, TEAMS, Versions, at},
    op::{Fault, Op, REPLICAS},
    support::{
        Caller,
        calls::{self, requests},
        random::Random,
        world::{self, ACME},
    },
};

/// A lost replica is waited for until its lease ends; who is not answered by then does not know what came of it.
const PATIENCE: Duration = Duration::from_millis(1_700);
/// What callers say of their own deadline, if they do.
const DEADLINE: Duration = Duration::from_millis(1_400);
/// Who reads the log for the oracle is not waited for longer.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// How long a replica that may do so answers without a lease, in histories that have one.
const STALE_MS: u64 = 500;

/// What came of a history.
pub struct Report {
    pub operations: u64,
    pub verifications: u64,
    pub valid: u64,
    pub faults: BTreeMap<&'static str, u64>,
    pub violations: Vec<String>,
}

pub struct Run<'a> {
    pub postgres: &'a mut Postgres,
    pub database: String,
    pub replicas: [Option<Replica>; REPLICAS],
    pub shared: Arc<Shared>,
    pub operator: String,
    planted: Option<&'static str>,
    /// How long the last slot's replica answers without a lease.
    stale_ms: u64,
    dice: Random,
    faults: BTreeMap<&'static str, u64>,
    /// Keys whose minting has an unknown outcome.
    pub lost_mints: usize,
}

/// What came of a change.
enum Came {
    Done(Propagation),
    Refused,
    Unknown,
}

struct Hammers(Vec<JoinHandle<()>>);

impl Drop for Hammers {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Runs a history on a database of its own, until the first violation.
pub async fn run(postgres: &mut Postgres, seed: u64, ops: &[Op], planted: Option<&'static str>) -> Report {
    let mut run = Run::start(postgres, seed, planted).await;
    let hammers = (0..REPLICAS).map(|slot| ask::hammer(run.shared.clone(), slot, seed));
    let hammers = Hammers(hammers.collect());
    let mut operations = 0;
    let trace = std::env::var_os("LATCHKEY_SIM_TRACE").is_some();
    for op in ops {
        operations += 1;
        let started = Instant::now();
        run.step(*op).await;
        let stepped = started.elapsed();
        run.look().await;
        if trace {
            println!("  {operations:>3} {op:?}: {stepped:?}, looked {:?}", started.elapsed() - stepped);
        }
        if !run.shared.model().violations.is_empty() {
            break;
        }
    }
    if run.shared.model().violations.is_empty() {
        closing::close(&mut run).await;
    }
    drop(hammers);
    let (faults, database) = (std::mem::take(&mut run.faults), run.database.clone());
    let shared = run.shared.clone();
    drop(run);
    postgres.forget(&database).await;
    let model = shared.model();
    let (verifications, valid) = (model.verifications, model.valid);
    Report { operations, verifications, valid, faults, violations: model.violations.clone() }
}

/// With a deadline that the server is told.
pub fn in_time<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

async fn limited<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(PATIENCE, call).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}

fn sort<T>(result: Result<T, Status>, propagation: impl FnOnce(&T) -> Option<Propagation>) -> (Came, Option<T>) {
    match result {
        Ok(response) => (Came::Done(propagation(&response).expect("a change tells its propagation")), Some(response)),
        Err(status) => {
            let refused = [Code::InvalidArgument, Code::NotFound, Code::FailedPrecondition, Code::Aborted];
            (if refused.contains(&status.code()) { Came::Refused } else { Came::Unknown }, None)
        }
    }
}

/// Every account-level permission, and none: see [`permissions`].
const WIDE: usize = 0;
const NARROW: usize = 3;
/// Long enough for somebody to be told of the wider state, and to remember it.
const FLAP_PAUSE: Duration = Duration::from_millis(40);

/// The sets of account-level permissions that keys have, by kind.
fn permissions(kind: usize) -> Vec<&'static str> {
    match kind % 6 {
        0 => ACCOUNT_PERMISSIONS.to_vec(),
        1 => vec!["settings.view", "secrets.use"],
        2 => vec![RETIRED],
        3 => vec![],
        4 => vec!["incidents.view"],
        _ => vec!["settings.view", "incidents.view"],
    }
}

impl<'a> Run<'a> {
    async fn start(postgres: &'a mut Postgres, seed: u64, planted: Option<&'static str>) -> Self {
        let database = postgres.fresh().await;
        let operator = postgres.bootstrap(&database).await;
        let stale_ms = if seed.is_multiple_of(4) { STALE_MS } else { 0 };
        let (shared, dice) = (Shared::new([false, false, stale_ms > 0]), Random::new(!seed));
        let replicas = [const { None }; REPLICAS];
        let faults = BTreeMap::new();
        let mut run =
            Self { postgres, database, replicas, shared, operator, planted, stale_ms, dice, faults, lost_mints: 0 };
        for slot in 0..REPLICAS {
            run.join(slot).await;
        }
        let operator = run.operator_at(0);
        world::apply_example_catalogue(&operator).await;
        operator.directory().upsert_account(requests::upsert_account(ACME, ACME)).await.expect("an account");
        for team in TEAMS {
            run.restore_team(&operator, team).await.expect("a team");
        }
        let verifier = world::create(&operator, "system", &world::key("verifier", &["system.verify"])).await;
        *run.shared.verifier.lock().expect("no holder panics") = Some(verifier.expect("a key").token);
        run
    }

    pub async fn join(&mut self, slot: usize) {
        let stale_ms = if slot == REPLICAS - 1 { self.stale_ms } else { 0 };
        let replica = self.postgres.replica(&self.database, self.planted, stale_ms).await;
        self.shared.place(slot, Some(replica.channel.clone()));
        self.replicas[slot] = Some(replica);
    }

    /// The operator, at a replica that may answer: the one asked for, or the next.
    fn operator_at(&self, slot: usize) -> Caller {
        let slots = (0..REPLICAS).map(|more| (slot + more) % REPLICAS);
        let answering = |slot: &usize| self.replicas[*slot].as_ref().is_some_and(|replica| !replica.stopped);
        let channel =
            slots.clone().find(answering).or_else(|| slots.clone().find(|slot| self.replicas[*slot].is_some()));
        let channel: Channel = match channel {
            Some(slot) => self.replicas[slot].as_ref().expect("it was found").channel.clone(),
            None => tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy(),
        };
        Caller { channel, token: self.operator.clone(), on_behalf_of: None }
    }

    async fn step(&mut self, op: Op) {
        match op {
            Op::Mint { replica, kind } => self.mint(replica, kind).await,
            Op::Edit { replica, key, kind } => self.edit(replica, key, kind).await,
            Op::Flap { replica, key } => self.flap(replica, key).await,
            Op::Disable { replica, key } => self.set_active(replica, key, false).await,
            Op::Enable { replica, key } => self.set_active(replica, key, true).await,
            Op::Rotate { replica, key, grace_s } => self.rotate(replica, key, grace_s).await,
            Op::Delete { replica, key } => self.delete_picked(replica, key).await,
            Op::Revoke { replica, key } => self.revoke(replica, key).await,
            Op::Suspend { replica } => self.suspend(replica, true).await,
            Op::Resume { replica } => self.suspend(replica, false).await,
            Op::DeleteTeam { replica, team } => self.delete_team(replica, TEAMS[team]).await,
            Op::RestoreTeam { replica, team } => {
                let operator = self.operator_at(replica);
                _ = limited(self.restore_team(&operator, TEAMS[team])).await;
            }
            Op::Retire { replica, retired } => self.retire(replica, retired).await,
            Op::RevokeCaller { replica } => self.revoke_caller(replica).await,
            Op::Await { replica } => _ = self.await_propagation(replica).await,
            Op::AcceptHistory => self.postgres.accept_history(&self.database).await,
            Op::Pass { ms } => tokio::time::sleep(Duration::from_millis(ms.into())).await,
            Op::Fault(fault) => self.hurt(fault).await,
        }
    }

    /// The oracle: every token on every replica that runs, by some path (V1 to V4), the log against the store
    /// and against what was answered (V5), and the chain (V6).
    async fn look(&mut self) {
        let shared = self.shared.clone();
        let slots = (0..REPLICAS).filter(|slot| self.replicas[*slot].as_ref().is_some_and(|replica| !replica.stopped));
        let mut asked: Vec<_> = slots.map(|slot| (slot, self.dice.fork())).collect();
        let asks = asked.iter_mut().map(|(slot, dice)| {
            let all = Ask::all(dice);
            ask::ask(&shared, *slot, dice, all)
        });
        let reader = self.dice.below(REPLICAS);
        let operator = self.operator_at(reader);
        let accounts = tokio::time::timeout(LOOK_PATIENCE, closing::accounts(self, &operator));
        let (_, accounts) = tokio::join!(futures_util::future::join_all(asks), accounts);
        if let Ok(Err(closing::Unaccounted::Wrong(what))) = accounts {
            self.shared.model().violation(what);
        }
    }
}

#[path = "runner_world.rs"]
mod elsewhere;
#[path = "runner_keys.rs"]
mod keys;

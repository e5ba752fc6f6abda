//! A database for the unit tests: a log, some tokens, a clock, and the faults that tests ask for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    answer::verifier::Verifier,
    clock::{Clock, ManualClock},
    limits::VerifyLimits,
    primary::{
        Acknowledged, Acknowledgement, Fill, Head, LogEntry, OtherDatabase, Primary, Registration, Sent, Unavailable,
    },
    replica::{
        follower::Follower,
        membership::{Incarnations, ReplicaIdentity},
    },
};
use crate::domain::{
    api_key::ApiKeyState,
    id::{AccountId, EventId, KeyId, TeamId},
    log::{
        event::{Event, EventDraft, EventKind, GENESIS, Hash, Target, chain},
        revision::{Revision, RevisionStamp},
    },
    permissions::{
        catalogue::Catalogue,
        permission::{Bit, PermissionSet},
    },
    time::Timestamp,
    token::{HashedToken, Pepper, PlainToken, Prefix},
    verification::TokenFacts,
};

/// The fake database's clock is so far ahead of the boot clock.
pub const DATABASE_SKEW: i64 = 1_700_000_000_000_000;
pub const LEASE: Duration = Duration::from_secs(10);

/// Returns the stamp of a number of epoch 1.
pub fn stamp(number: i64) -> RevisionStamp {
    Revision { epoch: 1, number }.stamp().expect("small")
}

pub fn key(id: u128) -> KeyId {
    KeyId::from_uuid(Uuid::from_u128(id))
}

pub fn bit(index: u16) -> Bit {
    Bit::catalogue(index).expect("below 256")
}

pub fn facts(id: u128) -> TokenFacts {
    TokenFacts {
        key_id: key(id),
        account_id: AccountId::from_stored("acme"),
        account_suspended: false,
        state: ApiKeyState::Active,
        expire_time: None,
        token_end_time: None,
        account_permissions: PermissionSet::of(bit(0)),
        team_permissions: PermissionSet::of(bit(1)),
        team_ids: [TeamId::from_stored("a")].into(),
    }
}

pub fn no_catalogue() -> Arc<Catalogue> {
    Arc::new(Catalogue::new(Revision { epoch: 1, number: 0 }, vec![]))
}

pub fn token(byte: u8) -> PlainToken {
    PlainToken::mint(&Prefix::parse("token_prefix", "lk").expect("good"), &Zeroizing::new([byte; 32]))
}

pub fn pepper(byte: u8) -> Pepper {
    Pepper::new(format!("p{byte}"), &Zeroizing::new([byte; 32]))
}

/// What the database holds. Tests change it freely, as faults would.
pub struct Database {
    pub epoch: i64,
    pub log: Vec<LogEntry>,
    pub tokens: HashMap<HashedToken, TokenFacts>,
    pub catalogue: Arc<Catalogue>,
    /// The rows of `replicas`: how often renewed, and how far applied.
    pub replicas: BTreeMap<Uuid, (i64, Revision)>,
    /// Every call that arrived, in order.
    pub calls: Vec<Call>,
    pub down: bool,
    /// The reply to the next such call is lost; what it did stays.
    pub lose_reply_to: Option<Call>,
    /// Only replies to such calls wait.
    pub hold_only: Option<Call>,
    /// Replies wait here *after* the snapshot was taken, so that a test can let things happen between.
    pub hold: Option<Arc<Semaphore>>,
    /// How long a call takes on the boot clock, before the database answers and after.
    pub latency_micros: (i64, i64),
    pub skew: i64,
    pub missing_peppers: Vec<String>,
    /// Which database stands with the head, and which one this is.
    pub identities: (u8, u8),
}

/// A call to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Fill,
    Head,
    Events,
    Catalogue,
    Register,
    Acknowledge,
    Renew,
    Deregister,
}

/// Incarnations that count.
struct Counting(AtomicU64);

impl Incarnations for Counting {
    fn next(&self) -> Uuid {
        Uuid::from_u64_pair(0, self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub struct FakePrimary {
    clock: Arc<ManualClock>,
    database: Mutex<Database>,
    pub fills: AtomicUsize,
    pub heads: AtomicUsize,
}

impl Database {
    pub fn head(&self) -> Revision {
        Revision { epoch: self.epoch, number: self.log.last().map_or(0, |entry| entry.number) }
    }

    fn head_hash(&self) -> Hash {
        self.log.last().map_or(GENESIS, |entry| entry.hash)
    }

    /// Appends an event of a key; `None` appends one that this build cannot read.
    pub fn append(&mut self, kind: Option<EventKind>, id: u128) -> i64 {
        let revision = Revision { number: self.head().number + 1, ..self.head() };
        let event = kind.map(|kind| {
            let draft = EventDraft {
                kind,
                account_id: Some(AccountId::from_stored("acme")),
                actor: None,
                target: Target { kind: "api_key".into(), id: key(id).to_string() },
                changes: vec![],
                affected_key_ids: vec![],
                break_glass: false,
            };
            draft.at(revision, EventId::from_uuid(Uuid::from_u128(1)), Timestamp::from_micros(1))
        });
        self.append_event(event);
        revision.number
    }

    /// Does what `latchkey accept-history` does.
    pub fn accept_history(&mut self) {
        self.epoch += 1;
        self.identities.0 = self.identities.1;
        self.append(Some(EventKind::HistoryAccepted), 1);
    }

    /// Takes the calls that arrived since the last time.
    pub fn take_calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }

    /// Returns the only row: how often it was renewed, and how far applied.
    pub fn row(&self) -> Option<(i64, Revision)> {
        assert!(self.replicas.len() <= 1, "{:?}", self.replicas);
        self.replicas.values().next().copied()
    }

    fn has(&self, revision: Revision, hash: Hash) -> bool {
        let at = self.log.iter().find(|entry| entry.number == revision.number);
        revision.epoch <= self.epoch && at.map_or(revision.number == 0 && hash == GENESIS, |entry| entry.hash == hash)
    }

    fn acknowledge(&mut self, said: &Acknowledgement) -> Acknowledged {
        let known = self.has(said.applied, said.hash);
        match self.replicas.get_mut(&said.incarnation) {
            None => Acknowledged::Evicted,
            Some(_) if !known => Acknowledged::HistoryDiverged,
            Some(row) => {
                *row = (row.0 + i64::from(said.renew), said.applied);
                Acknowledged::Recorded
            }
        }
    }

    pub fn append_event(&mut self, event: Option<Event>) {
        let (number, previous_hash) = (self.head().number + 1, self.head_hash());
        let bytes = event.as_ref().map_or_else(|| b"unreadable".to_vec(), Event::encode);
        self.log.push(LogEntry { number, previous_hash, hash: chain(&previous_hash, &bytes), event });
    }
}

impl FakePrimary {
    pub fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().expect("no test panics while it holds this")
    }

    /// Does in one step what a fault, or another replica, does.
    pub fn change(&self, change: impl FnOnce(&mut Database)) {
        change(&mut self.database());
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.clock.boot_micros() + self.database().skew)
    }

    /// Puts a token on record, and its creation into the log.
    pub fn mint(&self, byte: u8, facts: TokenFacts) -> PlainToken {
        self.mint_under(byte, facts, &pepper(1))
    }

    pub fn mint_under(&self, byte: u8, facts: TokenFacts, pepper: &Pepper) -> PlainToken {
        let token = token(byte);
        let id = facts.key_id.as_uuid().as_u128();
        let mut database = self.database();
        database.tokens.insert(token.parsed().hash(pepper), facts);
        database.append(Some(EventKind::ApiKeyCreated), id);
        token
    }

    /// Disables a key, in one transaction with its event. Returns the event's number.
    pub fn disable(&self, id: u128) -> i64 {
        let mut database = self.database();
        for facts in database.tokens.values_mut().filter(|facts| facts.key_id == key(id)) {
            facts.state = ApiKeyState::Disabled;
        }
        database.append(Some(EventKind::ApiKeyDisabled), id)
    }

    pub fn hold(&self) -> Arc<Semaphore> {
        let hold = Arc::new(Semaphore::new(0));
        self.database().hold = Some(hold.clone());
        hold
    }

    pub fn fills(&self) -> usize {
        self.fills.load(Ordering::SeqCst)
    }

    /// Lets every task go as far as it can.
    pub async fn settle() {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    }

    /// Replies to such calls wait from now on.
    pub fn hold_only(&self, call: Call) -> Arc<Semaphore> {
        self.database().hold_only = Some(call);
        self.hold()
    }

    async fn ask<T>(&self, call: Call, act: impl FnOnce(&mut Database, Timestamp) -> T) -> Result<T, Unavailable> {
        let (there, back) = self.database().latency_micros;
        self.clock.advance(there);
        let now = self.now();
        let down = || Unavailable(Box::new(std::io::Error::other("down")));
        let (answer, hold, lost) = {
            let mut database = self.database();
            if database.down {
                return Err(down());
            }
            database.calls.push(call);
            let lost = database.lose_reply_to.take_if(|lost| *lost == call).is_some();
            let held = database.hold_only.is_none_or(|only| only == call);
            (act(&mut database, now), database.hold.clone().filter(|_| held), lost)
        };
        if let Some(hold) = hold {
            hold.acquire().await.expect("never closed").forget();
        }
        self.clock.advance(back);
        if lost { Err(down()) } else { Ok(answer) }
    }
}

#[async_trait]
impl Primary for FakePrimary {
    async fn fill(&self, digests: &[HashedToken], sent: &Sent<'_>) -> Result<Fill, Unavailable> {
        self.fills.fetch_add(1, Ordering::SeqCst);
        let digests = digests.to_vec();
        sent.mark();
        self.ask(Call::Fill, move |database, now| Fill {
            database_time: now,
            lacks_pepper: !database.missing_peppers.is_empty(),
            revision: database.head(),
            catalogue: database.catalogue.clone(),
            token: digests.iter().find_map(|digest| Some((*digest, database.tokens.get(digest)?.clone()))),
        })
        .await
    }

    async fn head(&self, sent: &Sent<'_>) -> Result<Head, Unavailable> {
        sent.mark();
        self.heads.fetch_add(1, Ordering::SeqCst);
        let read = |database: &mut Database, now| {
            let (recorded, actual) = database.identities;
            if recorded != actual {
                let other = OtherDatabase { recorded: recorded.to_string(), actual: actual.to_string() };
                return Err(Unavailable(Box::new(other)));
            }
            Ok(Head { revision: database.head(), hash: database.head_hash(), database_time: now })
        };
        self.ask(Call::Head, read).await?
    }

    async fn events_after(&self, number: i64, limit: u32) -> Result<Vec<LogEntry>, Unavailable> {
        self.ask(Call::Events, |database, _| {
            database.log.iter().filter(|entry| entry.number > number).take(limit as usize).cloned().collect()
        })
        .await
    }

    async fn refresh(&self) -> Result<Arc<Catalogue>, Unavailable> {
        self.catalogue().await
    }

    async fn catalogue(&self) -> Result<Arc<Catalogue>, Unavailable> {
        self.ask(Call::Catalogue, |database, _| database.catalogue.clone()).await
    }

    async fn register(&self, registration: &Registration) -> Result<(), Unavailable> {
        let row = (1, RevisionStamp::ZERO.revision());
        self.ask(Call::Register, |database, _| {
            assert_eq!(database.replicas.insert(registration.incarnation, row), None, "a fresh incarnation");
        })
        .await
    }

    async fn missing_peppers(&self) -> Result<Vec<String>, Unavailable> {
        Ok(self.database().missing_peppers.clone())
    }

    async fn acknowledge(&self, said: &Acknowledgement) -> Result<Acknowledged, Unavailable> {
        let call = if said.renew { Call::Renew } else { Call::Acknowledge };
        self.ask(call, |database, _| database.acknowledge(said)).await
    }

    async fn deregister(&self, incarnation: Uuid) -> Result<(), Unavailable> {
        self.ask(Call::Deregister, |database, _| _ = database.replicas.remove(&incarnation)).await
    }
}

/// A replica over a fake database, its follower in the test's hands.
pub struct World {
    pub clock: Arc<ManualClock>,
    pub primary: Arc<FakePrimary>,
    pub verifier: Arc<Verifier>,
    pub follower: Follower,
}

impl World {
    pub fn new() -> Self {
        Self::with(vec![pepper(1)], VerifyLimits { lease: LEASE, ..VerifyLimits::default() })
    }

    pub fn with(peppers: Vec<Pepper>, limits: VerifyLimits) -> Self {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let database = Database {
            epoch: 1,
            log: vec![],
            tokens: HashMap::new(),
            catalogue: no_catalogue(),
            replicas: BTreeMap::new(),
            calls: vec![],
            down: false,
            lose_reply_to: None,
            hold_only: None,
            hold: None,
            latency_micros: (0, 0),
            skew: DATABASE_SKEW,
            missing_peppers: vec![],
            identities: (1, 1),
        };
        let primary = Arc::new(FakePrimary {
            clock: clock.clone(),
            database: Mutex::new(database),
            fills: AtomicUsize::new(0),
            heads: AtomicUsize::new(0),
        });
        let identity = ReplicaIdentity { name: "test".into(), incarnations: Box::new(Counting(AtomicU64::new(1))) };
        let (verifier, follower) = Verifier::new(primary.clone(), clock.clone(), peppers, limits, identity);
        Self { clock, primary, verifier: Arc::new(verifier), follower }
    }

    /// Creates a world whose replica may answer for `stale_max` longer than its lease.
    pub fn stale(stale_max: Duration) -> Self {
        Self::with(vec![pepper(1)], VerifyLimits { lease: LEASE, stale_max, ..VerifyLimits::default() })
    }

    /// Creates a world whose follower has done its first round.
    pub async fn started() -> Self {
        let mut world = Self::new();
        world.round().await;
        world
    }

    pub async fn round(&mut self) {
        self.follower.round().await.expect("the database is well");
    }
}

/// Bounds that no test runs into by chance.
impl Default for VerifyLimits {
    fn default() -> Self {
        Self {
            cached_tokens_max: 1_000_000,
            shared_bytes_max: 256 << 20,
            unknown_tokens_max: 100_000,
            misses_in_flight_max: 256,
            ended_tokens_max: 100_000,
            unknown_loads_per_second_max: 500,
            unknown_loads_burst_max: 2_000,
            ended_loads_per_second_max: 50,
            miss_timeout: Duration::from_secs(2),
            lease: Duration::from_secs(10),
            stale_max: Duration::ZERO,
            poll_interval: Duration::from_secs(1),
            used_marks_max: 65_536,
            late_tokens_max: 1_024,
            late_events_per_hour_max: 1_000,
            late_events_per_account_hour_max: 100,
        }
    }
}

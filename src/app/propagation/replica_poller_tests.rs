use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::*;
use crate::app::{error::StoreError, ports::StoreResult};

const LEASE: Duration = Duration::from_secs(10);
const REVISION: Revision = Revision { epoch: 1, number: 2 };

fn row(renewal_no: i64) -> ReplicaRow {
    ReplicaRow {
        incarnation: Uuid::from_u128(1),
        renewal_no,
        applied: Revision { epoch: 1, number: 1 },
        lease: LEASE,
        stale_max: Duration::from_secs(5),
    }
}

/// Rows that a test holds back, and counts.
struct Table {
    /// A poll or an eviction takes one each.
    looks_allowed: Semaphore,
    evictions_allowed: Semaphore,
    looks: AtomicUsize,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
    fails: AtomicBool,
    row: ReplicaRow,
    gone: AtomicBool,
}

impl Table {
    fn of(row: ReplicaRow, looks_allowed: usize, evictions_allowed: usize) -> Arc<Self> {
        Arc::new(Self {
            looks_allowed: Semaphore::new(looks_allowed),
            evictions_allowed: Semaphore::new(evictions_allowed),
            looks: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            most_under_way: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            row,
            gone: AtomicBool::new(false),
        })
    }

    async fn until_looks(&self, count: usize) {
        while self.looks.load(SeqCst) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[async_trait]
impl Replicas for Table {
    async fn replicas(&self) -> StoreResult<Registered> {
        self.looks.fetch_add(1, SeqCst);
        self.most_under_way.fetch_max(self.under_way.fetch_add(1, SeqCst) + 1, SeqCst);
        self.looks_allowed.acquire().await.expect("open").forget();
        self.under_way.fetch_sub(1, SeqCst);
        if self.fails.load(SeqCst) {
            return Err(StoreError::Unavailable("away".into()));
        }
        let rows = if self.gone.load(SeqCst) { vec![] } else { vec![self.row] };
        Ok(Registered { head: REVISION, rows })
    }

    async fn evict_replica(&self, incarnation: Uuid, renewal_no: i64) -> StoreResult<bool> {
        assert_eq!((incarnation, renewal_no), (self.row.incarnation, self.row.renewal_no));
        self.evictions_allowed.acquire().await.expect("open").forget();
        Ok(!self.gone.swap(true, SeqCst))
    }
}

#[test]
fn v1_a_replica_lapses_only_after_lease_staleness_and_margin_without_a_renewal() {
    let mut renewals = Renewals::default();
    let start = Instant::now();
    let mut lapsed =
        |renewal_no, after_ms| !renewals.lapsed(&[row(renewal_no)], start + Duration::from_millis(after_ms)).is_empty();
    assert!(!lapsed(1, 0));
    assert!(!lapsed(1, 15_150));
    assert!(lapsed(1, 15_151));
    // A renewal starts the wait afresh, however long ago the last one was seen.
    assert!(!lapsed(2, 20_000));
    assert!(!lapsed(2, 35_150));
    assert!(lapsed(2, 35_151));
}

#[test]
fn v1_a_row_that_was_gone_is_observed_afresh() {
    let mut renewals = Renewals::default();
    let start = Instant::now();
    assert!(renewals.lapsed(&[row(1)], start).is_empty());
    assert!(renewals.lapsed(&[], start + LEASE).is_empty());
    assert!(renewals.lapsed(&[row(1)], start + 2 * LEASE).is_empty());
}

#[tokio::test]
async fn any_number_of_waiters_shares_one_look_at_a_time() {
    let table = Table::of(row(1), 0, 0);
    let looks = ReplicaPoller::new(table.clone());
    let waiting = |looks: &ReplicaPoller| {
        let (looks, ticket) = (looks.clone(), looks.ticket());
        tokio::spawn(async move { looks.after(ticket).await.below(REVISION) })
    };
    let first = waiting(&looks);
    table.until_looks(1).await;
    // They ask while it runs: it may have been sent before their commits.
    let others: Vec<_> = (0..300).map(|_| waiting(&looks)).collect();
    table.looks_allowed.add_permits(100);
    assert_eq!(first.await.expect("ends"), Some(1));
    for other in others {
        assert_eq!(other.await.expect("ends"), Some(1));
    }
    assert_eq!((table.looks.load(SeqCst), table.most_under_way.load(SeqCst)), (2, 1));
}

#[tokio::test]
async fn v1_a_look_that_was_sent_before_a_mutation_asked_is_not_for_it() {
    let table = Table::of(row(1), 10, 0);
    let looks = ReplicaPoller::new(table.clone());
    let early = looks.ticket();
    let first = looks.after(early).await;
    let late = looks.ticket();
    assert_eq!(looks.after(early).await.number, first.number, "a mutation that asked before it may have it");
    let second = looks.after(late).await;
    assert!(second.number > first.number);
    // A mutation that waits on takes what others have looked up since.
    assert_eq!(looks.after(first.ticket()).await.number, second.number);
    assert_eq!(table.looks.load(SeqCst), 2);
    assert!(looks.after(second.ticket()).await.number > second.number);
}

#[tokio::test]
async fn a_waiter_that_gives_up_ends_the_look_for_no_other() {
    let table = Table::of(row(1), 0, 0);
    let looks = ReplicaPoller::new(table.clone());
    let ticket = looks.ticket();
    assert!(tokio::time::timeout(Duration::from_millis(10), looks.after(ticket)).await.is_err());
    table.looks_allowed.add_permits(1);
    assert_eq!(looks.after(ticket).await.below(REVISION), Some(1));
    assert_eq!(table.looks.load(SeqCst), 1);
}

#[tokio::test]
async fn a_failed_look_is_shared_and_says_that_nothing_is_known() {
    let table = Table::of(row(1), 10, 0);
    table.fails.store(true, SeqCst);
    let looks = ReplicaPoller::new(table.clone());
    let ticket = looks.ticket();
    assert_eq!(looks.after(ticket).await.below(REVISION), None);
    assert_eq!(looks.after(ticket).await.below(REVISION), None);
    assert_eq!(table.looks.load(SeqCst), 1);
}

#[tokio::test]
async fn an_eviction_holds_up_no_look_and_there_is_one_at_a_time() {
    let silent = ReplicaRow { lease: Duration::from_millis(1), stale_max: Duration::ZERO, ..row(1) };
    let table = Table::of(silent, 1_000, 0);
    let looks = ReplicaPoller::new(table.clone());
    looks.after(looks.ticket()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    // The row lapsed, and its eviction waits for the transaction that has locked it.
    for _ in 0..10 {
        assert_eq!(looks.after(looks.ticket()).await.below(REVISION), Some(1));
    }
    table.evictions_allowed.add_permits(1);
    let evicted = async {
        while looks.after(looks.ticket()).await.below(REVISION) != Some(0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), evicted).await.expect("soon");
    assert_eq!(table.evictions_allowed.available_permits(), 0);
}

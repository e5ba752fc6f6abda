//! Follower against verification, and fence against fill.

use loom::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering, fence},
    },
    thread,
};

use crate::{
    holds,
    verify::{
        atomic::relax,
        ordered::{FenceMark, PublishedStamp, fence_before_ack},
    },
};

/// The one line that a model does without.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    Nothing,
    /// Relaxed in the place of an ordering of `verify::ordered`.
    TheOrdering(Ordering),
    /// `Follower::apply` and `join`: the fences first.
    TheFollowersOrder,
    /// `Verifier::memory` before `Fences::serves`.
    TheVerifiersOrder,
    /// `Fences::serves`: entries are deleted instead.
    TheFence,
}

struct Replica {
    fence: FenceMark,
    applied: PublishedStamp,
    lease: PublishedStamp,
    /// What PostgreSQL was sent.
    sent: AtomicI64,
}

impl Replica {
    fn new(leased: bool) -> Arc<Self> {
        let (fence, applied) = (FenceMark::new(0), PublishedStamp::new(0));
        Arc::new(Self { fence, applied, lease: PublishedStamp::new(i64::from(leased)), sent: AtomicI64::new(0) })
    }

    /// `Follower::apply`, then `Membership::tell`, then `Lease::renew`: revision 1 withdraws what 0 allowed.
    fn follow(&self, without: Without) {
        if without != Without::TheFollowersOrder {
            self.fence.raise(1);
        }
        self.applied.advance(1);
        fence_before_ack();
        self.sent.store(1, Ordering::Relaxed);
        self.lease.advance(1);
        self.fence.raise(1);
    }

    /// `Follower::join`: nothing is sent, so no fence of [`fence_before_ack`] stands before the lease.
    fn join(&self, without: Without) {
        if without != Without::TheFollowersOrder {
            self.fence.raise(1);
        }
        self.applied.advance(1);
        self.lease.advance(1);
        self.fence.raise(1);
    }

    /// `Verifier::memory`, then `Fences::serves`: the revision that the answer claims, if there is one.
    fn answers(&self, entry: i64, without: Without) -> Option<i64> {
        let early = self.fence.load_after_stamps();
        let leased = self.lease.load() == 1;
        let applied = self.applied.load();
        let late = if without == Without::TheVerifiersOrder { early } else { self.fence.load_after_stamps() };
        (leased && entry >= late).then_some(applied.max(entry))
    }

    /// A request that was sent because the acknowledgement had been heard of: the socket acquires.
    fn after_sent(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed) == 1;
        fence(Ordering::Acquire);
        sent
    }
}

fn prepare(without: Without) {
    relax(if let Without::TheOrdering(ordering) = without { Some(ordering) } else { None });
}

/// An answer from before the withdrawal never claims the revision of the withdrawal.
fn claim(without: Without) -> bool {
    prepare(without);
    holds(move || {
        let replica = Replica::new(true);
        let follower = thread::spawn({
            let replica = replica.clone();
            move || replica.follow(without)
        });
        assert_ne!(replica.answers(0, without), Some(1), "V1: claims what it does not know");
        follower.join().expect("no panic");
    })
}

/// A reader that sees a lease that was restored sees the fences of before.
fn lease(without: Without) -> bool {
    prepare(without);
    holds(move || {
        let replica = Replica::new(false);
        let follower = thread::spawn({
            let replica = replica.clone();
            move || replica.join(without)
        });
        assert_eq!(replica.answers(0, without), None, "V1: served under a lease without its fences");
        follower.join().expect("no panic");
    })
}

/// A reader that comes after the acknowledgement is refused what it withdrew.
fn sent(without: Without) -> bool {
    prepare(without);
    holds(move || {
        let replica = Replica::new(true);
        let follower = thread::spawn({
            let replica = replica.clone();
            move || replica.follow(without)
        });
        if replica.after_sent() {
            assert_eq!(replica.answers(0, without), None, "V1: served after the acknowledgement");
        }
        follower.join().expect("no panic");
    })
}

/// `Loader::load` against all of the above: the cache may hold the old entry again, but no reader is served it.
fn fill(without: Without) -> bool {
    prepare(without);
    holds(move || {
        let (replica, head) = (Replica::new(true), Arc::new(Mutex::new(0)));
        let cache = Arc::new(Mutex::new(None));
        let filling = thread::spawn({
            let (head, cache) = (head.clone(), cache.clone());
            move || {
                let revision = *head.lock().expect("no panic");
                *cache.lock().expect("no panic") = Some(revision);
            }
        });
        let follower = thread::spawn({
            let (replica, cache) = (replica.clone(), cache.clone());
            move || {
                *head.lock().expect("no panic") = 1;
                if without == Without::TheFence {
                    *cache.lock().expect("no panic") = None;
                    fence_before_ack();
                    replica.sent.store(1, Ordering::Relaxed);
                } else {
                    replica.follow(without);
                }
            }
        });
        if replica.after_sent()
            && let Some(entry) = *cache.lock().expect("no panic")
        {
            assert_ne!(replica.answers(entry, without), Some(0), "V1: served what a late fill brought");
            assert!(entry == 1 || replica.answers(entry, without).is_none(), "V1: served what a late fill brought");
        }
        filling.join().expect("no panic");
        follower.join().expect("no panic");
    })
}

#[test]
fn v1_holds_in_every_interleaving_of_follower_and_verification() {
    assert!(claim(Without::Nothing) && lease(Without::Nothing) && sent(Without::Nothing));
}

#[test]
fn v1_holds_in_every_interleaving_of_fence_and_fill() {
    assert!(fill(Without::Nothing));
}

#[test]
fn an_answer_claims_too_much_without_release() {
    assert!(!claim(Without::TheOrdering(Ordering::Release)));
}

#[test]
fn an_answer_claims_too_much_without_acquire() {
    assert!(!claim(Without::TheOrdering(Ordering::Acquire)));
}

#[test]
fn an_answer_claims_too_much_if_applied_goes_before_the_fences() {
    assert!(!claim(Without::TheFollowersOrder));
}

#[test]
fn an_answer_claims_too_much_if_the_fences_are_read_before_applied() {
    assert!(!claim(Without::TheVerifiersOrder));
}

#[test]
fn a_lease_shows_no_fences_without_release() {
    assert!(!lease(Without::TheOrdering(Ordering::Release)));
}

#[test]
fn a_lease_shows_no_fences_without_acquire() {
    assert!(!lease(Without::TheOrdering(Ordering::Acquire)));
}

#[test]
fn a_lease_shows_no_fences_if_it_is_renewed_before_them() {
    assert!(!lease(Without::TheFollowersOrder));
}

#[test]
fn an_acknowledgement_says_nothing_without_its_fence() {
    assert!(!sent(Without::TheOrdering(Ordering::SeqCst)));
}

#[test]
fn a_fill_brings_back_what_was_deleted_without_the_fence() {
    assert!(!fill(Without::TheFence));
}

//! The rules of the protocol, each of which a search can be told to do without, and the search's bounds.

/// One rule of the protocol (design, section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// `Fences::serves`.
    Fence,
    /// `Verifier::memory`: nothing from memory without the lease.
    LeaseCheck,
    /// `Lease::new` and `barrier::serves_at_most`: each leaves a margin.
    DriftMargin,
    /// `Membership::tell`: the lease counts from before the renewal was sent.
    CountFromSend,
    /// `Follower::join`: `raise_all` to the head.
    JoinFence,
    /// `Follower::join`: the head is read after the registration's reply.
    HeadAfterRegistration,
    /// `Follower::renewed`: a reply after the lapse restores nothing before another head was applied.
    CatchUpAfterLapse,
    /// `replicas::evict`: the deletion is durable.
    DurableEviction,
    /// `Follower::apply` before `Membership::tell`.
    FenceBeforeAcknowledgement,
    /// A fill's rows and head are of one snapshot.
    OneSnapshot,
    /// `Misses::load`: who waited for another's query settles only by the answer rule.
    WaiterRechecks,
    /// `App::pending_replicas`: the rows are read after the commit.
    RowsAfterCommit,
    /// `Membership::register`: an incarnation nobody had before.
    FreshIncarnation,
    /// Every statement insists on the primary.
    PrimaryOnly,
    /// A mutation's `synchronous_commit` is at least `on`.
    SynchronousCommit,
    /// `Verifier::memory`: the clock is read by each request.
    ClockPerRequest,
    /// `Renewals::lapsed`: an observer's own clock decides, never the database's.
    OwnClock,
    /// `replicas::evict`: only if `renewal_no` is still the one that was seen.
    EvictIfUnchanged,
}

/// What a search may do, and what it does without.
#[derive(Clone, Copy)]
pub struct Rules {
    removed: u32,
    pub bounds: Bounds,
}

/// How often each fault may happen in one run.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// 1 or 2; the other is as if it were not there.
    pub replicas: usize,
    pub crashes: u8,
    pub losses: u8,
    /// Ticks in which a replica's clock may stand still, all told; two are what the margins allow each.
    pub drift: u8,
    pub database_crashes: u8,
    pub database_clock_steps: u8,
    /// Renewals of one incarnation, at most 3.
    pub renewals: u8,
    /// Incarnations of one replica, at most 2.
    pub incarnations: u8,
}

impl Rules {
    pub fn without(rules: &[Rule], bounds: Bounds) -> Self {
        Self { removed: rules.iter().fold(0, |set, rule| set | 1 << *rule as u32), bounds }
    }

    pub fn keeps(&self, rule: Rule) -> bool {
        self.removed & (1 << rule as u32) == 0
    }
}

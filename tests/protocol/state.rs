//! The world: two replicas, four rows, the log's head, and one observer.

/// Ticks of a lease. The margin on either side is one tick.
pub const LEASE: u8 = 2;
/// Two slots a replica: its first incarnation and its second.
pub const SLOTS: usize = 4;

/// Where a follower stands in its round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    #[default]
    Down,
    /// Between rounds.
    Idle,
    /// Has the head (`head`) in hand.
    HeadRead,
    /// Has said `head` to the database, with or without a renewal.
    AckSent,
    RenewSent,
    RenewDone,
    Gone,
    /// The lease had lapsed at the renewal's reply, and the head was read again.
    LateHead,
    /// Must register.
    Joining,
    RegisterSent,
    RegisterDone,
    /// Has read the head after it registered.
    JoinHead,
}

/// A request that its sender gave up and PostgreSQL may still carry out.
pub mod late {
    pub const NONE: u8 = 0;
    pub const RENEW: u8 = 1;
    pub const REGISTER: u8 = 2;
}

/// The query of a fill.
pub mod fill {
    pub const NONE: u8 = 0;
    pub const SENT: u8 = 1;
    /// The first of two statements has read the rows, from before the revocation.
    pub const ROWS: u8 = 2;
    /// Good, as of revision 0.
    pub const OLD: u8 = 3;
    /// Good, and yet claims revision 1.
    pub const MIXED: u8 = 4;
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    pub phase: Phase,
    /// The revision that the request or reply at hand carries.
    pub head: u8,
    /// Incarnations so far; the row is that of the last.
    pub incarnations: u8,
    /// Ticks of its clock since the request at hand was sent.
    pub age: u8,
    pub lease_left: u8,
    pub drifted: u8,
    pub fence: u8,
    /// What is cached, as [`fill::OLD`] or [`fill::MIXED`].
    pub cached: u8,
    pub fill: u8,
    /// The fill was sent after the revocation was answered complete.
    pub fill_fresh: u8,
    /// Holds a reading of the clock from when its lease was valid.
    pub held_clock: u8,
    pub late: u8,
    pub late_slot: u8,
    pub late_head: u8,
}

/// A row of `replicas`, and since when the observer has seen its `renewal_no`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// 0 absent, 1 present, 2 deleted by a commit that a crash may lose.
    pub state: u8,
    pub applied: u8,
    /// `applied` would be lost in a crash.
    pub lazy: u8,
    pub renewal_no: u8,
    pub seen: u8,
    pub seen_no: u8,
    pub since: u8,
}

/// What the barrier found in the rows, by slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    pub taken: u8,
    pub after_commit: u8,
    pub pending: u8,
    pub lapsed: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub replicas: [Replica; 2],
    pub rows: [Row; SLOTS],
    pub look: Look,
    /// The log's head: 1 once the revocation is committed.
    pub head: u8,
    pub durable: u8,
    /// The revocation was answered complete.
    pub complete: u8,
    pub crashes: u8,
    pub losses: u8,
    pub database_crashes: u8,
    pub database_clock_steps: u8,
}

struct Packer(u128);

impl Packer {
    fn put(&mut self, value: u8, bits: u32) {
        debug_assert!(u32::from(value) < 1 << bits, "{value} in {bits} bits");
        self.0 = self.0 << bits | u128::from(value);
    }
}

impl Replica {
    fn pack(&self, to: &mut Packer) {
        to.put(self.phase as u8, 4);
        to.put(self.head, 1);
        to.put(self.incarnations, 2);
        to.put(self.age, 2);
        to.put(self.lease_left, 2);
        to.put(self.drifted, 2);
        to.put(self.fence, 1);
        to.put(self.cached, 3);
        to.put(self.fill, 3);
        to.put(self.fill_fresh << 1 | self.held_clock, 2);
        to.put(self.late, 2);
        to.put(self.late_slot << 1 | self.late_head, 2);
    }
}

impl State {
    /// The whole state in one number. The two replicas are alike, so the smaller order stands for both.
    pub fn pack(&self) -> u128 {
        self.pack_as([0, 1]).min(self.pack_as([1, 0]))
    }

    fn pack_as(&self, order: [usize; 2]) -> u128 {
        let mut to = Packer(0);
        for i in order {
            self.replicas[i].pack(&mut to);
            for row in &self.rows[2 * i..2 * i + 2] {
                to.put(row.state, 2);
                to.put(row.applied << 1 | row.lazy, 2);
                to.put(row.renewal_no, 2);
                to.put(row.seen, 1);
                to.put(row.seen_no, 2);
                to.put(row.since, 3);
            }
            let slots = |mask: u8| mask >> (2 * i) & 3;
            to.put(slots(self.look.pending), 2);
            to.put(slots(self.look.lapsed), 2);
        }
        to.put(self.look.taken << 1 | self.look.after_commit, 2);
        to.put(self.head << 2 | self.durable << 1 | self.complete, 3);
        to.put(self.crashes, 2);
        to.put(self.losses, 2);
        to.put(self.database_crashes << 1 | self.database_clock_steps, 2);
        to.0
    }
}

//! What happens outside the replicas: PostgreSQL, the barrier that observes it, and time.

use super::{
    rules::{Rule, Rules},
    search::Next,
    state::{LEASE, Phase, Replica, Row, SLOTS, State, fill, late},
};

/// Ticks that a replica counts a lease for: `Lease::new`.
pub fn lease_counts(rules: &Rules) -> u8 {
    if rules.keeps(Rule::DriftMargin) { LEASE - 1 } else { LEASE }
}

/// Ticks without a renewal after which an observer evicts: more than `barrier::serves_at_most`.
fn evicts_after(rules: &Rules) -> u8 {
    if rules.keeps(Rule::DriftMargin) { LEASE + 2 } else { LEASE + 1 }
}

/// Each replica has joined already or is about to start.
pub fn starts(rules: &Rules) -> Vec<State> {
    let joined = Replica { phase: Phase::Idle, incarnations: 1, lease_left: lease_counts(rules), ..Replica::default() };
    let row = Row { state: 1, ..Row::default() };
    let mut state = State::default();
    let mut starts = vec![state];
    for i in 0..rules.bounds.replicas {
        (state.replicas[i], state.rows[2 * i]) = (joined, row);
        starts.push(state);
    }
    starts
}

/// What a durable commit makes durable: everything before it in PostgreSQL's own log.
fn flush(state: &mut State) {
    state.durable = state.head;
    for row in &mut state.rows {
        row.lazy = 0;
        if row.state == 2 {
            *row = Row::default();
        }
    }
}

pub fn steps(state: &State, rules: &Rules, next: &mut Next) {
    barrier(state, rules, next);
    for i in 0..2 {
        carry_out(state, i, rules, next);
        carry_out_late(state, i, next);
        read_for_fill(state, i, rules, next);
    }
    faults(state, rules, next);
    for drifting in 0..4 {
        tick(state, drifting, rules, next);
    }
}

/// `App::propagate`. A look before the commit is that of an earlier mutation's barrier: what it saw is kept.
fn barrier(state: &State, rules: &Rules, next: &mut Next) {
    if state.head == 0 && state.complete == 0 {
        let mut to = *state;
        to.head = 1;
        if rules.keeps(Rule::SynchronousCommit) {
            flush(&mut to);
        }
        next.push((("commit", 0), to));
    }
    if state.complete == 0 && state.look.taken == 0 {
        next.push((("read rows", 0), look(state, rules)));
    }
    if state.look.taken == 1 {
        next.push((("evict, count pending", 0), decide(state, rules)));
    }
}

/// `replicas::list`, then `Renewals::lapsed`.
fn look(state: &State, rules: &Rules) -> State {
    let mut to = *state;
    for (slot, row) in to.rows.iter_mut().enumerate().filter(|(_, row)| row.state == 1) {
        if row.seen == 0 || row.seen_no != row.renewal_no {
            (row.seen, row.seen_no, row.since) = (1, row.renewal_no, 0);
        }
        let stepped = !rules.keeps(Rule::OwnClock) && to.database_clock_steps > 0;
        if row.since >= evicts_after(rules) || stepped {
            to.look.lapsed |= 1 << slot;
        }
        if row.applied == 0 {
            to.look.pending |= 1 << slot;
        }
    }
    to.look.after_commit = u8::from(state.head == 1 || !rules.keeps(Rule::RowsAfterCommit));
    to.look.taken = u8::from(to.look.after_commit == 1 || to.look.lapsed != 0);
    if to.look.taken == 0 {
        to.look = state.look;
    }
    to
}

/// `replicas::evict` for each that lapsed, then the count of `App::pending_replicas`.
fn decide(state: &State, rules: &Rules) -> State {
    let mut to = *state;
    for slot in (0..SLOTS).filter(|slot| state.look.lapsed & (1 << slot) != 0) {
        let row = to.rows[slot];
        let unchanged = row.renewal_no == row.seen_no || !rules.keeps(Rule::EvictIfUnchanged);
        if row.state == 1 && unchanged {
            to.look.pending &= !(1 << slot);
            if rules.keeps(Rule::DurableEviction) {
                to.rows[slot] = Row::default();
                flush(&mut to);
            } else {
                to.rows[slot].state = 2;
            }
        }
    }
    to.complete = u8::from(to.look.after_commit == 1 && to.look.pending == 0 && to.head == 1);
    to.look = super::state::Look::default();
    if to.complete == 1 {
        for row in &mut to.rows {
            (row.seen, row.seen_no, row.since) = (0, 0, 0);
        }
    }
    to
}

/// PostgreSQL carries out the statement that a follower waits for.
fn carry_out(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    let slot = 2 * i + usize::from(replica.incarnations.saturating_sub(1));
    let head = replica.head;
    match replica.phase {
        Phase::RegisterSent => {
            // An incarnation of before is taken for this one's.
            let kept = Row { applied: 0, lazy: 0, renewal_no: 0, state: 1, ..state.rows[slot] };
            replica.phase = Phase::RegisterDone;
            to.rows[slot] = if rules.keeps(Rule::FreshIncarnation) { Row { state: 1, ..Row::default() } } else { kept };
            flush(&mut to);
            next.push((("replicas::register", i), to));
        }
        Phase::AckSent | Phase::RenewSent if state.rows[slot].state != 1 => {
            replica.phase = Phase::Gone;
            (replica.head, replica.age) = (0, 0);
            next.push((("replicas::acknowledge finds no row", i), to));
        }
        Phase::AckSent => {
            (replica.phase, replica.head) = (Phase::Idle, 0);
            (to.rows[slot].applied, to.rows[slot].lazy) = (head, head);
            next.push((("replicas::acknowledge", i), to));
        }
        Phase::RenewSent => {
            replica.phase = Phase::RenewDone;
            to.rows[slot].applied = head;
            to.rows[slot].renewal_no += 1;
            flush(&mut to);
            next.push((("replicas::acknowledge, renewing", i), to));
        }
        _ => {}
    }
}

/// The same, for a request that its sender has given up.
fn carry_out_late(state: &State, i: usize, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    let row = &mut to.rows[2 * i + usize::from(replica.late_slot)];
    match (replica.late, row.state) {
        (late::NONE, _) => return,
        (late::RENEW, 1) if row.renewal_no < 3 => {
            row.applied = replica.late_head;
            row.renewal_no += 1;
        }
        (late::REGISTER, 0) => *row = Row { state: 1, ..Row::default() },
        _ => {}
    }
    (replica.late, replica.late_slot, replica.late_head) = (late::NONE, 0, 0);
    flush(&mut to);
    next.push((("a late request is carried out", i), to));
}

/// `Primary::fill`: one statement reads the rows and the head.
fn read_for_fill(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut read = |label, found| {
        let mut to = *state;
        to.replicas[i].fill = found;
        if found == fill::NONE {
            to.replicas[i].fill_fresh = 0;
        }
        next.push(((label, i), to));
    };
    match state.replicas[i].fill {
        fill::SENT => {
            // Found revoked: the answer is right, and nothing of it is left to go wrong.
            read("Primary::fill", if state.head == 0 { fill::OLD } else { fill::NONE });
            if !rules.keeps(Rule::PrimaryOnly) {
                read("a standby that is behind answers the fill", fill::OLD);
            }
            if !rules.keeps(Rule::OneSnapshot) && state.head == 0 {
                read("the fill's first statement reads the rows", fill::ROWS);
            }
        }
        fill::ROWS => {
            let found = if state.head == 0 { fill::OLD } else { fill::MIXED };
            read("the fill's second statement reads the head", found);
        }
        _ => {}
    }
}

fn faults(state: &State, rules: &Rules, next: &mut Next) {
    if state.database_crashes < rules.bounds.database_crashes {
        let mut to = *state;
        to.database_crashes += 1;
        to.head = state.durable;
        for row in &mut to.rows {
            row.applied &= 1 - row.lazy;
            row.lazy = 0;
            row.state = u8::from(row.state != 0);
        }
        next.push((("PostgreSQL crashes", 0), to));
    }
    if state.database_clock_steps < rules.bounds.database_clock_steps {
        let mut to = *state;
        to.database_clock_steps += 1;
        next.push((("PostgreSQL's clock steps", 0), to));
    }
}

/// Every clock goes on by one, but those that drift.
fn tick(state: &State, drifting: u8, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    for (i, replica) in to.replicas.iter_mut().enumerate() {
        let timed = matches!(
            replica.phase,
            Phase::RenewSent
                | Phase::RenewDone
                | Phase::LateHead
                | Phase::RegisterSent
                | Phase::RegisterDone
                | Phase::JoinHead
        );
        if drifting & (1 << i) != 0 {
            if replica.drifted >= rules.bounds.drift || !(timed || replica.lease_left > 0) {
                return;
            }
            replica.drifted += 1;
            continue;
        }
        replica.lease_left = replica.lease_left.saturating_sub(1);
        replica.age = if timed { (replica.age + 1).min(lease_counts(rules)) } else { 0 };
    }
    for row in to.rows.iter_mut().filter(|row| row.seen == 1) {
        row.since = (row.since + 1).min(evicts_after(rules));
    }
    next.push((("tick", usize::from(drifting)), to));
}

//! What a replica does by itself: the follower's rounds, fills, faults; and what it would answer.

use super::{
    database::lease_counts,
    rules::{Rule, Rules},
    search::Next,
    state::{Phase, Replica, Row, State, fill, late},
};

/// True if a replica would answer VALID to a request sent after the revocation was answered complete (V1).
pub fn answers_valid(state: &State, rules: &Rules) -> bool {
    let valid = |replica: &Replica| {
        let up = replica.phase != Phase::Down;
        // `Verifier::look_up`.
        let from_cache = replica.cached != fill::NONE && served(replica, replica.cached, rules);
        // `Misses::load` and `Verifier::ask`: for who sent the query, and for who has come since and waits.
        let landed = matches!(replica.fill, fill::OLD | fill::MIXED);
        let for_sender = landed && replica.fill_fresh == 1;
        let for_waiter = landed && (!rules.keeps(Rule::WaiterRechecks) || served(replica, replica.fill, rules));
        up && (from_cache || for_sender || for_waiter)
    };
    state.complete == 1 && state.replicas.iter().any(valid)
}

/// The answer rule: `Verifier::memory`, then `Fences::serves`.
fn served(replica: &Replica, found: u8, rules: &Rules) -> bool {
    let held = !rules.keeps(Rule::ClockPerRequest) && replica.held_clock == 1;
    let leased = replica.lease_left > 0 || held || !rules.keeps(Rule::LeaseCheck);
    let revision = u8::from(found == fill::MIXED);
    leased && (revision >= replica.fence || !rules.keeps(Rule::Fence))
}

pub fn steps(state: &State, rules: &Rules, next: &mut Next) {
    for i in 0..rules.bounds.replicas {
        match state.replicas[i].phase {
            Phase::Down | Phase::Joining => join(state, i, rules, next),
            _ => {
                follow(state, i, rules, next);
                lose(state, i, rules, next);
            }
        }
        if state.replicas[i].phase != Phase::Down {
            fills(state, i, rules, next);
            crash(state, i, rules, next);
        }
    }
}

/// The start of `Follower::join`: `Membership::leave`, whose deletion may get lost, then `register`.
fn join(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    let reused = !rules.keeps(Rule::FreshIncarnation) && replica.incarnations > 0;
    if !reused {
        if replica.incarnations >= rules.bounds.incarnations {
            return;
        }
        replica.incarnations += 1;
    }
    let left = usize::from(state.replicas[i].incarnations.saturating_sub(1));
    let leaves = replica.phase == Phase::Joining && !reused;
    (replica.phase, replica.age) = (Phase::RegisterSent, 0);
    replica.head = if rules.keeps(Rule::HeadAfterRegistration) { 0 } else { state.head };
    next.push((("Membership::register", i), to));
    if leaves && to.rows[2 * i + left].state == 1 {
        to.rows[2 * i + left] = Row::default();
        next.push((("Membership::leave, register", i), to));
    }
}

/// One step of `Follower::round`.
fn follow(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    match replica.phase {
        Phase::Idle => {
            (replica.phase, replica.head) = (Phase::HeadRead, state.head);
            next.push((("Follower::read_head", i), to));
        }
        Phase::HeadRead => tell(state, i, rules, next),
        Phase::RenewDone if replica.lease_left == 0 && rules.keeps(Rule::CatchUpAfterLapse) => {
            (replica.phase, replica.head) = (Phase::LateHead, state.head);
            next.push((("Follower::renewed: read_head", i), to));
        }
        Phase::RenewDone | Phase::LateHead => {
            replica.fence = replica.fence.max(replica.head);
            lease(replica, rules);
            next.push((("Follower::renewed: Lease::renew", i), to));
        }
        Phase::Gone => {
            (replica.phase, replica.lease_left, replica.held_clock) = (Phase::Joining, 0, 0);
            next.push((("Membership::leave: Lease::clear", i), to));
        }
        Phase::RegisterDone => {
            replica.phase = Phase::JoinHead;
            if rules.keeps(Rule::HeadAfterRegistration) {
                replica.head = state.head;
            }
            next.push((("Follower::join: read_head", i), to));
        }
        Phase::JoinHead => {
            if rules.keeps(Rule::JoinFence) {
                replica.fence = replica.fence.max(replica.head);
            }
            lease(replica, rules);
            next.push((("Follower::join: raise_all, Lease::renew", i), to));
        }
        _ => {}
    }
}

/// `Follower::catch_up` with `Follower::apply`, then `Membership::tell`.
fn tell(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    if rules.keeps(Rule::FenceBeforeAcknowledgement) {
        replica.fence = replica.fence.max(replica.head);
    }
    let row = state.rows[2 * i + usize::from(replica.incarnations - 1)];
    replica.age = 0;
    // Whether a renewal is due is left open: more than the product does, never less.
    if row.renewal_no < rules.bounds.renewals {
        replica.phase = Phase::RenewSent;
        next.push((("Follower::apply, Membership::tell renewing", i), to));
    }
    let replica = &mut to.replicas[i];
    if replica.head > row.applied || row.state != 1 {
        replica.phase = Phase::AckSent;
        next.push((("Follower::apply, Membership::tell", i), to));
    }
}

/// `Lease::renew`: counted from before the request was sent.
fn lease(replica: &mut Replica, rules: &Rules) {
    let passed = if rules.keeps(Rule::CountFromSend) { replica.age } else { 0 };
    replica.lease_left = replica.lease_left.max(lease_counts(rules).saturating_sub(passed));
    (replica.phase, replica.head, replica.age) = (Phase::Idle, 0, 0);
}

/// A request or its reply is lost, or comes after `Membership::in_time` gave up.
fn lose(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    if state.losses >= rules.bounds.losses {
        return;
    }
    let mut to = *state;
    to.losses += 1;
    let replica = &mut to.replicas[i];
    let phase = match replica.phase {
        Phase::AckSent | Phase::RenewSent | Phase::RenewDone | Phase::LateHead => Phase::Idle,
        Phase::RegisterSent | Phase::RegisterDone | Phase::JoinHead => Phase::Joining,
        _ => return,
    };
    give_up(replica);
    (replica.phase, replica.head, replica.age) = (phase, 0, 0);
    next.push((("given up", i), to));
}

/// What was sent may still be carried out.
fn give_up(replica: &mut Replica) {
    let what = match replica.phase {
        Phase::RenewSent => late::RENEW,
        Phase::RegisterSent => late::REGISTER,
        _ => return,
    };
    if replica.late == late::NONE {
        let head = if what == late::RENEW { replica.head } else { 0 };
        (replica.late, replica.late_slot, replica.late_head) = (what, replica.incarnations - 1, head);
    }
}

/// `Misses::load` and `Loader::remember`.
fn fills(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    let mut to = *state;
    let replica = &mut to.replicas[i];
    match replica.fill {
        // Sent after the commit to the primary, it finds the key revoked, so it is left out.
        fill::NONE if state.head == 0 || !rules.keeps(Rule::PrimaryOnly) => {
            (replica.fill, replica.fill_fresh) = (fill::SENT, state.complete);
            next.push((("Misses::load", i), to));
        }
        fill::OLD | fill::MIXED => {
            // `EntryCache::insert`: never an older one over a newer.
            replica.cached = replica.cached.max(replica.fill);
            (replica.fill, replica.fill_fresh) = (fill::NONE, 0);
            next.push((("Loader::remember", i), to));
        }
        _ => {}
    }
    if !rules.keeps(Rule::ClockPerRequest) && state.replicas[i].lease_left > 0 {
        let mut to = *state;
        to.replicas[i].held_clock = 1;
        next.push((("a stream reads the clock", i), to));
    }
}

fn crash(state: &State, i: usize, rules: &Rules, next: &mut Next) {
    if state.crashes >= rules.bounds.crashes {
        return;
    }
    let mut to = *state;
    to.crashes += 1;
    let replica = &mut to.replicas[i];
    give_up(replica);
    let Replica { incarnations, late, late_slot, late_head, drifted, .. } = *replica;
    *replica = Replica { incarnations, late, late_slot, late_head, drifted, ..Replica::default() };
    next.push((("crash", i), to));
}

//! The oracle: what may be answered, and when.
//!
//! Every fact of authority has *versions*. A version may hold from just before the change that makes it was
//! sent until a later change that ends it was answered complete on every replica. An answer VALID is right
//! only if, between its request's sending and its arrival, some version that allows it may have held. This
//! one rule is V1 without faults and V2 with them: what no client knows for sure may hold for longer, and
//! nothing else may.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Instant, SystemTime},
};

use latchkey::proto::{Revision, TokenVerification, VerificationOutcome as Outcome};

pub const ACCOUNT_PERMISSIONS: [&str; 4] = ["billing.manage", "settings.view", "incidents.view", "secrets.use"];
/// The one that the catalogue retires and restores.
pub const RETIRED: &str = ACCOUNT_PERMISSIONS[0];
pub const TEAMS: [&str; 3] = ["red", "green", "blue"];
/// What team-scoped keys hold.
pub const TEAM_PERMISSION: &str = "schedules.view";
/// A deadline may be judged early by one round trip to the database, which the proxy delays.
const EARLY_MAX_MICROS: i64 = 1_500_000;

/// What a key may do.
#[derive(Clone, Debug, Default)]
pub struct Authority {
    pub active: bool,
    pub permissions: BTreeSet<String>,
    pub teams: BTreeSet<String>,
    /// By place in [`Key::tokens`]; with the end of its grace, if it has one.
    pub tokens: BTreeMap<usize, Option<i64>>,
}

#[derive(Clone, Debug)]
struct Version<T> {
    fact: T,
    /// The change that replaced it.
    replaced_at: Option<(i64, i64)>,
    until: Option<Instant>,
    /// Made by a change of unknown outcome that may still come: it may hold for ever.
    lingers: bool,
}

/// The versions of one fact, oldest first.
#[derive(Clone, Debug)]
pub struct Versions<T>(Vec<Version<T>>);

#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub account_id: String,
    pub tokens: Vec<String>,
    pub expire_micros: Option<i64>,
    pub authority: Versions<Authority>,
    /// Some change of it has an unknown outcome: only to be deleted.
    pub murky: bool,
    pub deleted: bool,
}

pub struct Model {
    pub keys: Vec<Key>,
    pub account_active: Versions<bool>,
    pub retired: Versions<bool>,
    /// Teams whose deletion has an unknown outcome: they may be taken away at any time.
    pub loose_teams: BTreeSet<String>,
    /// The highest revision that an answer named.
    pub known: (i64, i64),
    pub violations: Vec<String>,
    pub verifications: u64,
    pub valid: u64,
}

/// One question, and when it was sent.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `None` for a token that no server minted.
    pub key: Option<(usize, usize)>,
    pub permission: &'static str,
    pub team: Option<&'static str>,
    pub sent: Instant,
    pub sent_micros: i64,
    /// The answer must not be older.
    pub min_revision: Option<(i64, i64)>,
}

pub fn micros_now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_micros()).expect("before the year 200000")
}

pub fn at(revision: &Revision) -> (i64, i64) {
    (revision.epoch, revision.number)
}

// === impl Versions ===

impl<T: Clone> Versions<T> {
    pub fn new(fact: T) -> Self {
        Self(vec![Version { fact, replaced_at: None, until: None, lingers: false }])
    }

    pub fn latest(&self) -> &T {
        &self.0.last().expect("there is always one").fact
    }

    /// A change is about to be sent: from now on it may hold.
    pub fn propose(&mut self, fact: T) {
        self.0.push(Version { fact, replaced_at: None, until: None, lingers: false });
    }

    /// It was refused: it never held.
    pub fn withdraw(&mut self) {
        self.0.pop();
    }

    pub fn amend(&mut self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.last_mut().expect("there is always one").fact);
    }

    /// No client knows whether, or when, it is committed.
    pub fn linger(&mut self) {
        self.0.last_mut().expect("there is always one").lingers = true;
    }

    /// Whether it is known for sure.
    pub fn settled(&self) -> bool {
        !self.0.iter().any(|version| version.lingers)
    }

    /// It was committed: what came before ends when this revision is complete.
    pub fn commit(&mut self, revision: (i64, i64)) {
        let last = self.0.len() - 1;
        for version in &mut self.0[..last] {
            version.replaced_at.get_or_insert(revision);
        }
    }

    fn complete(&mut self, revision: (i64, i64), now: Instant) {
        for version in &mut self.0 {
            if !version.lingers
                && version.until.is_none()
                && version.replaced_at.is_some_and(|replaced| replaced <= revision)
            {
                version.until = Some(now);
            }
        }
    }

    fn may_hold(&self, asked: &Asked, allows: impl Fn(&T) -> bool) -> bool {
        let in_time = |version: &Version<T>| version.until.is_none_or(|until| until >= asked.sent);
        let overtaken = |version: &Version<T>| {
            let replaced = version.replaced_at.filter(|_| !version.lingers);
            replaced.is_some_and(|replaced| asked.min_revision.is_some_and(|min| replaced <= min))
        };
        self.0.iter().filter(|version| in_time(version) && !overtaken(version)).any(|version| allows(&version.fact))
    }
}

// === impl Model ===

impl Model {
    pub fn new() -> Self {
        Self {
            keys: Vec::new(),
            account_active: Versions::new(true),
            retired: Versions::new(false),
            loose_teams: BTreeSet::new(),
            known: (0, 0),
            violations: Vec::new(),
            verifications: 0,
            valid: 0,
        }
    }

    /// Everything up to a revision was answered complete.
    pub fn complete(&mut self, revision: (i64, i64)) {
        let now = Instant::now();
        self.keys.iter_mut().for_each(|key| key.authority.complete(revision, now));
        self.account_active.complete(revision, now);
        self.retired.complete(revision, now);
    }

    pub fn violation(&mut self, what: String) {
        if self.violations.len() < 20 {
            self.violations.push(what);
        }
    }

    /// Judges an answer that has just arrived.
    pub fn judge(&mut self, asked: &Asked, found: &TokenVerification, place: &str) {
        self.verifications += 1;
        let (outcome, revision) = (found.outcome(), found.revision.as_ref().map(at));
        if revision.is_none() || revision < asked.min_revision {
            self.violation(format!("V1 (freshness): {place}: answered at {revision:?}, asked {asked:?}"));
        }
        let Some((key, token)) = asked.key else {
            if outcome != Outcome::Unknown {
                self.violation(format!("V4: {place}: {outcome:?} for a token that no server minted"));
            }
            return;
        };
        match outcome {
            Outcome::Valid => {
                self.valid += 1;
                if let Some(why) = self.forbidden(asked, key, token) {
                    let id = &self.keys[key].id;
                    self.violation(format!("{why}: {place}: VALID for token {token} of {id}, asked {asked:?}"));
                }
            }
            Outcome::Unknown | Outcome::Malformed | Outcome::Unspecified => {
                self.violation(format!("V2: {place}: {outcome:?} for a minted token, asked {asked:?}"));
            }
            Outcome::Expired => {
                let early = self.keys[key].expire_micros.is_none_or(|end| micros_now() + EARLY_MAX_MICROS < end);
                if early {
                    self.violation(format!("V3: {place}: EXPIRED too early, asked {asked:?}"));
                }
            }
            _ => {}
        }
    }

    /// Judges the answer of a cluster that is whole again, at a revision that everybody has applied: exactly
    /// what holds is VALID. Without it a service that denies everything would pass.
    pub fn judge_exactly(&mut self, asked: &Asked, found: &TokenVerification, place: &str) {
        self.judge(asked, found, place);
        let Some((key, token)) = asked.key else { return };
        let sure = self.account_active.settled() && self.retired.settled() && self.loose_teams.is_empty();
        let alive = self.keys[key].expire_micros.is_none_or(|end| micros_now() + EARLY_MAX_MICROS < end);
        let facts = &self.keys[key];
        let graced = facts.authority.latest().tokens.get(&token).is_some_and(Option::is_some);
        if sure
            && alive
            && !graced
            && !facts.murky
            && found.outcome() != Outcome::Valid
            && self.holds(asked, key, token)
        {
            self.violation(format!("healed: {place}: {:?} for what holds, asked {asked:?}", found.outcome()));
        }
    }

    /// Whether the latest versions allow it.
    fn holds(&self, asked: &Asked, key: usize, token: usize) -> bool {
        let key = &self.keys[key];
        let retired = asked.permission == RETIRED && *self.retired.latest();
        *self.account_active.latest() && !retired && grants(key.authority.latest(), asked, token)
    }

    /// Why an answer VALID was wrong, if it was.
    fn forbidden(&self, asked: &Asked, key: usize, token: usize) -> Option<&'static str> {
        let key = &self.keys[key];
        if key.expire_micros.is_some_and(|end| asked.sent_micros >= end) {
            return Some("V3 (expiry)");
        }
        let account_active = key.account_id == "system" || self.account_active.may_hold(asked, |active| *active);
        let known = asked.permission != RETIRED || self.retired.may_hold(asked, |retired| !retired);
        let right =
            account_active && known && key.authority.may_hold(asked, |authority| grants(authority, asked, token));
        (!right).then_some("V1/V2")
    }
}

/// Whether an authority answers a question about a token of its key with VALID.
fn grants(authority: &Authority, asked: &Asked, token: usize) -> bool {
    let token_lives = authority.tokens.get(&token).is_some_and(|end| end.is_none_or(|end| asked.sent_micros < end));
    let account = authority.permissions.contains(asked.permission);
    let team = asked.team.is_some_and(|team| authority.teams.contains(team));
    authority.active && token_lives && (account || (team && asked.permission == TEAM_PERMISSION))
}

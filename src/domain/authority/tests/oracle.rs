//! The rules once more, in the plainest way: sets of (team, permission, last moment), spelled out over
//! a list of teams and one that stands for every other. Shares no code with what it judges.
//!
//! Beside what is held now there is what was granted: (team or account, name, last moment). From it follows, by the
//! catalogue of any moment, what is held then.

use std::collections::BTreeSet;

/// The teams of the model, and one for all teams that it does not name: held only by who holds a
/// permission account-wide.
pub const ALL_TEAMS: [&str; 4] = ["t", "u", "v", ANY_OTHER];
pub const ANY_OTHER: &str = "any other team";
pub const FOREVER: i64 = i64::MAX;

const MANAGE: &str = "api_keys.manage";
const ROTATE_SELF: &str = "api_keys.rotate_self";
const OPERATE: &str = "system.operate";
const SYSTEM: [&str; 6] = [
    "system.verify",
    "system.directory",
    "system.impersonate",
    "system.events",
    "system.report_leaks",
    "system.operate",
];

pub type Names = BTreeSet<&'static str>;
/// Permission by team, with the last moment at which it is held.
pub type Triples = BTreeSet<(&'static str, &'static str, i64)>;
/// Names as granted, each on one team or account-wide, with the last moment at which it is held.
pub type Granted = BTreeSet<(Option<&'static str>, &'static str, i64)>;

#[derive(Clone, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub team_scopable: bool,
    pub implies: Names,
    pub retired: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active,
    Disabled,
    Deleted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub account: Names,
    pub teams: Names,
    pub on_teams: Names,
    pub until: i64,
    pub state: State,
    /// When its retiring token ends, if there is one.
    pub retiring_until: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub account: Names,
    pub on_teams: BTreeSet<(&'static str, &'static str)>,
}

/// Who asks: what it holds, and how long.
#[derive(Clone, Debug)]
pub struct Asker {
    pub holds: Triples,
    pub granted: Granted,
    pub until: i64,
    /// The key that asks; `None` for a user.
    pub key: Option<usize>,
    pub retiring: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Call<'a> {
    Create { after: &'a Key },
    Update { key: usize, before: &'a Key, after: &'a Key },
    Enable { key: usize, before: &'a Key },
    Narrow { before: &'a Key },
    Rotate { key: usize, before: &'a Key, grace_secs: u32 },
}

fn close(specs: &[Spec], names: impl Iterator<Item = &'static str>, on_team: bool) -> Names {
    let live = |name: &str| specs.iter().find(|spec| spec.name == name && !spec.retired);
    let countable = |name: &&str| match live(name) {
        Some(spec) => spec.team_scopable || !on_team,
        None => SYSTEM.contains(name) && !on_team,
    };
    let mut closed: Names = names.filter(countable).collect();
    loop {
        let mut wider = closed.clone();
        for name in &closed {
            wider.extend(live(name).into_iter().flat_map(|spec| &spec.implies).filter(|name| live(name).is_some()));
            wider.extend(if *name == OPERATE { &SYSTEM[..] } else { &[] });
        }
        if wider == closed {
            return closed;
        }
        closed = wider;
    }
}

/// What names amount to by a catalogue, each for as long as it is held.
pub fn amount_to(specs: &[Spec], granted: &Granted) -> Triples {
    let spelled = |(scope, name, until): &(Option<&'static str>, &'static str, i64)| -> Triples {
        let closed = close(specs, std::iter::once(*name), scope.is_some());
        let teams = scope.map_or(ALL_TEAMS.to_vec(), |team| vec![team]);
        closed.iter().flat_map(|name| teams.iter().map(|team| (*team, *name, *until))).collect()
    };
    granted.iter().flat_map(spelled).collect()
}

/// The same, still as names at their scopes: what one may say that one has held.
pub fn with_implied(specs: &[Spec], granted: &Granted) -> Granted {
    let closed = |(scope, name, until): &(Option<&'static str>, &'static str, i64)| {
        let (scope, until) = (*scope, *until);
        close(specs, std::iter::once(*name), scope.is_some()).into_iter().map(move |name| (scope, name, until))
    };
    granted.iter().flat_map(closed).chain(granted.iter().copied()).collect()
}

pub fn granted_to_key(key: &Key) -> Granted {
    let wide = key.account.iter().map(|name| (None, *name, key.until));
    let narrow = key.teams.iter().flat_map(|team| key.on_teams.iter().map(|name| (Some(*team), *name, key.until)));
    wide.chain(narrow).collect()
}

pub fn granted_to_user(user: &User) -> Granted {
    let wide = user.account.iter().map(|name| (None, *name, FOREVER));
    wide.chain(user.on_teams.iter().map(|(team, name)| (Some(*team), *name, FOREVER))).collect()
}

fn held_by_key(specs: &[Spec], key: &Key) -> Triples {
    amount_to(specs, &granted_to_key(key))
}

/// What a grant confers nothing by now.
fn dormant(specs: &[Spec], key: &Key) -> Granted {
    let asleep = |(scope, name, _): &(Option<&'static str>, &'static str, i64)| {
        close(specs, std::iter::once(*name), scope.is_some()).is_empty()
    };
    granted_to_key(key).into_iter().filter(asleep).collect()
}

/// What `more` has and `less` has not, or not for as long.
pub fn beyond(more: &Triples, less: &Triples) -> Triples {
    let within = |(team, name, until): &(&str, &str, i64)| {
        less.iter().any(|(t, n, longest)| t == team && n == name && longest >= until)
    };
    more.iter().filter(|triple| !within(triple)).copied().collect()
}

impl Asker {
    fn has(&self, team: &str, name: &str) -> bool {
        self.holds.iter().any(|(t, n, _)| *t == team && *n == name)
    }

    fn anywhere(&self, name: &str) -> bool {
        ALL_TEAMS.iter().any(|team| self.has(team, name))
    }

    pub fn operates(&self) -> bool {
        self.has(ANY_OTHER, OPERATE)
    }

    fn manages_on(&self, team: &str) -> bool {
        self.operates() || self.has(team, MANAGE)
    }

    fn may_manage(&self, key: &Key) -> bool {
        let only_teams = key.account.is_empty() && !key.teams.is_empty();
        self.manages_on(ANY_OTHER) || only_teams && key.teams.iter().all(|team| self.manages_on(team))
    }

    pub fn may_view(&self, key: &Key) -> bool {
        self.manages_on(ANY_OTHER) || key.teams.iter().any(|team| self.manages_on(team))
    }

    /// What objects to handing out a key that holds some names to no effect yet.
    fn confers_dormant(&self, specs: &[Spec], key: &Key, objections: &mut BTreeSet<&'static str>) {
        if self.operates() {
            return;
        }
        let named = |scope, name| self.granted.iter().any(|(s, n, _)| *s == scope && *n == name);
        let unnamed =
            |(scope, name, _): &(Option<&'static str>, &'static str, i64)| !named(*scope, *name) && !named(None, *name);
        let dormant = dormant(specs, key);
        objections.extend(dormant.iter().any(unnamed).then_some("M4"));
        let managing = dormant.iter().any(|(_, name, _)| *name == MANAGE);
        objections.extend((managing && self.key.is_some()).then_some("M5"));
    }

    /// What objects to handing out `gained`.
    fn confers(&self, gained: &Triples, objections: &mut BTreeSet<&'static str>) {
        if self.operates() {
            objections.extend(gained.iter().any(|(_, _, until)| *until > self.until).then_some("M4"));
        } else {
            objections.extend((!beyond(gained, &self.holds).is_empty()).then_some("M4"));
            let managing = gained.iter().any(|(_, name, _)| *name == MANAGE);
            objections.extend((managing && self.key.is_some()).then_some("M5"));
        }
    }
}

/// Every rule that objects to a call; it is allowed if there is none.
pub fn objections(specs: &[Spec], asker: &Asker, call: Call<'_>) -> BTreeSet<&'static str> {
    let mut no = BTreeSet::new();
    let mints_operator = |gained: &Triples| gained.iter().any(|(_, name, _)| *name == OPERATE).then_some("A4");
    let outlives = |key: &Key| (key.until > asker.until).then_some("M4");
    let unmanaged = |key: &Key| (!asker.may_manage(key)).then_some("M2");
    let invisible = |key: &Key| (!asker.may_view(key)).then_some("M3");
    match call {
        Call::Create { after } => {
            let whole = held_by_key(specs, after);
            no.extend(unmanaged(after).into_iter().chain(mints_operator(&whole)).chain(outlives(after)));
            asker.confers(&whole, &mut no);
        }
        Call::Update { key, before, after } => {
            let [was, will] = [before, after].map(|key| held_by_key(specs, key));
            let whenever: Triples = was.iter().map(|(team, name, _)| (*team, *name, FOREVER)).collect();
            no.extend(invisible(before).into_iter().chain(unmanaged(before)).chain(unmanaged(after)));
            no.extend((asker.key == Some(key)).then_some("M6"));
            no.extend(mints_operator(&beyond(&will, &whenever)));
            asker.confers(&beyond(&will, &was), &mut no);
            if after.until > before.until {
                no.extend(outlives(after));
                asker.confers_dormant(specs, after, &mut no);
            }
        }
        Call::Enable { key, before } => {
            no.extend(invisible(before).into_iter().chain(unmanaged(before)).chain(outlives(before)));
            no.extend((asker.key == Some(key)).then_some("M6"));
            asker.confers(&held_by_key(specs, before), &mut no);
            asker.confers_dormant(specs, before, &mut no);
        }
        Call::Narrow { before } => no.extend(invisible(before).into_iter().chain(unmanaged(before))),
        Call::Rotate { key, before, grace_secs } => {
            let whole = held_by_key(specs, before);
            no.extend(mints_operator(&whole));
            if asker.key == Some(key) {
                no.extend((!asker.anywhere(ROTATE_SELF) || asker.retiring || grace_secs < 60).then_some("M6"));
                no.extend(before.account.union(&before.on_teams).any(|name| *name == MANAGE).then_some("M5"));
            } else {
                no.extend(invisible(before).into_iter().chain(unmanaged(before)).chain(outlives(before)));
                asker.confers(&whole, &mut no);
                asker.confers_dormant(specs, before, &mut no);
            }
        }
    }
    no
}

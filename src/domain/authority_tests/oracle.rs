//! The rules once more, in the plainest way: sets of (team, permission, last moment), spelled out over
//! a list of teams and one that stands for every other. Shares no code with what it judges.

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

pub fn held_by_key(specs: &[Spec], key: &Key) -> Triples {
    let wide = close(specs, key.account.iter().copied(), false);
    let narrow = close(specs, key.on_teams.iter().copied(), true);
    let wide = wide.iter().flat_map(|name| ALL_TEAMS.map(|team| (team, *name, key.until)));
    let narrow = narrow.iter().flat_map(|name| key.teams.iter().map(|team| (*team, *name, key.until)));
    wide.chain(narrow).collect()
}

pub fn held_by_user(specs: &[Spec], user: &User) -> Triples {
    let wide = close(specs, user.account.iter().copied(), false);
    let mut held: Triples = wide.iter().flat_map(|name| ALL_TEAMS.map(|team| (team, *name, FOREVER))).collect();
    for (team, role) in &user.on_teams {
        held.extend(close(specs, std::iter::once(*role), true).into_iter().map(|name| (*team, name, FOREVER)));
    }
    held
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
            no.extend(if after.until > before.until { outlives(after) } else { None });
            asker.confers(&beyond(&will, &was), &mut no);
        }
        Call::Enable { key, before } => {
            no.extend(invisible(before).into_iter().chain(unmanaged(before)).chain(outlives(before)));
            no.extend((asker.key == Some(key)).then_some("M6"));
            asker.confers(&held_by_key(specs, before), &mut no);
        }
        Call::Narrow { before } => no.extend(invisible(before).into_iter().chain(unmanaged(before))),
        Call::Rotate { key, before, grace_secs } => {
            let whole = held_by_key(specs, before);
            no.extend(mints_operator(&whole));
            if asker.key == Some(key) {
                no.extend((!asker.anywhere(ROTATE_SELF) || asker.retiring || grace_secs < 60).then_some("M6"));
                no.extend(asker.anywhere(MANAGE).then_some("M5"));
            } else {
                no.extend(invisible(before).into_iter().chain(unmanaged(before)).chain(outlives(before)));
                asker.confers(&whole, &mut no);
            }
        }
    }
    no
}

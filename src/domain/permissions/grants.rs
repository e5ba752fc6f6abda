//! What a key was granted, and what that amounts to under a catalogue (K1, K2, P2, P3).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    catalogue::Catalogue,
    permission::{self, Bit, PermissionSet},
};
use crate::domain::{
    error::{Error, Violated},
    id::{AccountId, TeamId},
};

/// Teams one scope may name: a bound on what a key costs to keep and to judge.
pub const TEAMS_MAX: usize = 1_000;
/// Permission names one list may hold.
pub const NAMES_MAX: usize = 512;

/// Team scope: one permission set, the same on every team named. Neither list is ever empty (K2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeamScope {
    team_ids: BTreeSet<TeamId>,
    permissions: BTreeSet<String>,
}

/// What a key was granted, by name (P1): account-level, team-scoped, both or nothing (K1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Held account-wide (P3).
    pub account_permissions: BTreeSet<String>,
    /// Held on some teams.
    pub team_scope: Option<TeamScope>,
}

impl TeamScope {
    /// Parses a team scope from its two lists.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming what is wrong below `field`: an empty list, a malformed or repeated
    /// entry, too many entries.
    pub fn parse(field: &str, team_ids: &[String], permissions: &[String]) -> Result<Self, Error> {
        let mut problems = Violated::default();
        if team_ids.is_empty() {
            problems.add(format!("{field}.team_ids"), "must not be empty: a team scope names teams and permissions");
        }
        if permissions.is_empty() {
            let field = format!("{field}.permissions");
            problems.add(field, "must not be empty: a team scope names teams and permissions");
        }
        let teams = problems.collect(parse_team_ids(&format!("{field}.team_ids"), team_ids))?;
        let names = problems.collect(parse_names(&format!("{field}.permissions"), permissions))?;
        problems.finish()?;
        Ok(Self { team_ids: teams.unwrap_or_default(), permissions: names.unwrap_or_default() })
    }

    /// Returns the team scope that the store holds; `None` if either list is empty (P4).
    #[must_use]
    pub fn from_stored(team_ids: BTreeSet<TeamId>, permissions: BTreeSet<String>) -> Option<Self> {
        (!team_ids.is_empty() && !permissions.is_empty()).then_some(Self { team_ids, permissions })
    }

    /// Returns the teams, never none.
    #[must_use]
    pub fn team_ids(&self) -> &BTreeSet<TeamId> {
        &self.team_ids
    }

    /// Returns the permissions by name, never none.
    #[must_use]
    pub fn permissions(&self) -> &BTreeSet<String> {
        &self.permissions
    }

    /// Returns the names that are new on some team.
    fn added_names<'a>(&'a self, before: Option<&'a Self>) -> impl Iterator<Item = &'a String> {
        let kept = before.filter(|before| self.team_ids.is_subset(&before.team_ids));
        self.permissions.iter().filter(move |name| kept.is_none_or(|kept| !kept.permissions.contains(*name)))
    }

    /// Returns the scope without a team; `None` if that was the last one (A5).
    #[must_use]
    pub fn without(mut self, team: &TeamId) -> Option<Self> {
        self.team_ids.remove(team);
        Self::from_stored(self.team_ids, self.permissions)
    }
}

impl Grants {
    /// Reports whether a permission is named, at either scope, whether or not it confers anything now.
    #[must_use]
    pub fn names(&self, permission: &str) -> bool {
        self.account_permissions.contains(permission)
            || self.team_scope.as_ref().is_some_and(|scope| scope.permissions.contains(permission))
    }

    /// Refuses what an edit adds but that cannot be granted: names that are unknown, retired, not
    /// team-scopable (P1, P5), or of account `system` elsewhere (A4). Such a name confers nothing now, so
    /// confinement lets it pass; it would come into force with a later catalogue. What `before` had may stay
    /// where it is. A new key has no grants before. This is validation against state: after authority (M8).
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the lists below `field`.
    pub fn check_grantable(
        &self,
        field: &str,
        before: &Self,
        account_id: &AccountId,
        catalogue: &Catalogue,
    ) -> Result<(), Error> {
        let mut problems = Violated::default();
        for name in self.account_permissions.difference(&before.account_permissions) {
            let list = format!("{field}.account_permissions");
            if super::catalogue::is_system(name) && !account_id.is_system() {
                problems.add(list, format!("`{name}` is held only by keys of account `system`"));
            } else if catalogue.bit(name).is_none() {
                problems.add(list, format!("`{name}` is not in the catalogue, or retired"));
            }
        }
        let scopable = catalogue.names(&catalogue.team_scopable());
        for name in self.team_scope.iter().flat_map(|scope| scope.added_names(before.team_scope.as_ref())) {
            if !scopable.contains(name) {
                let list = format!("{field}.team_scope.permissions");
                problems
                    .add(list, format!("`{name}` cannot be granted on teams: unknown, retired or for accounts only"));
            }
        }
        problems.finish()
    }
}

/// Checks a list of team ids: well-formed, none twice, at most [`TEAMS_MAX`].
///
/// # Errors
/// [`Error::Invalid`] naming `field[i]`.
pub fn parse_team_ids(field: &str, team_ids: &[String]) -> Result<BTreeSet<TeamId>, Error> {
    parse_set(field, team_ids, TEAMS_MAX, TeamId::parse)
}

/// Checks a list of permission names: well-formed, none twice.
///
/// # Errors
/// [`Error::Invalid`] naming `field[i]`.
pub fn parse_names(field: &str, names: &[String]) -> Result<BTreeSet<String>, Error> {
    parse_set(field, names, NAMES_MAX, |field, name| permission::check_name(field, name).map(|()| name.to_owned()))
}

fn parse_set<T: Ord>(
    field: &str,
    items: &[String],
    max: usize,
    parse: impl Fn(&str, &str) -> Result<T, Error>,
) -> Result<BTreeSet<T>, Error> {
    if items.len() > max {
        return Err(Error::field(field, format!("must have at most {max} entries (got {})", items.len())));
    }
    let mut problems = Violated::default();
    let mut set = BTreeSet::new();
    for (i, item) in items.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if let Some(value) = problems.collect(parse(&field, item))?
            && !set.insert(value)
        {
            problems.add(field, "is listed twice");
        }
    }
    problems.finish()?;
    Ok(set)
}

/// What a key's grants amount to: closed sets (P2). The one form in which authority is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Account-wide, hence on every team (P3).
    pub account: PermissionSet,
    /// On single teams, beside `account`.
    pub teams: BTreeMap<TeamId, PermissionSet>,
}

impl Held {
    /// Returns what grants amount to under a catalogue. In a team scope only team-scopable permissions
    /// count (P5), whatever was stored.
    #[must_use]
    pub fn of(grants: &Grants, catalogue: &Catalogue) -> Self {
        let account = catalogue.closed(grants.account_permissions.iter().map(String::as_str));
        let teams = grants.team_scope.iter().flat_map(|scope| {
            let names = scope.permissions.iter().map(String::as_str);
            let closed = catalogue.closed_on_team(names);
            scope.team_ids.iter().map(move |team| (team.clone(), closed))
        });
        Self { account, teams: teams.collect() }
    }

    /// Returns everything held on a team, the account-wide permissions included (P3).
    #[must_use]
    pub fn on(&self, team: &TeamId) -> PermissionSet {
        self.teams.get(team).map_or(self.account, |set| self.account.union(set))
    }

    /// Reports whether it is held account-wide or on any team.
    #[must_use]
    pub fn anywhere(&self, bit: Bit) -> bool {
        self.account.contains(bit) || self.teams.values().any(|set| set.contains(bit))
    }

    /// Returns the (scope, permission) pairs of `self` that `before` lacks: what an edit adds (M4).
    #[must_use]
    pub fn added_since(&self, before: &Self) -> Self {
        let teams = self.teams.iter().filter_map(|(team, set)| {
            let added = set.difference(&before.on(team));
            (!added.is_empty()).then(|| (team.clone(), added))
        });
        Self { account: self.account.difference(&before.account), teams: teams.collect() }
    }

    /// Reports whether there is no pair in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.account.is_empty() && self.teams.values().all(PermissionSet::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k2_a_team_scope_has_teams_and_permissions() {
        let strings = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (teams, names, field) in [
            (strings(&[]), strings(&["a"]), "team_scope.team_ids"),
            (strings(&["t"]), strings(&[]), "team_scope.permissions"),
            (strings(&["t", "t"]), strings(&["a"]), "team_scope.team_ids[1]"),
            (strings(&["t", "u u"]), strings(&["a"]), "team_scope.team_ids[1]"),
            (strings(&["t"]), strings(&["a", "B"]), "team_scope.permissions[1]"),
        ] {
            let error = TeamScope::parse("team_scope", &teams, &names).expect_err(field);
            assert!(error.to_string().contains(field), "{error}");
        }
        assert!(TeamScope::parse("team_scope", &strings(&["t"]), &strings(&["a"])).is_ok());
    }

    #[test]
    fn p1_a_name_that_cannot_be_granted_may_stay_but_not_be_added() {
        use crate::domain::{
            log::revision::Revision,
            permissions::catalogue::{Permission, PermissionSpec},
        };
        let permission = |(i, (name, team_scopable, retired)): (usize, (&str, bool, bool))| Permission {
            spec: PermissionSpec {
                name: name.into(),
                description: String::new(),
                team_scopable,
                implies: vec![],
                retired,
            },
            bit: Bit::catalogue(i as u16).expect("few"),
        };
        let all = [("wide", false, false), ("narrow", true, false), ("old", true, true)];
        let permissions = all.into_iter().enumerate().map(permission).collect();
        let catalogue = Catalogue::new(Revision { epoch: 1, number: 1 }, permissions);
        let strings = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let grants = |account: &[&str], teams: &[&str], names: &[&str]| Grants {
            account_permissions: strings(account).into_iter().collect(),
            team_scope: TeamScope::parse("s", &strings(teams), &strings(names)).ok(),
        };
        let check = |account: &str, before: &Grants, after: &Grants| {
            after.check_grantable("api_key", before, &AccountId::from_stored(account), &catalogue).is_ok()
        };
        let none = Grants::default();
        assert!(check("acme", &none, &grants(&["wide", "narrow"], &["t"], &["narrow"])));
        assert!(check("system", &none, &grants(&["system.verify"], &[], &[])));
        assert!(!check("acme", &none, &grants(&["system.verify"], &[], &[])));
        assert!(!check("system", &none, &grants(&["system.other"], &[], &[])));
        for name in ["old", "unknown"] {
            assert!(!check("acme", &none, &grants(&[name], &[], &[])), "{name}");
            // It may stay where it is, or go, but not to another team or scope.
            let before = grants(&[name], &["t", "u"], &[name, "narrow"]);
            assert!(check("acme", &before, &before));
            assert!(check("acme", &before, &grants(&["wide"], &["t"], &[name])));
            assert!(!check("acme", &before, &grants(&[], &["t", "v"], &[name])));
            assert!(!check("acme", &grants(&[name], &[], &[]), &grants(&[], &["t"], &[name])));
            assert!(!check("acme", &grants(&[], &["t"], &[name]), &grants(&[name], &[], &[])));
        }
        for name in ["wide", "system.verify", "unknown", "old"] {
            assert!(!check("system", &none, &grants(&[], &["t"], &[name])), "{name}");
        }
    }

    #[test]
    fn a5_a_scope_without_its_last_team_is_none() {
        let scope = TeamScope::parse("s", &["t".into(), "u".into()], &["a".into()]).expect("good");
        let one = scope.without(&TeamId::from_stored("t")).expect("u is left");
        assert_eq!(one.without(&TeamId::from_stored("u")), None);
    }
}

//! The catalogue of permissions (P1, P2, P5): what may be granted, and what comes with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::permission::{self, Bit, CATALOGUE_BITS, MANAGE, PermissionSet, ROTATE_SELF, SystemPermission};
use crate::domain::{
    error::{Error, Violated},
    log::revision::Revision,
};

const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// A permission as the operator writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionSpec {
    /// Its name; see [`permission::check_name`].
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether it may be held on single teams (P5).
    pub team_scopable: bool,
    /// Names of permissions that come with it (P2).
    pub implies: Vec<String>,
    /// A retired permission cannot be granted and grants nothing; its name and bit stay taken.
    pub retired: bool,
}

/// A permission with its place in the bitset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What the operator wrote.
    pub spec: PermissionSpec,
    /// Given once, never reused.
    pub bit: Bit,
}

/// All permissions at one revision, with closures worked out.
#[derive(Clone, Debug)]
pub struct Catalogue {
    revision: Revision,
    permissions: Vec<Permission>,
    bits: HashMap<String, Bit>,
    /// By bit: what holding it amounts to. Empty for retired and unassigned bits.
    closures: Vec<PermissionSet>,
    everything: PermissionSet,
    team_scopable: PermissionSet,
}

impl Catalogue {
    /// Creates the catalogue of permissions that [`plan`] accepted.
    #[must_use]
    pub fn new(revision: Revision, mut permissions: Vec<Permission>) -> Self {
        permissions.sort_by_key(|permission| permission.bit);
        let bits: HashMap<_, _> = permissions.iter().map(|p| (p.spec.name.clone(), p.bit)).collect();
        let live = || permissions.iter().filter(|p| !p.spec.retired);
        let everything = live().map(|p| p.bit).collect();
        let team_scopable = live().filter(|p| p.spec.team_scopable).map(|p| p.bit).collect();
        let closures = closures(&permissions, &bits);
        Self { revision, permissions, bits, closures, everything, team_scopable }
    }

    /// Returns the revision of the event that applied it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Returns the permissions in bit order, retired ones included.
    #[must_use]
    pub fn permissions(&self) -> &[Permission] {
        &self.permissions
    }

    /// Returns every permission that can be held, `system.` ones excluded: what the Owner role has (A4).
    #[must_use]
    pub fn everything(&self) -> PermissionSet {
        self.everything
    }

    /// Returns the permissions that may be held on single teams (P5).
    #[must_use]
    pub fn team_scopable(&self) -> PermissionSet {
        self.team_scopable
    }

    /// Returns the bit of a permission that can be granted or required; `None` for unknown and retired ones.
    #[must_use]
    pub fn bit(&self, name: &str) -> Option<Bit> {
        if let Some(system) = SystemPermission::from_name(name) {
            return Some(system.bit());
        }
        self.bits.get(name).copied().filter(|bit| self.everything.contains(*bit))
    }

    /// Returns the bit of any name on record, retired or not: what a requirement may ask for. Asking for a
    /// retired one is no mistake of the verifier's; no token holds it.
    #[must_use]
    pub fn known_bit(&self, name: &str) -> Option<Bit> {
        self.bit(name).or_else(|| self.bits.get(name).copied())
    }

    /// Returns the bit of `api_keys.manage`; `None` if this catalogue has none, and then only
    /// `system.operate` manages keys.
    #[must_use]
    pub fn manage(&self) -> Option<Bit> {
        self.bit(MANAGE)
    }

    /// Returns what holding these names amounts to (P2). Unknown and retired names grant nothing.
    pub fn closed<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> PermissionSet {
        names.into_iter().filter_map(|name| self.bit(name)).fold(PermissionSet::EMPTY, |set, bit| {
            let closure = self.closures.get(usize::from(bit.index())).copied();
            set.union(&closure.unwrap_or_else(|| system_closure(bit)))
        })
    }

    /// Returns what holding these names on a single team amounts to. A name that is not team-scopable grants
    /// nothing there, nor does anything it implies (P5).
    pub fn closed_on_team<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> PermissionSet {
        self.closed(names.into_iter().filter(|name| self.counts_on_teams(name))).intersection(&self.team_scopable)
    }

    /// Reports whether a name can be held on single teams now: live, and team-scopable (P5).
    #[must_use]
    pub fn counts_on_teams(&self, name: &str) -> bool {
        self.bit(name).is_some_and(|bit| self.team_scopable.contains(bit))
    }

    /// Returns the names in a set, in bit order.
    #[must_use]
    pub fn names(&self, set: &PermissionSet) -> Vec<String> {
        let catalogue = self.permissions.iter().filter(|p| set.contains(p.bit)).map(|p| p.spec.name.clone());
        let system = SystemPermission::ALL.into_iter().filter(|p| set.contains(p.bit()));
        catalogue.chain(system.map(|p| p.name().to_owned())).collect()
    }

    /// Returns one name of a set, for an error that names what is missing.
    #[must_use]
    pub fn first_name(&self, set: &PermissionSet) -> Option<String> {
        self.names(set).into_iter().next()
    }
}

fn system_closure(bit: Bit) -> PermissionSet {
    if bit == SystemPermission::Operate.bit() {
        SystemPermission::ALL.into_iter().map(SystemPermission::bit).collect()
    } else {
        PermissionSet::of(bit)
    }
}

fn closures(permissions: &[Permission], bits: &HashMap<String, Bit>) -> Vec<PermissionSet> {
    let mut closures = vec![PermissionSet::EMPTY; usize::from(CATALOGUE_BITS)];
    let live: HashMap<Bit, &Permission> = permissions.iter().filter(|p| !p.spec.retired).map(|p| (p.bit, p)).collect();
    for &start in live.keys() {
        let mut closure = PermissionSet::EMPTY;
        let mut pending = vec![start];
        while let Some(bit) = pending.pop() {
            let Some(permission) = live.get(&bit).filter(|_| !closure.contains(bit)) else { continue };
            closure.insert(bit);
            pending.extend(permission.spec.implies.iter().filter_map(|name| bits.get(name)));
        }
        closures[usize::from(start.index())] = closure;
    }
    closures
}

/// What holding a name by keys and roles of any account means for the next catalogue.
pub trait Usage {
    /// Reports whether a key's team scope or a team role names it.
    fn held_on_teams(&self, name: &str) -> bool;
}

/// Returns the names that are team-scopable and would be so no longer: whether they may is a question of usage (P1).
pub fn losing_team_scopable<'a>(current: &Catalogue, next: &'a [PermissionSpec]) -> impl Iterator<Item = &'a str> {
    let scoped = |name: &str| current.permissions().iter().any(|p| p.spec.name == name && p.spec.team_scopable);
    next.iter().filter(move |spec| !spec.team_scopable && scoped(&spec.name)).map(|spec| spec.name.as_str())
}

/// Judges a new catalogue against the current one and gives bits to new names (P1, P5).
///
/// # Errors
/// [`Error::Invalid`] naming every wrong permission as `catalogue.permissions[i].…`;
/// [`Error::InUse`] if a permission that is held on teams would lose `team_scopable`.
pub fn plan(current: &Catalogue, next: Vec<PermissionSpec>, usage: &dyn Usage) -> Result<Vec<Permission>, Error> {
    check_specs(&next)?;
    let mut problems = Violated::default();
    let named: HashSet<&str> = next.iter().map(|spec| spec.name.as_str()).collect();
    for old in current.permissions().iter().filter(|p| !named.contains(p.spec.name.as_str())) {
        let name = &old.spec.name;
        problems.add("catalogue.permissions", format!("`{name}` is missing: keep it, or mark it retired"));
    }
    problems.finish()?;
    if let Some(name) = losing_team_scopable(current, &next).find(|name| usage.held_on_teams(name)) {
        return Err(Error::InUse(format!("`{name}` is held on teams, so it cannot lose team_scopable")));
    }
    let first_free = current.permissions().iter().map(|p| p.bit.index() + 1).max().unwrap_or(0);
    let mut free = (first_free..).map_while(Bit::catalogue);
    next.into_iter()
        .map(|spec| {
            let known = current.bits.get(&spec.name).copied();
            let bit = known.or_else(|| free.next()).ok_or_else(too_many)?;
            Ok(Permission { spec, bit })
        })
        .collect()
}

fn too_many() -> Error {
    Error::field("catalogue.permissions", "must have at most 256 permissions, retired ones included")
}

fn check_specs(specs: &[PermissionSpec]) -> Result<(), Error> {
    if specs.len() > usize::from(CATALOGUE_BITS) {
        return Err(too_many());
    }
    let mut by_name = BTreeMap::new();
    let mut problems = Violated::default();
    for (i, spec) in specs.iter().enumerate() {
        let field = format!("catalogue.permissions[{i}].name");
        problems.collect(permission::check_name(&field, &spec.name))?;
        if is_system(&spec.name) {
            problems.add(field, "`system.` permissions are built in");
        } else if by_name.insert(spec.name.as_str(), spec).is_some() {
            problems.add(field, "is named twice");
        }
        if spec.description.chars().count() > DESCRIPTION_CHARS_MAX || spec.description.contains('\0') {
            let field = format!("catalogue.permissions[{i}].description");
            problems.add(field, "at most 1,000 characters and no NUL");
        }
    }
    for (i, spec) in specs.iter().enumerate() {
        for (j, implied) in spec.implies.iter().enumerate() {
            if let Some(problem) = implied_problem(spec, implied, &by_name) {
                problems.add(format!("catalogue.permissions[{i}].implies[{j}]"), problem);
            }
        }
    }
    problems.finish()
}

fn implied_problem(spec: &PermissionSpec, implied: &str, by_name: &BTreeMap<&str, &PermissionSpec>) -> Option<String> {
    if implied == MANAGE || implied == ROTATE_SELF || is_system(implied) {
        return Some(format!("no permission may imply `{MANAGE}`, `{ROTATE_SELF}` or a `system.` one"));
    }
    match by_name.get(implied) {
        None => Some("is not in the catalogue".to_owned()),
        Some(target) if target.retired && !spec.retired => Some(format!("`{implied}` is retired")),
        Some(target) if spec.team_scopable && !target.team_scopable => {
            Some(format!("`{}` is team-scopable, so `{implied}` must be too", spec.name))
        }
        Some(_) => None,
    }
}

/// Reports whether the built-in permissions own a name (A4).
#[must_use]
pub fn is_system(name: &str) -> bool {
    name == "system" || name.starts_with("system.")
}

#[cfg(test)]
#[path = "catalogue_tests.rs"]
mod tests;

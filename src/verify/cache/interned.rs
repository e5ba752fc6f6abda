//! What many cached tokens share, kept once: accounts, teams, sets of permissions. Entries name it by number.
//!
//! Numbers are only ever added, so that readers need no lock and what they were given stays. When too much is no
//! longer named by any entry, the cache starts a new [`Interned`] and moves over ([`super::naming`]). How much is kept
//! is counted in bytes, not in items: a list of a thousand teams is one item, and takes as much as a thousand others.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::domain::{
    id::{AccountId, TeamId},
    permissions::{
        catalogue::{Catalogue, Permission},
        permission::PermissionSet,
    },
    verification::TokenFacts,
};

/// At most this many teams are named in the entry itself; a longer scope is kept as one list.
pub(super) const TEAMS_INLINE: usize = 3;
/// In place of a count: says that the first number is that of a list.
const LISTED: u8 = u8::MAX;
/// Beside its own bytes, each item takes a place in an arena, of which up to half are free, and one in a table.
const PLACE_BYTES: usize = 128;
/// What an allocation of its own takes beside its contents: two counts, and what rounding up loses.
const ALLOCATION_BYTES: usize = 24;
const FIRST_CHUNK: usize = 64;
const CHUNKS: usize = 26;

/// The shared parts of one entry, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    pub account: u32,
    pub account_permissions: u32,
    pub team_permissions: u32,
    pub teams: TeamNumbers,
}

/// The teams of an entry, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TeamNumbers {
    count: u8,
    numbers: [u32; TEAMS_INLINE],
}

/// The teams of an entry, one after the other: those that stand in it, or those of its list.
#[derive(Clone)]
pub(crate) struct TeamIds<'a> {
    listed: std::slice::Iter<'a, TeamId>,
    inline: std::ops::Range<u8>,
    numbers: [u32; TEAMS_INLINE],
    arena: &'a Arena<TeamId>,
}

/// Where keys hold a set: the same set is written differently in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Account-wide.
    Account,
    /// On the teams of the key's scope.
    Team,
}

/// A closed set of permissions with the catalogue that names them.
#[derive(Debug)]
pub struct NamedSet {
    permissions: PermissionSet,
    level: Level,
    catalogue: Arc<Catalogue>,
    written: OnceLock<Box<[u8]>>,
    /// The bytes of everything that is kept with it.
    bytes: Arc<AtomicUsize>,
}

/// Everything that cached tokens share, by number.
#[derive(Default)]
pub(crate) struct Interned {
    accounts: Arena<AccountId>,
    teams: Arena<TeamId>,
    team_lists: Arena<Arc<[TeamId]>>,
    sets: Arena<NamedSet>,
    numbers: Mutex<InternedNumbers>,
    bytes: Arc<AtomicUsize>,
}

/// What an item takes beside its place.
trait Weighed {
    fn bytes(&self) -> usize;
}

/// The numbers given so far, for adding more.
#[derive(Default)]
struct InternedNumbers {
    accounts: HashMap<AccountId, u32>,
    teams: HashMap<TeamId, u32>,
    team_lists: HashMap<Arc<[TeamId]>, u32>,
    /// The catalogue's address stands for it: no other gets that address, because the set keeps the catalogue.
    sets: HashMap<(Level, PermissionSet, usize), u32>,
    catalogues: HashSet<usize>,
}

// === impl NamedSet ===

impl NamedSet {
    /// Returns the set, closed (P2).
    #[must_use]
    pub fn permissions(&self) -> &PermissionSet {
        &self.permissions
    }

    /// Returns where it is held.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Returns the catalogue that it is closed under, and that names it.
    #[must_use]
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Returns the bytes that a layer above writes into answers for this set: written once, and kept as long as it.
    pub fn written(&self, write: impl FnOnce(&Self) -> Box<[u8]>) -> &[u8] {
        self.written.get_or_init(|| {
            let written = write(self);
            self.bytes.fetch_add(written.len() + ALLOCATION_BYTES, Ordering::Relaxed);
            written
        })
    }
}

// === impl TeamNumbers ===

impl TeamNumbers {
    pub fn from_numbers(count: u8, numbers: [u32; TEAMS_INLINE]) -> Self {
        Self { count, numbers }
    }

    pub fn count(self) -> u8 {
        self.count
    }

    pub fn numbers(self) -> [u32; TEAMS_INLINE] {
        self.numbers
    }

    /// Reports whether they are kept as a list.
    pub fn are_listed(self) -> bool {
        self.count == LISTED
    }
}

// === impl TeamIds ===

impl<'a> Iterator for TeamIds<'a> {
    type Item = &'a TeamId;

    #[inline]
    fn next(&mut self) -> Option<&'a TeamId> {
        match self.inline.next() {
            Some(place) => Some(self.arena.get(self.numbers[usize::from(place)])),
            None => self.listed.next(),
        }
    }
}

// === impl Interned ===

impl Interned {
    /// Returns how many bytes everything kept takes, or slightly fewer.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn account(&self, number: u32) -> &AccountId {
        self.accounts.get(number)
    }

    pub fn set(&self, number: u32) -> &NamedSet {
        self.sets.get(number)
    }

    /// Returns an entry's teams, in their order.
    #[inline]
    pub fn teams(&self, teams: TeamNumbers) -> TeamIds<'_> {
        let (listed, inline): (&[TeamId], _) = match teams.count {
            LISTED => (self.team_lists.get(teams.numbers[0]), 0),
            count => (&[], count),
        };
        TeamIds { listed: listed.iter(), inline: 0..inline, numbers: teams.numbers, arena: &self.teams }
    }

    /// Reports whether a team is among an entry's, by the bytes of its id. A long list is in order, and searched.
    #[inline]
    pub fn holds_team(&self, teams: TeamNumbers, team: &[u8]) -> bool {
        if teams.count == LISTED {
            let list = self.team_lists.get(teams.numbers[0]);
            return list.binary_search_by(|held| held.as_str().as_bytes().cmp(team)).is_ok();
        }
        self.teams(teams).any(|held| held.as_str().as_bytes() == team)
    }

    /// Keeps what an entry shares.
    pub fn intern(&self, facts: &TokenFacts, catalogue: &Arc<Catalogue>) -> Names {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut set = |level, permissions| self.set_number(&mut numbers, level, permissions, catalogue);
        let account_permissions = set(Level::Account, facts.account_permissions);
        let team_permissions = set(Level::Team, facts.team_permissions);
        let teams = if facts.team_ids.len() <= TEAMS_INLINE {
            let mut inline = [0; TEAMS_INLINE];
            for (number, team) in inline.iter_mut().zip(facts.team_ids.iter()) {
                *number = self.add(&mut numbers.teams, &self.teams, team);
            }
            TeamNumbers { count: facts.team_ids.len() as u8, numbers: inline }
        } else {
            let list = self.add(&mut numbers.team_lists, &self.team_lists, &facts.team_ids);
            TeamNumbers { count: LISTED, numbers: [list, 0, 0] }
        };
        let account = self.add(&mut numbers.accounts, &self.accounts, &facts.account_id);
        Names { account, account_permissions, team_permissions, teams }
    }

    /// Keeps what an entry shares, taken from another `Interned`, which named it by `names`.
    pub fn adopt(&self, other: &Self, names: &Names) -> Names {
        let mut numbers = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut set = |number| {
            let set = other.set(number);
            self.set_number(&mut numbers, set.level, set.permissions, &set.catalogue)
        };
        let account_permissions = set(names.account_permissions);
        let team_permissions = set(names.team_permissions);
        let mut teams = names.teams;
        match teams.count {
            LISTED => {
                let list = other.team_lists.get(teams.numbers[0]);
                teams.numbers[0] = self.add(&mut numbers.team_lists, &self.team_lists, list);
            }
            count => {
                for number in &mut teams.numbers[..usize::from(count)] {
                    *number = self.add(&mut numbers.teams, &self.teams, other.teams.get(*number));
                }
            }
        }
        let account = self.add(&mut numbers.accounts, &self.accounts, other.account(names.account));
        Names { account, account_permissions, team_permissions, teams }
    }

    fn add<T: Clone + Eq + Hash + Weighed>(&self, numbers: &mut HashMap<T, u32>, arena: &Arena<T>, item: &T) -> u32 {
        if let Some(number) = numbers.get(item) {
            return *number;
        }
        let number = number_after(numbers.len());
        arena.put(number, item.clone());
        numbers.insert(item.clone(), number);
        self.bytes.fetch_add(PLACE_BYTES + item.bytes(), Ordering::Relaxed);
        number
    }

    fn set_number(
        &self,
        numbers: &mut InternedNumbers,
        level: Level,
        permissions: PermissionSet,
        catalogue: &Arc<Catalogue>,
    ) -> u32 {
        let address = Arc::as_ptr(catalogue) as usize;
        let key = (level, permissions, address);
        if let Some(number) = numbers.sets.get(&key) {
            return *number;
        }
        let number = number_after(numbers.sets.len());
        let mut bytes = 2 * (PLACE_BYTES + size_of::<NamedSet>());
        if numbers.catalogues.insert(address) {
            bytes += PLACE_BYTES + catalogue.bytes();
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let (catalogue, written, bytes) = (catalogue.clone(), OnceLock::new(), self.bytes.clone());
        self.sets.put(number, NamedSet { permissions, level, catalogue, written, bytes });
        numbers.sets.insert(key, number);
        number
    }
}

fn number_after(count: usize) -> u32 {
    u32::try_from(count).expect("the cache starts afresh long before")
}

// === impl Weighed ===

impl Weighed for AccountId {
    fn bytes(&self) -> usize {
        self.as_str().len() + ALLOCATION_BYTES
    }
}

impl Weighed for TeamId {
    fn bytes(&self) -> usize {
        self.as_str().len() + ALLOCATION_BYTES
    }
}

impl Weighed for Arc<[TeamId]> {
    fn bytes(&self) -> usize {
        self.iter().map(|team| size_of::<TeamId>() + team.bytes()).sum::<usize>() + ALLOCATION_BYTES
    }
}

impl Weighed for Catalogue {
    /// Estimates its bytes: names stand in it twice, and each permission has its closure.
    fn bytes(&self) -> usize {
        let of_permission = |permission: &Permission| {
            let spec = &permission.spec;
            let implied: usize = spec.implies.iter().map(|name| PLACE_BYTES + name.len()).sum();
            2 * (PLACE_BYTES + spec.name.len()) + spec.description.len() + implied + size_of::<PermissionSet>()
        };
        size_of::<Self>() + self.permissions().iter().map(of_permission).sum::<usize>()
    }
}

/// Items by number, in chunks that never move.
struct Arena<T> {
    /// Each holds twice as many as the one before.
    chunks: [OnceLock<Box<[OnceLock<T>]>>; CHUNKS],
}

impl<T> Default for Arena<T> {
    fn default() -> Self {
        Self { chunks: std::array::from_fn(|_| OnceLock::new()) }
    }
}

impl<T> Arena<T> {
    #[inline]
    fn get(&self, number: u32) -> &T {
        let (chunk, place) = place_of(number);
        let kept = self.chunks[chunk].get().and_then(|chunk| chunk[place].get());
        kept.expect("an entry names only what was kept before it")
    }

    fn put(&self, number: u32, item: T) {
        let (chunk, place) = place_of(number);
        let empty = || (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect();
        let taken = self.chunks[chunk].get_or_init(empty)[place].set(item);
        debug_assert!(taken.is_ok(), "numbers are given once");
    }
}

#[inline]
fn place_of(number: u32) -> (usize, usize) {
    let shifted = number as usize + FIRST_CHUNK;
    let chunk = (shifted / FIRST_CHUNK).ilog2() as usize;
    (chunk, shifted - (FIRST_CHUNK << chunk))
}

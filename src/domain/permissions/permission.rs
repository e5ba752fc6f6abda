//! Permission names and sets. A set is a bitset over the catalogue's bits (P1).

use crate::domain::error::Error;

/// Manages keys: the permission that M1-M9 turn on.
pub const MANAGE: &str = "api_keys.manage";
/// Lets a key rotate itself (M6).
pub const ROTATE_SELF: &str = "api_keys.rotate_self";

/// The catalogue's permissions have bits below this (P1).
pub const CATALOGUE_BITS: u16 = 256;

/// The built-in permissions of account `system` (A3), above the catalogue's bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SystemPermission {
    /// `system.verify`: verify tokens.
    Verify = CATALOGUE_BITS,
    /// `system.directory`: write accounts, teams, roles and users.
    Directory,
    /// `system.impersonate`: act for a user.
    Impersonate,
    /// `system.events`: read every account's log.
    Events,
    /// `system.report_leaks`: report leaked tokens.
    ReportLeaks,
    /// `system.operate`: implies the others, and everything in every account for Latchkey's own calls.
    Operate,
}

impl SystemPermission {
    /// All of them, in bit order.
    pub const ALL: [Self; 6] =
        [Self::Verify, Self::Directory, Self::Impersonate, Self::Events, Self::ReportLeaks, Self::Operate];

    /// Returns its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verify => "system.verify",
            Self::Directory => "system.directory",
            Self::Impersonate => "system.impersonate",
            Self::Events => "system.events",
            Self::ReportLeaks => "system.report_leaks",
            Self::Operate => "system.operate",
        }
    }

    /// Returns the permission of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.name() == name)
    }

    /// Returns its bit in a [`PermissionSet`].
    #[must_use]
    pub const fn bit(self) -> Bit {
        Bit(self as u16)
    }
}

/// A permission's place in a [`PermissionSet`]; never reused (P1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bit(u16);

impl Bit {
    /// Returns a catalogue permission's bit; `None` at 256 and above.
    #[must_use]
    pub const fn catalogue(index: u16) -> Option<Self> {
        if index < CATALOGUE_BITS { Some(Self(index)) } else { None }
    }

    /// Returns the bit's index.
    #[must_use]
    pub const fn index(self) -> u16 {
        self.0
    }
}

const WORDS: usize = 5;

/// A set of permissions. The empty set grants nothing (P4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PermissionSet([u64; WORDS]);

impl PermissionSet {
    /// Grants nothing (P4).
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Returns the set of one permission.
    #[must_use]
    pub fn of(bit: Bit) -> Self {
        let mut set = Self::EMPTY;
        set.insert(bit);
        set
    }

    /// Adds one.
    pub fn insert(&mut self, bit: Bit) {
        self.0[usize::from(bit.0) / 64] |= 1 << (bit.0 % 64);
    }

    /// Reports whether it holds `bit`.
    #[must_use]
    pub const fn contains(&self, bit: Bit) -> bool {
        self.0[bit.0 as usize / 64] >> (bit.0 % 64) & 1 == 1
    }

    /// Reports whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Returns every permission that is in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// Returns every permission that is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & other.0[i]))
    }

    /// Returns every permission of this one that the other lacks.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] & !other.0[i]))
    }

    /// Reports whether the other holds all of it.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// Returns its bits, in rising order.
    pub fn iter(&self) -> impl Iterator<Item = Bit> + '_ {
        (0..(WORDS * 64) as u16).map(Bit).filter(|bit| self.contains(*bit))
    }
}

impl FromIterator<Bit> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Bit>>(bits: I) -> Self {
        let mut set = Self::EMPTY;
        bits.into_iter().for_each(|bit| set.insert(bit));
        set
    }
}

const NAME_BYTES_MAX: usize = 64;

/// Checks the shape of a permission's name (P1): `^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$`, at most 64 bytes.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn check_name(field: &str, name: &str) -> Result<(), Error> {
    let part_ok = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(part_ok) {
        Ok(())
    } else {
        Err(Error::field(field, "must be a permission name: lower-case parts joined by dots, at most 64 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p1_names_have_one_shape() {
        for good in ["a", "incidents.view", "a1_b.c_2.d", &"a".repeat(64)] {
            assert!(check_name("name", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "a.", ".a", "A", "1a", "a..b", "a.1b", "a-b", "a b", "é", "_a", "a._b", &"a".repeat(65)] {
            assert!(check_name("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn system_permissions_lie_above_the_catalogue() {
        for permission in SystemPermission::ALL {
            assert!(permission.bit().index() >= CATALOGUE_BITS);
            assert_eq!(SystemPermission::from_name(permission.name()), Some(permission));
        }
        assert_eq!(Bit::catalogue(CATALOGUE_BITS), None);
    }

    #[test]
    fn p4_the_empty_set_holds_nothing() {
        assert_eq!(PermissionSet::EMPTY.iter().count(), 0);
        assert!(PermissionSet::EMPTY.is_subset(&PermissionSet::EMPTY));
    }
}

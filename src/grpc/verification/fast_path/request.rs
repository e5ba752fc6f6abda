//! Parses requests in place, without copying. Parses only well-formed requests; returns `None` so that the slow path
//! reports the error.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::{
    ablation::{Mechanism, without},
    app::Question,
    domain::{
        id::is_external_id,
        permissions::{grants::TEAMS_MAX, permission::Bit},
        verification::{OwningTeams, Requirement},
    },
};

/// Checks that one message may contain; a larger message is left to the slow path, which refuses it.
const CHECKS_MAX: usize = 1_000;

/// The number of slots: before a requirement is parsed, it is compared with the latest one in its slot.
const REQUIREMENT_SLOTS: usize = 64;
/// 2^64 divided by the golden ratio, for Fibonacci hashing.
const FIBONACCI_MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// The field number of `Requirement.team_ids`.
const TEAM_IDS: u32 = 3;
/// The usual minimum size of a check with a requirement, to preallocate the list of checks.
const CHECK_BYTES_USUAL: usize = 64;

/// A requirement that borrows its names from the request.
pub type RequirementView<'a> = Requirement<&'a str, TeamIdsView<'a>>;

/// The team ids of a parsed Requirement, left in its bytes.
#[derive(Clone, Copy)]
pub struct TeamIdsView<'a> {
    requirement: &'a [u8],
}

/// A parsed VerifyTokenRequest.
pub struct CheckView<'a> {
    pub token: &'a [u8],
    requirement: Option<&'a [u8]>,
}

/// A parsed VerifyTokensRequest or StreamVerifyTokensRequest.
pub struct BatchView<'a> {
    /// Zero unless it was streamed.
    pub correlation_id: u64,
    checks: Vec<(&'a [u8], Option<usize>)>,
    /// Parsed requirements, each with its bytes: the same bytes need not be parsed again.
    requirements: Vec<(&'a [u8], RequirementView<'a>)>,
    /// By slot, the index of the latest requirement.
    latest: [u16; REQUIREMENT_SLOTS],
    /// The permission that was looked up last.
    permission: Option<(&'a [u8], Bit)>,
}

/// Iterates over the fields of an encoded message.
struct FieldReader<'a>(&'a [u8]);

/// The value of a field, of the two wire types that these messages use.
enum FieldValue<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> FieldReader<'a> {
    /// Reads the next field: `None` at the end, `Some(None)` for a malformed field or an unknown wire type.
    fn next(&mut self) -> Option<Option<(u32, FieldValue<'a>)>> {
        if self.0.is_empty() { None } else { Some(self.read()) }
    }

    /// Reads the next field of a message that has only strings and messages.
    fn next_bytes(&mut self) -> Option<Option<(u32, &'a [u8])>> {
        let field = self.next()?;
        Some(field.and_then(
            |(number, value)| if let FieldValue::Bytes(bytes) = value { Some((number, bytes)) } else { None },
        ))
    }

    fn read(&mut self) -> Option<(u32, FieldValue<'a>)> {
        let (number, wire_type) = decode_key(&mut self.0).ok()?;
        match wire_type {
            WireType::Varint => Some((number, FieldValue::Number(decode_varint(&mut self.0).ok()?))),
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                let (value, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Some((number, FieldValue::Bytes(value)))
            }
            _ => None,
        }
    }
}

/// Stores a singular field; `None` if it occurs twice.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

impl OwningTeams for TeamIdsView<'_> {
    fn any(&self, mut is: impl FnMut(&[u8]) -> bool) -> bool {
        let mut fields = FieldReader(self.requirement);
        while let Some(Some((field, value))) = fields.next_bytes() {
            if field == TEAM_IDS && is(value) {
                return true;
            }
        }
        false
    }
}

impl<'a> CheckView<'a> {
    /// Parses a VerifyTokenRequest.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (token, requirement) = read_check(message)?;
        Some(Self { token, requirement })
    }

    /// Parses the requirement, if there is one; `None` if it is not well-formed.
    pub fn requirement(&self, known: impl Fn(&str) -> Option<Bit>) -> Option<Option<RequirementView<'a>>> {
        match self.requirement {
            Some(requirement) => read_requirement(requirement, |name| known(str::from_utf8(name).ok()?)).map(Some),
            None => Some(None),
        }
    }
}

impl<'a> BatchView<'a> {
    fn of_message(message: &[u8]) -> Self {
        let checks = Vec::with_capacity((message.len() / CHECK_BYTES_USUAL).min(CHECKS_MAX));
        Self { correlation_id: 0, checks, requirements: vec![], latest: [0; REQUIREMENT_SLOTS], permission: None }
    }

    /// Parses a VerifyTokensRequest.
    pub fn read(message: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<Self> {
        let (mut batch, mut fields) = (Self::of_message(message), FieldReader(message));
        while let Some(field) = fields.next() {
            let (1, FieldValue::Bytes(check)) = field? else { return None };
            batch.add(check, &known)?;
        }
        batch.if_any()
    }

    /// Parses a StreamVerifyTokensRequest.
    pub fn read_message(message: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<Self> {
        let (mut batch, mut fields) = (Self::of_message(message), FieldReader(message));
        while let Some(field) = fields.next() {
            match field? {
                (1, FieldValue::Number(correlation_id)) => batch.correlation_id = correlation_id,
                (2, FieldValue::Bytes(check)) => batch.add(check, &known)?,
                _ => return None,
            }
        }
        batch.if_any()
    }

    fn add(&mut self, check: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<()> {
        if self.checks.len() == CHECKS_MAX {
            return None;
        }
        let (token, requirement) = read_check(check)?;
        let requirement = match requirement {
            None => None,
            Some(requirement) => Some(self.requirement(requirement, known)?),
        };
        self.checks.push((token, requirement));
        Some(())
    }

    /// Returns the index of a requirement, parsing it if it is new. Most batches repeat a few requirements for many
    /// tokens.
    fn requirement(&mut self, bytes: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<usize> {
        if without(Mechanism::RequirementMemo) {
            self.requirements.reserve(self.checks.capacity() - self.requirements.len());
            let requirement = read_requirement(bytes, |name| known(str::from_utf8(name).ok()?))?;
            self.requirements.push((bytes, requirement));
            return Some(self.requirements.len() - 1);
        }
        let requirement_slot = requirement_slot(bytes);
        let latest = usize::from(self.latest[requirement_slot]);
        if self.requirements.get(latest).is_some_and(|(same, _)| *same == bytes) {
            return Some(latest);
        }
        let place = self.requirements.len();
        let remembered = &mut self.permission;
        let bit = |name: &'a [u8]| match remembered {
            Some((last, bit)) if *last == name => Some(*bit),
            _ => Some(remembered.insert((name, known(str::from_utf8(name).ok()?)?)).1),
        };
        self.requirements.push((bytes, read_requirement(bytes, bit)?));
        self.latest[requirement_slot] = u16::try_from(place).ok()?;
        Some(place)
    }

    fn if_any(self) -> Option<Self> {
        (!self.checks.is_empty()).then_some(self)
    }

    pub fn questions(&self) -> Vec<Question<'_, &'a str, TeamIdsView<'a>>> {
        let requirement = |place: Option<usize>| place.map(|place| &self.requirements[place].1);
        self.checks.iter().map(|(token, place)| Question { token, requirement: requirement(*place) }).collect()
    }
}

/// Reads the correlation id of a streamed message whatever else is in it; `None` if the bytes are not a valid message.
pub fn correlation_id(message: &[u8]) -> Option<u64> {
    let (mut bytes, mut found) = (message, 0);
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).ok()?;
        if (number, wire_type) == (1, WireType::Varint) {
            found = decode_varint(&mut bytes).ok()?;
        } else {
            skip_field(wire_type, number, &mut bytes, DecodeContext::default()).ok()?;
        }
    }
    Some(found)
}

/// Hashes a requirement to its slot, from the words at its beginning, middle and end, where the account, the permission
/// and a team stand.
fn requirement_slot(requirement: &[u8]) -> usize {
    let word = |start: usize| {
        let bytes = requirement.get(start..start + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let len = requirement.len();
    let words = [word(2), word(len / 2), word(len.saturating_sub(8))];
    let mixed =
        words.iter().fold(len as u64, |mixed, word| (mixed ^ word).wrapping_mul(FIBONACCI_MULTIPLIER).rotate_right(29));
    (mixed.wrapping_mul(FIBONACCI_MULTIPLIER) >> (64 - REQUIREMENT_SLOTS.ilog2())) as usize
}

/// Splits a message into its token and its requirement: the same fields in VerifyTokenRequest and TokenCheck.
fn read_check(message: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut token, mut requirement) = (None, None);
    let mut fields = FieldReader(message);
    while let Some(field) = fields.next_bytes() {
        match field? {
            (1, value) => once(&mut token, value)?,
            (2, value) => once(&mut requirement, value)?,
            // `min_revision` may have to be waited for, so the slow path handles it.
            _ => return None,
        }
    }
    let token = token.unwrap_or_default();
    // Invalid UTF-8 is an error of the request, not a malformed token.
    (token.is_ascii() || str::from_utf8(token).is_ok()).then_some((token, requirement))
}

/// Parses a requirement. `known` returns the bit of a permission of the catalogue, whose name is therefore valid.
fn read_requirement<'a>(message: &'a [u8], known: impl FnOnce(&'a [u8]) -> Option<Bit>) -> Option<RequirementView<'a>> {
    let (mut account, mut permission) = (None, None);
    let mut teams = 0;
    let mut fields = FieldReader(message);
    while let Some(field) = fields.next_bytes() {
        match field? {
            (1, value) => once(&mut account, value)?,
            (2, value) => once(&mut permission, value)?,
            (TEAM_IDS, value) => {
                read_id(value)?;
                teams += 1;
            }
            _ => return None,
        }
    }
    let account_id = read_id(account?)?;
    let permission = known(permission?)?;
    let team_ids = TeamIdsView { requirement: message };
    (teams <= TEAMS_MAX).then_some(Requirement { account_id, permission, team_ids })
}

fn read_id(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|id| is_external_id(id))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

//! Requests as they are on the wire, read without a copy. Reads only what is as it should be: `None` is for whoever
//! explains what is not.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::{
    app::Question,
    domain::{
        id::is_external_id,
        permissions::{grants::TEAMS_MAX, permission::Bit},
        verification::{OwningTeams, Requirement},
    },
};

/// Questions that one message may ask: the next is left to whoever says that.
const CHECKS_MAX: usize = 1_000;

/// A requirement is compared with one of the earlier ones before it is read: with the latest of its kind, of so many.
const REQUIREMENT_KINDS: usize = 64;
/// 2^64 over the golden ratio: spreads every bit of a word into the top ones.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// Of a Requirement, the field.
const TEAM_IDS: u32 = 3;
/// What a check with a requirement mostly has at least: room is made for so many as a message may hold.
const CHECK_BYTES_USUAL: usize = 64;

/// What a token must be good for, in the request's own words.
pub type Needed<'a> = Requirement<&'a str, NamedTeams<'a>>;

/// The team ids of a Requirement that was read: they stay in its bytes.
#[derive(Clone, Copy)]
pub struct NamedTeams<'a> {
    requirement: &'a [u8],
}

/// The one question of a VerifyTokenRequest.
pub struct Single<'a> {
    pub token: &'a [u8],
    requirement: Option<&'a [u8]>,
}

/// The questions of a VerifyTokensRequest, or of a message of a stream.
pub struct Batch<'a> {
    /// Of a message of a stream.
    pub correlation_id: u64,
    checks: Vec<(&'a [u8], Option<usize>)>,
    /// With the bytes that it was read from: the same again need not be read again.
    requirements: Vec<(&'a [u8], Needed<'a>)>,
    /// By kind, the place of the latest requirement.
    latest: [u16; REQUIREMENT_KINDS],
    /// The latest permission that was looked up.
    permission: Option<(&'a [u8], Bit)>,
}

/// A message's fields, by their numbers.
struct Fields<'a>(&'a [u8]);

/// A field's value, of the two kinds that ours have.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    /// The next field; `None` at the end, `Some(None)` for what is garbled or new.
    fn next(&mut self) -> Option<Option<(u32, Value<'a>)>> {
        if self.0.is_empty() { None } else { Some(self.read()) }
    }

    /// The same where all fields are texts or messages.
    fn next_bytes(&mut self) -> Option<Option<(u32, &'a [u8])>> {
        let field = self.next()?;
        Some(
            field
                .and_then(|(number, value)| if let Value::Bytes(bytes) = value { Some((number, bytes)) } else { None }),
        )
    }

    fn read(&mut self) -> Option<(u32, Value<'a>)> {
        let (number, wire_type) = decode_key(&mut self.0).ok()?;
        match wire_type {
            WireType::Varint => Some((number, Value::Number(decode_varint(&mut self.0).ok()?))),
            WireType::LengthDelimited => {
                let len = usize::try_from(decode_varint(&mut self.0).ok()?).ok()?;
                let (value, rest) = self.0.split_at_checked(len)?;
                self.0 = rest;
                Some((number, Value::Bytes(value)))
            }
            _ => None,
        }
    }
}

/// Takes a field that may stand once.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

impl OwningTeams for NamedTeams<'_> {
    fn any(&self, mut is: impl FnMut(&[u8]) -> bool) -> bool {
        let mut fields = Fields(self.requirement);
        while let Some(Some((field, value))) = fields.next_bytes() {
            if field == TEAM_IDS && is(value) {
                return true;
            }
        }
        false
    }
}

impl<'a> Single<'a> {
    /// Reads a VerifyTokenRequest.
    pub fn read(message: &'a [u8]) -> Option<Self> {
        let (token, requirement) = read_check(message)?;
        Some(Self { token, requirement })
    }

    /// What the token must be good for, if anything; `None` if that cannot be read.
    pub fn requirement(&self, known: impl Fn(&str) -> Option<Bit>) -> Option<Option<Needed<'a>>> {
        match self.requirement {
            Some(requirement) => read_requirement(requirement, |name| known(str::from_utf8(name).ok()?)).map(Some),
            None => Some(None),
        }
    }
}

impl<'a> Batch<'a> {
    fn of_message(message: &[u8]) -> Self {
        let checks = Vec::with_capacity((message.len() / CHECK_BYTES_USUAL).min(CHECKS_MAX));
        Self { correlation_id: 0, checks, requirements: vec![], latest: [0; REQUIREMENT_KINDS], permission: None }
    }

    /// Reads a VerifyTokensRequest.
    pub fn read(message: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<Self> {
        let (mut batch, mut fields) = (Self::of_message(message), Fields(message));
        while let Some(field) = fields.next() {
            let (1, Value::Bytes(check)) = field? else { return None };
            batch.add(check, &known)?;
        }
        batch.if_any()
    }

    /// Reads a StreamVerifyTokensRequest.
    pub fn read_message(message: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<Self> {
        let (mut batch, mut fields) = (Self::of_message(message), Fields(message));
        while let Some(field) = fields.next() {
            match field? {
                (1, Value::Number(correlation_id)) => batch.correlation_id = correlation_id,
                (2, Value::Bytes(check)) => batch.add(check, &known)?,
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

    /// The place of a requirement. Most batches need a few things of many tokens.
    fn requirement(&mut self, bytes: &'a [u8], known: impl Fn(&str) -> Option<Bit>) -> Option<usize> {
        let kind = kind(bytes);
        let latest = usize::from(self.latest[kind]);
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
        self.latest[kind] = u16::try_from(place).ok()?;
        Some(place)
    }

    fn if_any(self) -> Option<Self> {
        (!self.checks.is_empty()).then_some(self)
    }

    pub fn questions(&self) -> Vec<Question<'_, &'a str, NamedTeams<'a>>> {
        let requirement = |place: Option<usize>| place.map(|place| &self.requirements[place].1);
        self.checks.iter().map(|(token, place)| Question { token, requirement: requirement(*place) }).collect()
    }
}

/// The number of a message of a stream, whatever else is in it; `None` if its bytes are no message.
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

/// What is alike is of one kind, what is not most likely of two. By the beginning, the middle and the end: where an
/// account, a permission and a team stand.
fn kind(requirement: &[u8]) -> usize {
    let word = |start: usize| {
        let bytes = requirement.get(start..start + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let len = requirement.len();
    let words = [word(2), word(len / 2), word(len.saturating_sub(8))];
    let mixed = words.iter().fold(len as u64, |mixed, word| (mixed ^ word).wrapping_mul(SPREAD).rotate_right(29));
    (mixed.wrapping_mul(SPREAD) >> (64 - REQUIREMENT_KINDS.ilog2())) as usize
}

/// A token and what it must be good for: the same fields in a VerifyTokenRequest and a TokenCheck.
fn read_check(message: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (mut token, mut requirement) = (None, None);
    let mut fields = Fields(message);
    while let Some(field) = fields.next_bytes() {
        match field? {
            (1, value) => once(&mut token, value)?,
            (2, value) => once(&mut requirement, value)?,
            // A `min_revision` may have to be waited for.
            _ => return None,
        }
    }
    let token = token.unwrap_or_default();
    // A text that is none is a mistake in the request, not a malformed token.
    (token.is_ascii() || str::from_utf8(token).is_ok()).then_some((token, requirement))
}

/// `known` gives the bit of a permission, if there is one of that name: then the name is of the right form.
fn read_requirement<'a>(message: &'a [u8], known: impl FnOnce(&'a [u8]) -> Option<Bit>) -> Option<Needed<'a>> {
    let (mut account, mut permission) = (None, None);
    let mut teams = 0;
    let mut fields = Fields(message);
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
    let team_ids = NamedTeams { requirement: message };
    (teams <= TEAMS_MAX).then_some(Requirement { account_id, permission, team_ids })
}

fn read_id(value: &[u8]) -> Option<&str> {
    str::from_utf8(value).ok().filter(|id| is_external_id(id))
}

#[cfg(test)]
#[path = "question_tests.rs"]
mod tests;

//! Answers as bytes: the fields of TokenVerification in the order of their numbers, as prost would write them. What
//! all keys with the same permissions have in common was written once, when the first of them was asked for.

use prost::{
    bytes::{BufMut, Bytes},
    encoding::{WireType, encode_key, encode_varint, encoded_len_varint},
};

use super::body::PREFIX_BYTES;
use crate::{
    app::{self, Cached, Level, NamedSet},
    domain::{id::TYPE_ID_BYTES, revision::Revision, time::Timestamp, verification::Outcome},
    grpc::convert::{time::to_timestamp, token::to_outcome},
};

/// An answer of a few permissions and teams, to make room for.
const ANSWER_BYTES: usize = 512;
const CORRELATION_BYTES_MAX: usize = KEY_BYTES + 10;
/// A message's fields, or an answer's, all have numbers below 16: one byte each.
const KEY_BYTES: usize = 1;

mod field {
    pub const OUTCOME: u32 = 1;
    pub const KEY_ID: u32 = 2;
    pub const ACCOUNT_ID: u32 = 3;
    pub const ACCOUNT_PERMISSIONS: u32 = 4;
    pub const TEAM_SCOPE: u32 = 5;
    pub const EXPIRE_TIME: u32 = 6;
    pub const REVISION: u32 = 7;
    pub const STALE: u32 = 8;
    /// Of TeamScope.
    pub const TEAM_IDS: u32 = 1;
    /// Of TeamScope.
    pub const PERMISSIONS: u32 = 2;
    /// `verification` of VerifyTokenResponse and `results` of VerifyTokensResponse.
    pub const ANSWER: u32 = 1;
    /// Of StreamVerifyTokensResponse.
    pub const CORRELATION_ID: u32 = 1;
    /// `results` of StreamVerifyTokensResponse.
    pub const STREAMED_ANSWER: u32 = 2;
}

/// What is written of a verification.
struct Answer<'a> {
    outcome: u64,
    known: Option<Known<'a>>,
    revision: Revision,
    stale: bool,
}

struct Known<'a> {
    cached: &'a Cached<'a>,
    /// Only of what is VALID.
    held: Option<Held<'a>>,
}

struct Held<'a> {
    account_permissions: &'a [u8],
    /// Team ids are written one by one after their length.
    team_scope: Option<(usize, &'a [u8])>,
    expire_time: Option<(i64, i32)>,
}

/// A VerifyTokenResponse with gRPC's prefix: a VerifyTokensResponse of one answer, byte for byte.
pub fn single(answer: &app::Answer<'_>) -> Option<Bytes> {
    let mut one = Many::new(1);
    one.add(Some(answer));
    one.finish()
}

/// A message of many answers, begun.
pub struct Many {
    message: Option<Vec<u8>>,
    field: u32,
}

impl Many {
    /// A VerifyTokensResponse with gRPC's prefix, of so many answers.
    pub fn new(count: usize) -> Self {
        let mut message = Vec::with_capacity(PREFIX_BYTES + count * ANSWER_BYTES);
        message.put_bytes(0, PREFIX_BYTES);
        Self { message: Some(message), field: field::ANSWER }
    }

    /// A StreamVerifyTokensResponse.
    pub fn of_message(correlation_id: u64, count: usize) -> Self {
        let mut message = Vec::with_capacity(CORRELATION_BYTES_MAX + count * ANSWER_BYTES);
        put_number_unless_zero(field::CORRELATION_ID, correlation_id, &mut message);
        Self { message: Some(message), field: field::STREAMED_ANSWER }
    }

    /// Adds the next answer, if it is from memory; else there is no message.
    pub fn add(&mut self, answer: Option<&app::Answer<'_>>) {
        let (Some(message), Some(answer)) = (&mut self.message, answer.map(Answer::of)) else {
            self.message = None;
            return;
        };
        encode_key(self.field, WireType::LengthDelimited, message);
        encode_varint(answer.len() as u64, message);
        answer.write(message);
    }

    /// The VerifyTokensResponse.
    pub fn finish(self) -> Option<Bytes> {
        let mut message = self.message?;
        let len = u32::try_from(message.len() - PREFIX_BYTES).ok()?;
        message[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
        Some(message.into())
    }

    /// The StreamVerifyTokensResponse.
    pub fn finish_message(self) -> Option<Bytes> {
        self.message.map(Bytes::from)
    }
}

impl<'a> Answer<'a> {
    fn of(answer: &'a app::Answer<'a>) -> Self {
        let outcome = answer.outcome();
        let known = answer.cached().map(|cached| {
            let held = (outcome == Outcome::Valid).then(|| Held::of(cached));
            Known { cached, held }
        });
        let outcome = i32::from(to_outcome(outcome)).unsigned_abs().into();
        Self { outcome, known, revision: answer.revision(), stale: answer.stale() }
    }

    fn len(&self) -> usize {
        let known = self.known.as_ref().map_or(0, |known| {
            let ids = text_len(TYPE_ID_BYTES) + text_len(known.cached.account_id().as_str().len());
            ids + known.held.as_ref().map_or(0, Held::len)
        });
        let revision = revision_len(self.revision);
        number_len(self.outcome) + known + text_len(revision) + if self.stale { number_len(1) } else { 0 }
    }

    fn write(&self, out: &mut Vec<u8>) {
        put_number(field::OUTCOME, self.outcome, out);
        if let Some(known) = &self.known {
            put_text(field::KEY_ID, &known.cached.key_id().to_ascii(), out);
            put_text(field::ACCOUNT_ID, known.cached.account_id().as_str().as_bytes(), out);
            if let Some(held) = &known.held {
                held.write(known.cached, out);
            }
        }
        put_length(field::REVISION, revision_len(self.revision), out);
        put_number_unless_zero(1, self.revision.epoch as u64, out);
        put_number_unless_zero(2, self.revision.number as u64, out);
        put_number_unless_zero(field::STALE, u64::from(self.stale), out);
    }
}

impl<'a> Held<'a> {
    fn of(cached: &'a Cached<'a>) -> Self {
        let account_permissions = cached.account_permissions().written(write_names);
        let team_permissions = cached.team_permissions().written(write_names);
        let teams_len = cached.team_ids().map(|team| text_len(team.as_str().len())).sum();
        // Both lists are non-empty or there is no team scope (K2); retiring permissions can empty one.
        let scoped = teams_len > 0 && !team_permissions.is_empty();
        let team_scope = scoped.then_some((teams_len, team_permissions));
        let expire_time = cached.standing().end_time().map(seconds_and_nanos);
        Self { account_permissions, team_scope, expire_time }
    }

    fn len(&self) -> usize {
        let scope = self.team_scope.map_or(0, |(teams, permissions)| text_len(teams + permissions.len()));
        let expire_time = self.expire_time.map_or(0, |end| text_len(timestamp_len(end)));
        self.account_permissions.len() + scope + expire_time
    }

    fn write(&self, cached: &Cached<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.account_permissions);
        if let Some((teams, permissions)) = self.team_scope {
            put_length(field::TEAM_SCOPE, teams + permissions.len(), out);
            for team in cached.team_ids() {
                put_text(field::TEAM_IDS, team.as_str().as_bytes(), out);
            }
            out.extend_from_slice(permissions);
        }
        if let Some(end) = self.expire_time {
            put_length(field::EXPIRE_TIME, timestamp_len(end), out);
            put_number_unless_zero(1, end.0 as u64, out);
            put_number_unless_zero(2, end.1 as u64, out);
        }
    }
}

/// The names of a set, as the fields that answers list them in.
fn write_names(set: &NamedSet) -> Box<[u8]> {
    let number = match set.level() {
        Level::Account => field::ACCOUNT_PERMISSIONS,
        Level::Team => field::PERMISSIONS,
    };
    let mut out = Vec::new();
    for name in set.catalogue().names(set.permissions()) {
        put_text(number, name.as_bytes(), &mut out);
    }
    out.into()
}

fn seconds_and_nanos(time: Timestamp) -> (i64, i32) {
    let time = to_timestamp(time);
    (time.seconds, time.nanos)
}

fn timestamp_len((seconds, nanos): (i64, i32)) -> usize {
    number_len_unless_zero(seconds as u64) + number_len_unless_zero(nanos as u64)
}

fn revision_len(revision: Revision) -> usize {
    number_len_unless_zero(revision.epoch as u64) + number_len_unless_zero(revision.number as u64)
}

fn text_len(bytes: usize) -> usize {
    KEY_BYTES + encoded_len_varint(bytes as u64) + bytes
}

fn number_len(number: u64) -> usize {
    KEY_BYTES + encoded_len_varint(number)
}

fn number_len_unless_zero(number: u64) -> usize {
    if number == 0 { 0 } else { number_len(number) }
}

fn put_length(field: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_text(field: u32, text: &[u8], out: &mut Vec<u8>) {
    put_length(field, text.len(), out);
    out.extend_from_slice(text);
}

fn put_number(field: u32, number: u64, out: &mut Vec<u8>) {
    encode_key(field, WireType::Varint, out);
    encode_varint(number, out);
}

fn put_number_unless_zero(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        put_number(field, number, out);
    }
}

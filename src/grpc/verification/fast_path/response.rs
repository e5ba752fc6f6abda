//! Writes responses as bytes: the fields of TokenVerification in the order of their numbers, as prost would write them.
//! The part that all keys with the same permissions share is prepared when the first of them is verified.

use prost::{
    bytes::{BufMut, Bytes},
    encoding::{WireType, encode_varint, encoded_len_varint},
};

use crate::{
    app::{self, Cached, Level, NamedSet},
    domain::verification::Outcome,
    grpc::{
        convert::{time::to_timestamp, token::to_outcome},
        gate::PREFIX_BYTES,
    },
};

/// The size of an answer with a few permissions and teams, to preallocate.
const ANSWER_BYTES: usize = 512;
const CORRELATION_BYTES_MAX: usize = 11;
/// The size of the length of a VALID answer, which has 128 bytes to 16 KiB.
const ANSWER_LEN_BYTES: usize = 2;
/// The size of a length below 128 bytes.
const SHORT_LEN_BYTES: usize = 1;

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

/// Writes a VerifyTokenResponse with gRPC's prefix. Its bytes are those of a VerifyTokensResponse with one answer.
pub fn single(answer: &app::Answer<'_>) -> Option<Bytes> {
    let mut one = ResponseWriter::new(1);
    one.add(Some(answer));
    one.finish()
}

/// Writes a response of several answers.
pub struct ResponseWriter {
    message: Option<Vec<u8>>,
    field: u32,
}

impl ResponseWriter {
    /// Begins a VerifyTokensResponse with gRPC's prefix, of about `count` answers.
    pub fn new(count: usize) -> Self {
        let mut message = Vec::with_capacity(PREFIX_BYTES + count * ANSWER_BYTES);
        message.put_bytes(0, PREFIX_BYTES);
        Self { message: Some(message), field: field::ANSWER }
    }

    /// Begins a StreamVerifyTokensResponse.
    pub fn of_message(correlation_id: u64, count: usize) -> Self {
        let mut message = Vec::with_capacity(CORRELATION_BYTES_MAX + count * ANSWER_BYTES);
        put_number_unless_zero(field::CORRELATION_ID, correlation_id, &mut message);
        Self { message: Some(message), field: field::STREAMED_ANSWER }
    }

    /// Adds the next answer; without one, the fast path gives up on the whole response.
    pub fn add(&mut self, answer: Option<&app::Answer<'_>>) {
        match (&mut self.message, answer) {
            (Some(message), Some(answer)) => {
                put_message(self.field, ANSWER_LEN_BYTES, message, |out| put_answer(answer, out))
            }
            _ => self.message = None,
        }
    }

    /// Completes the VerifyTokensResponse.
    pub fn finish(self) -> Option<Bytes> {
        let mut message = self.message?;
        let len = u32::try_from(message.len() - PREFIX_BYTES).ok()?;
        message[1..PREFIX_BYTES].copy_from_slice(&len.to_be_bytes());
        Some(message.into())
    }

    /// Completes the StreamVerifyTokensResponse.
    pub fn finish_message(self) -> Option<Bytes> {
        self.message.map(Bytes::from)
    }
}

fn put_answer(answer: &app::Answer<'_>, out: &mut Vec<u8>) {
    let outcome = answer.outcome();
    put_number(field::OUTCOME, i32::from(to_outcome(outcome)).unsigned_abs().into(), out);
    if let Some(cached) = answer.cached() {
        put_text(field::KEY_ID, &cached.key_id().to_ascii(), out);
        put_text(field::ACCOUNT_ID, cached.account_id().as_str().as_bytes(), out);
        if outcome == Outcome::Valid {
            put_held(cached, out);
        }
    }
    let revision = answer.revision();
    put_message(field::REVISION, SHORT_LEN_BYTES, out, |out| {
        put_number_unless_zero(1, revision.epoch as u64, out);
        put_number_unless_zero(2, revision.number as u64, out);
    });
    put_number_unless_zero(field::STALE, u64::from(answer.stale()), out);
}

/// Writes what a VALID key holds, and until when.
fn put_held(cached: &Cached<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(cached.account_permissions().written(write_names));
    let team_permissions = cached.team_permissions().written(write_names);
    let mut teams = cached.team_ids().peekable();
    // Both lists are non-empty or there is no team scope (K2); retiring permissions can empty one.
    if teams.peek().is_some() && !team_permissions.is_empty() {
        put_message(field::TEAM_SCOPE, SHORT_LEN_BYTES, out, |out| {
            teams.for_each(|team| put_text(field::TEAM_IDS, team.as_str().as_bytes(), out));
            out.extend_from_slice(team_permissions);
        });
    }
    if let Some(end) = cached.standing().end_time().map(to_timestamp) {
        put_message(field::EXPIRE_TIME, SHORT_LEN_BYTES, out, |out| {
            put_number_unless_zero(1, end.seconds as u64, out);
            put_number_unless_zero(2, u64::from(end.nanos.unsigned_abs()), out);
        });
    }
}

/// Writes the names of a set as fields of a response.
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

/// Writes a message as a field. The length stands before the content but is known only after it, so `room` bytes are
/// left for it and the content is moved in the rare case that it needs more or fewer.
#[inline]
fn put_message(field: u32, room: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    put_key(field, WireType::LengthDelimited, out);
    let start = out.len();
    out.put_bytes(0, room);
    write(out);
    let len = out.len() - start - room;
    let needed = encoded_len_varint(len as u64);
    if needed != room {
        out.resize(start + room.max(needed) + len, 0);
        out.copy_within(start + room..start + room + len, start + needed);
        out.truncate(start + needed + len);
    }
    encode_varint(len as u64, &mut &mut out[start..start + needed]);
}

fn put_text(field: u32, text: &[u8], out: &mut Vec<u8>) {
    put_key(field, WireType::LengthDelimited, out);
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn put_number(field: u32, number: u64, out: &mut Vec<u8>) {
    put_key(field, WireType::Varint, out);
    put_varint(number, out);
}

fn put_number_unless_zero(field: u32, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        put_number(field, number, out);
    }
}

/// Writes the key of a field whose number is below 16, in one byte.
#[inline]
fn put_key(field: u32, wire_type: WireType, out: &mut Vec<u8>) {
    debug_assert!(field < 16, "its key takes more than one byte");
    out.push((field << 3) as u8 | wire_type as u8);
}

#[inline]
fn put_varint(number: u64, out: &mut Vec<u8>) {
    // Most numbers take one byte, and the library's loop is slower for them.
    if number < 0x80 { out.push(number as u8) } else { encode_varint(number, out) }
}

#[cfg(test)]
mod tests {
    use prost::encoding::bytes;

    use super::*;

    #[test]
    fn a_message_stands_behind_its_length_whatever_room_was_left_for_that() {
        for len in [0, 1, 127, 128, 300, 16_383, 16_384, 70_000] {
            let (content, mut expected) = (vec![7; len], vec![1]);
            bytes::encode(5, &content, &mut expected);
            for room in [1, 2, 3] {
                let mut out = vec![1];
                put_message(5, room, &mut out, |out| out.extend_from_slice(&content));
                assert_eq!(out, expected, "{len} bytes, room for {room}");
            }
        }
    }
}

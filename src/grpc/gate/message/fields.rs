//! Bounds the number of entries of each repeated field, counted on the wire before anything is decoded: an entry of a
//! few bytes takes many more in memory, so a message within its size limit could otherwise decode to gigabytes.

use std::{collections::HashMap, fmt, sync::LazyLock};

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::{
    domain::{self, permissions::grants},
    grpc::{contract::served_files, convert::BATCH_ITEMS_MAX, status::Refusal},
};

/// How many times a singular submessage may occur. Protocol buffers merge the occurrences; no client sends two.
const OCCURRENCES_MAX: usize = 8;
/// The most memory that an entry takes in addition to its bytes.
const ENTRY_BYTES: usize = 256;

/// The maximum number of entries of each repeated field that a request can have: the bound of the rules where they have
/// one, else the largest number that makes sense. A map's entries are a repeated field on the wire.
pub const ENTRIES_MAX: &[(&str, usize)] = &[
    ("latchkey.v1.ApiKey.metadata", 50),
    ("latchkey.v1.ApiKey.account_permissions", grants::NAMES_MAX),
    ("latchkey.v1.TeamScope.team_ids", grants::TEAMS_MAX),
    ("latchkey.v1.TeamScope.permissions", grants::NAMES_MAX),
    ("latchkey.v1.ListApiKeysRequest.states", 8),
    ("latchkey.v1.ListEventsRequest.kinds", 64),
    ("latchkey.v1.Role.permissions", grants::NAMES_MAX),
    ("latchkey.v1.User.custom_role_ids", 100),
    ("latchkey.v1.User.team_roles", 1_000),
    ("latchkey.v1.Catalogue.permissions", 256),
    ("latchkey.v1.Catalogue.default_roles", 256),
    ("latchkey.v1.Permission.implies", 256),
    ("latchkey.v1.BatchUpsertTeamsRequest.teams", BATCH_ITEMS_MAX),
    ("latchkey.v1.BatchUpsertUsersRequest.users", BATCH_ITEMS_MAX),
    ("latchkey.v1.Requirement.team_ids", grants::TEAMS_MAX),
    ("latchkey.v1.VerifyTokensRequest.checks", BATCH_ITEMS_MAX),
    ("latchkey.v1.StreamVerifyTokensRequest.checks", BATCH_ITEMS_MAX),
    ("google.protobuf.FieldMask.paths", 64),
];

/// The repeated fields and submessages of every message of the contract.
pub static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes::of(&served_files()));

/// The memory that a decoded message takes in addition to its bytes, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeOverhead {
    entries: usize,
}

impl DecodeOverhead {
    /// Returns the number of bytes.
    pub fn bytes(self) -> usize {
        self.entries * ENTRY_BYTES
    }
}

/// The shapes of all messages, by index and by name.
pub struct Shapes {
    by_name: HashMap<String, usize>,
    shapes: Vec<Shape>,
}

/// The fields of one message that are repeated or messages, by field number.
#[derive(Default)]
struct Shape {
    fields: Vec<(u32, Field)>,
}

struct Field {
    name: String,
    /// `None` for a singular field.
    entries_max: Option<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    /// A message, by the index of its shape.
    Message(usize),
}

/// The path of a field within a message.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a str,
    index: Option<usize>,
}

/// The fields counted in a message, in the order of [`Shape::fields`].
struct FieldCounts<'a> {
    counts: Vec<usize>,
    /// Submessages: the index of their field, and their bytes.
    parts: Vec<(usize, &'a [u8])>,
}

/// Why a message is refused.
enum ShapeError {
    Garbled,
    Field { path: String, problem: String },
}

// === impl Shapes ===

impl Shapes {
    /// Checks an encoded message against the bounds of its fields.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the first field with too many entries, or if the bytes are not a valid message.
    pub fn check(&self, message: &str, bytes: &[u8]) -> Result<DecodeOverhead, Refusal> {
        let shape = *self.by_name.get(message).expect("requests are in the descriptors");
        let mut overhead = DecodeOverhead::default();
        match self.walk(shape, &[bytes], None, &mut overhead) {
            Ok(()) => Ok(overhead),
            Err(ShapeError::Garbled) => Err(Refusal::undecodable()),
            Err(ShapeError::Field { path, problem }) => Err(domain::Error::field(path, problem).into()),
        }
    }

    fn of(files: &FileDescriptorSet) -> Self {
        let mut messages = Vec::new();
        for file in &files.file {
            file.message_type.iter().for_each(|message| collect(file.package(), message, &mut messages));
        }
        let by_name: HashMap<_, _> = messages.iter().enumerate().map(|(i, (name, _))| (name.clone(), i)).collect();
        let shapes = messages.iter().map(|(name, message)| Shape::of(name, message, &by_name)).collect();
        Self { by_name, shapes }
    }

    /// Counts the entries of one message, which may be encoded in several parts, and then those of its submessages.
    fn walk(
        &self,
        shape: usize,
        parts: &[&[u8]],
        at: Option<&Path<'_>>,
        overhead: &mut DecodeOverhead,
    ) -> Result<(), ShapeError> {
        let shape = &self.shapes[shape];
        let mut found = FieldCounts { counts: vec![0; shape.fields.len()], parts: vec![] };
        for part in parts {
            shape.count(part, &mut found)?;
        }
        for ((_, field), count) in shape.fields.iter().zip(&found.counts) {
            if let Some(max) = field.entries_max {
                if *count > max {
                    let problem = format!("must have at most {max} entries (got {count})");
                    return Err(ShapeError::Field { path: Path::of(field, None, at).to_string(), problem });
                }
                overhead.entries += count;
            } else if *count > OCCURRENCES_MAX {
                return Err(ShapeError::Field {
                    path: Path::of(field, None, at).to_string(),
                    problem: "must be given once".into(),
                });
            }
        }
        self.walk_into(shape, &found, at, overhead)
    }

    fn walk_into(
        &self,
        shape: &Shape,
        found: &FieldCounts<'_>,
        at: Option<&Path<'_>>,
        overhead: &mut DecodeOverhead,
    ) -> Result<(), ShapeError> {
        for (place, (_, field)) in shape.fields.iter().enumerate() {
            let Kind::Message(inner) = field.kind else { continue };
            if found.counts[place] == 0 || self.shapes[inner].fields.is_empty() {
                continue;
            }
            let own = found.parts.iter().filter(|(of, _)| *of == place).map(|(_, part)| *part);
            if field.entries_max.is_none() {
                let parts: Vec<_> = own.collect();
                self.walk(inner, &parts, Some(&Path::of(field, None, at)), overhead)?;
            } else {
                for (index, part) in own.enumerate() {
                    self.walk(inner, &[part], Some(&Path::of(field, Some(index), at)), overhead)?;
                }
            }
        }
        Ok(())
    }
}

fn collect<'a>(scope: &str, message: &'a DescriptorProto, all: &mut Vec<(String, &'a DescriptorProto)>) {
    let name = format!("{scope}.{}", message.name());
    message.nested_type.iter().for_each(|nested| collect(&name, nested, all));
    all.push((name, message));
}

// === impl Shape ===

impl Shape {
    fn of(message: &str, descriptor: &DescriptorProto, by_name: &HashMap<String, usize>) -> Self {
        let mut fields = Vec::new();
        for field in &descriptor.field {
            let kind = match field.r#type() {
                Type::Message => Kind::Message(by_name[field.type_name().trim_start_matches('.')]),
                Type::String | Type::Bytes | Type::Group => Kind::Text,
                Type::Double | Type::Fixed64 | Type::Sfixed64 => Kind::Fixed64,
                Type::Float | Type::Fixed32 | Type::Sfixed32 => Kind::Fixed32,
                _ => Kind::Varint,
            };
            let repeated = field.label() == Label::Repeated;
            if !repeated && !matches!(kind, Kind::Message(_)) {
                continue;
            }
            let full = format!("{message}.{}", field.name());
            let bound = ENTRIES_MAX.iter().find(|(name, _)| *name == full).map(|(_, max)| *max);
            // Fields that no request contains need no bound: a test checks that those of requests have one.
            let entries_max = repeated.then(|| bound.unwrap_or(0));
            let number = u32::try_from(field.number()).expect("fields are numbered from 1");
            fields.push((number, Field { name: field.name().to_owned(), entries_max, kind }));
        }
        fields.sort_by_key(|(number, _)| *number);
        Self { fields }
    }

    /// Counts the entries in a message's bytes and records its submessages, of each field at most as many as it may
    /// have, since one more is refused.
    fn count<'a>(&self, mut bytes: &'a [u8], found: &mut FieldCounts<'a>) -> Result<(), ShapeError> {
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(|_| ShapeError::Garbled)?;
            let Ok(place) = self.fields.binary_search_by_key(&number, |(number, _)| *number) else {
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| ShapeError::Garbled)?;
                continue;
            };
            let field = &self.fields[place].1;
            let count = &mut found.counts[place];
            if wire_type != WireType::LengthDelimited {
                if wire_type != field.kind.wire_type() {
                    return Err(ShapeError::Garbled);
                }
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| ShapeError::Garbled)?;
                *count += 1;
                continue;
            }
            let value = take(&mut bytes).ok_or(ShapeError::Garbled)?;
            *count += field.kind.entries(value);
            if matches!(field.kind, Kind::Message(_)) && *count <= field.entries_max.unwrap_or(OCCURRENCES_MAX) {
                found.parts.push((place, value));
            }
        }
        Ok(())
    }
}

/// Takes a length-delimited value off the front of `bytes`.
fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (value, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(value)
}

// === impl Kind ===

impl Kind {
    fn wire_type(self) -> WireType {
        match self {
            Self::Varint => WireType::Varint,
            Self::Fixed32 => WireType::ThirtyTwoBit,
            Self::Fixed64 => WireType::SixtyFourBit,
            Self::Text | Self::Message(_) => WireType::LengthDelimited,
        }
    }

    /// Returns the number of entries in a length-delimited value: numbers may be packed.
    fn entries(self, value: &[u8]) -> usize {
        match self {
            Self::Varint => value.iter().filter(|byte| **byte < 0x80).count(),
            Self::Fixed32 => value.len() / 4,
            Self::Fixed64 => value.len() / 8,
            Self::Text | Self::Message(_) => 1,
        }
    }
}

// === impl Path ===

impl<'a> Path<'a> {
    fn of(field: &'a Field, index: Option<usize>, parent: Option<&'a Path<'a>>) -> Self {
        Self { parent, name: &field.name, index }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;

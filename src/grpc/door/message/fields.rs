//! How many entries each repeated field of a request may have, counted on the wire before anything is decoded: a few
//! bytes there are many more in memory, so a message within its limit of bytes could otherwise take gigabytes.

use std::{collections::HashMap, fmt, sync::LazyLock};

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

use crate::{
    domain::{self, permissions::grants},
    grpc::{convert::BATCH_ITEMS_MAX, door::methods::files, status::Refusal},
};

/// How often one message may stand where it is to stand once. Protocol buffers merge them; no client sends two.
const PARTS_MAX: usize = 8;
/// What an entry takes in memory at most beside its bytes.
const ENTRY_BYTES: usize = 256;

/// The most entries of each repeated field that a request can have. Where the rules have a bound, it is theirs; where
/// they have none, it is what could be meant. A map's entries are a repeated field on the wire.
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

/// The messages of the contract, as far as their repeated fields go.
pub static SHAPES: LazyLock<Shapes> = LazyLock::new(|| Shapes::of(&files()));

/// What a message takes in memory beside its bytes, at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    entries: usize,
}

impl Weight {
    /// In bytes.
    pub fn bytes(self) -> usize {
        self.entries * ENTRY_BYTES
    }
}

/// Messages by number and by name.
pub struct Shapes {
    by_name: HashMap<String, usize>,
    shapes: Vec<Shape>,
}

/// One message's fields that are repeated or messages, by number.
#[derive(Default)]
struct Shape {
    fields: Vec<(u32, Field)>,
}

struct Field {
    name: String,
    /// Of a repeated field.
    entries_max: Option<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Varint,
    Fixed32,
    Fixed64,
    Text,
    /// By its number.
    Message(usize),
}

/// Where in a message something stands.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'a str,
    index: Option<usize>,
}

/// What was found of a message's fields, in the order of [`Shape::fields`].
struct Found<'a> {
    counts: Vec<usize>,
    /// Submessages: of which field, and their bytes.
    parts: Vec<(usize, &'a [u8])>,
}

/// Why a message is refused.
enum Wrong {
    Garbled,
    Field { path: String, problem: String },
}

// === impl Shapes ===

impl Shapes {
    /// Checks a message by its bytes.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the first field with too many entries, or if the bytes are no message at all.
    pub fn check(&self, message: &str, bytes: &[u8]) -> Result<Weight, Refusal> {
        let shape = *self.by_name.get(message).expect("requests are in the descriptors");
        let mut weight = Weight::default();
        match self.walk(shape, &[bytes], None, &mut weight) {
            Ok(()) => Ok(weight),
            Err(Wrong::Garbled) => Err(Refusal::undecodable()),
            Err(Wrong::Field { path, problem }) => Err(domain::Error::field(path, problem).into()),
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

    /// Counts one message, whose bytes may stand in parts; then what is in it.
    fn walk(&self, shape: usize, parts: &[&[u8]], at: Option<&Path<'_>>, weight: &mut Weight) -> Result<(), Wrong> {
        let shape = &self.shapes[shape];
        let mut found = Found { counts: vec![0; shape.fields.len()], parts: vec![] };
        for part in parts {
            shape.count(part, &mut found)?;
        }
        for ((_, field), count) in shape.fields.iter().zip(&found.counts) {
            if let Some(max) = field.entries_max {
                if *count > max {
                    let problem = format!("must have at most {max} entries; this has {count}");
                    return Err(Wrong::Field { path: Path::of(field, None, at).to_string(), problem });
                }
                weight.entries += count;
            } else if *count > PARTS_MAX {
                return Err(Wrong::Field {
                    path: Path::of(field, None, at).to_string(),
                    problem: "must be given once".into(),
                });
            }
        }
        self.walk_into(shape, &found, at, weight)
    }

    fn walk_into(
        &self,
        shape: &Shape,
        found: &Found<'_>,
        at: Option<&Path<'_>>,
        weight: &mut Weight,
    ) -> Result<(), Wrong> {
        for (place, (_, field)) in shape.fields.iter().enumerate() {
            let Kind::Message(inner) = field.kind else { continue };
            if found.counts[place] == 0 || self.shapes[inner].fields.is_empty() {
                continue;
            }
            let own = found.parts.iter().filter(|(of, _)| *of == place).map(|(_, part)| *part);
            if field.entries_max.is_none() {
                let parts: Vec<_> = own.collect();
                self.walk(inner, &parts, Some(&Path::of(field, None, at)), weight)?;
            } else {
                for (index, part) in own.enumerate() {
                    self.walk(inner, &[part], Some(&Path::of(field, Some(index), at)), weight)?;
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
            // A field that no request has needs no line of its own: a test sees to it that those of requests do.
            let entries_max = repeated.then(|| bound.unwrap_or(0));
            let number = u32::try_from(field.number()).expect("fields are numbered from 1");
            fields.push((number, Field { name: field.name().to_owned(), entries_max, kind }));
        }
        fields.sort_by_key(|(number, _)| *number);
        Self { fields }
    }

    /// Counts the entries in a message's bytes, and notes where its submessages are: of each field only so many as it
    /// may have, since one more is refused.
    fn count<'a>(&self, mut bytes: &'a [u8], found: &mut Found<'a>) -> Result<(), Wrong> {
        while !bytes.is_empty() {
            let (number, wire_type) = decode_key(&mut bytes).map_err(|_| Wrong::Garbled)?;
            let Ok(place) = self.fields.binary_search_by_key(&number, |(number, _)| *number) else {
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| Wrong::Garbled)?;
                continue;
            };
            let field = &self.fields[place].1;
            let count = &mut found.counts[place];
            if wire_type != WireType::LengthDelimited {
                if wire_type != field.kind.wire_type() {
                    return Err(Wrong::Garbled);
                }
                skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| Wrong::Garbled)?;
                *count += 1;
                continue;
            }
            let value = take(&mut bytes).ok_or(Wrong::Garbled)?;
            *count += field.kind.entries(value);
            if matches!(field.kind, Kind::Message(_)) && *count <= field.entries_max.unwrap_or(PARTS_MAX) {
                found.parts.push((place, value));
            }
        }
        Ok(())
    }
}

/// The bytes behind a length.
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

    /// How many entries a length-delimited value holds: numbers may be packed.
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

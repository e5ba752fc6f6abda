//! Archives of the log's beginning: their anchors, the links between their events, and the lines of their files (V6).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    event::{Event, GENESIS, Hash, chain},
    revision::Revision,
};

/// The format of the files, named in their first line.
pub const FORMAT: &str = "latchkey-events-1";

/// A place in the log, with the link of its last event: what the chain is verified from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The last event's epoch.
    pub epoch: i64,
    /// The last event's number; 0 before the first.
    pub number: i64,
    /// The last event's link.
    #[serde(serialize_with = "to_base64", deserialize_with = "hash_from_base64")]
    pub hash: Hash,
}

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// What the file's events come after.
    pub after: Anchor,
    /// The file's last event.
    pub through: Anchor,
}

/// Any other line of a file: an event as the log had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchivedEvent {
    /// Its number.
    pub number: i64,
    /// Its epoch.
    pub epoch: i64,
    /// How the payload is encoded.
    pub format_version: i16,
    /// The exact hashed bytes.
    #[serde(serialize_with = "to_base64", deserialize_with = "bytes_from_base64")]
    pub payload: Vec<u8>,
    /// Its link.
    #[serde(serialize_with = "to_base64", deserialize_with = "hash_from_base64")]
    pub hash: Hash,
}

// === impl Anchor ===

impl Anchor {
    /// Before the first event.
    pub const START: Self = Self { epoch: 1, number: 0, hash: GENESIS };

    /// Returns its revision.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        Revision { epoch: self.epoch, number: self.number }
    }

    /// Returns the place after the next event.
    ///
    /// # Errors
    /// Why it is not the next one, for people.
    pub fn next(&self, event: &ArchivedEvent) -> Result<Self, &'static str> {
        if event.number != self.number + 1 {
            return Err("the event is missing: numbers are not gap-free");
        }
        if chain(&self.hash, &event.payload) != event.hash {
            return Err("the hash does not fit the stored bytes and the predecessor's hash");
        }
        if event.epoch < self.epoch {
            return Err("the epoch goes back");
        }
        let revision = Revision { epoch: event.epoch, number: event.number };
        // The bytes of a later release's format verified all the same.
        if Event::decode(event.format_version, &event.payload).is_some_and(|decoded| decoded.revision != revision) {
            return Err("the revision differs from the hashed bytes");
        }
        Ok(Self { epoch: event.epoch, number: event.number, hash: event.hash })
    }
}

fn to_base64<S: Serializer>(bytes: &impl AsRef<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn bytes_from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
}

fn hash_from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hash, D::Error> {
    bytes_from_base64(deserializer)?.try_into().map_err(|_| D::Error::custom("a hash has 32 bytes"))
}

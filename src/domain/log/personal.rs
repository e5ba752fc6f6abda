//! Personal data apart from what is hashed: the chain covers a salted commitment to what people typed, and the text
//! stands elsewhere with its salt, so that it can be erased and the chain still verifies.
//!
//! Names and display names are such text. Comments and the values of metadata are in no event at all.

use serde::{Deserialize, Serialize};

use super::event::{Change, Event};

/// The fields of changes whose values people typed.
const FIELDS: [&str; 2] = ["name", "display_name"];
/// Separates these commitments from every other use of the hash.
const CONTEXT: &str = "latchkey 2026-11-28 commitment to an event's detail v1";

/// 32 random bytes that keep a commitment from being guessed once the text is erased.
pub type Salt = [u8; 32];

/// What one change of an event said, in text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Which of the event's changes.
    pub change: usize,
    /// The salt of its commitment, in hexadecimal digits.
    pub salt: String,
    /// The value before.
    pub before: String,
    /// The value after.
    pub after: String,
}

impl Event {
    /// Puts commitments in the place of what people typed, and returns the text.
    pub fn seal(&mut self, mut salt: impl FnMut() -> Salt) -> Vec<Detail> {
        let mut details = Vec::new();
        for (index, change) in self.changes.iter_mut().enumerate() {
            let is_text = FIELDS.contains(&change.field.as_str());
            if is_text && !(change.before.is_empty() && change.after.is_empty()) {
                let salt = salt();
                change.commitment = commitment(&salt, &change.before, &change.after);
                let (before, after) = (std::mem::take(&mut change.before), std::mem::take(&mut change.after));
                let salt = blake3::Hash::from_bytes(salt).to_hex().to_string();
                details.push(Detail { change: index, salt, before, after });
            }
        }
        details
    }

    /// Reports whether the text of a change stands elsewhere, or is erased.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.changes.iter().any(Change::is_sealed)
    }

    /// Puts the text back. False if any of it is not what its commitment says; what does not fit is left out.
    #[must_use]
    pub fn unseal(&mut self, details: Vec<Detail>) -> bool {
        let mut all_fit = true;
        for detail in details {
            let salt = blake3::Hash::from_hex(&detail.salt).ok();
            let fits = |change: &Change, salt: blake3::Hash| {
                change.commitment == commitment(salt.as_bytes(), &detail.before, &detail.after)
            };
            match (self.changes.get_mut(detail.change), salt) {
                (Some(change), Some(salt)) if fits(change, salt) => {
                    (change.before, change.after) = (detail.before, detail.after);
                    change.commitment.clear();
                }
                _ => all_fit = false,
            }
        }
        all_fit
    }
}

impl Change {
    /// Reports whether its text stands elsewhere, or is erased.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        !self.commitment.is_empty()
    }
}

/// Returns the commitment to two values under a salt, in hexadecimal digits. Each is framed by its length: no other
/// pair has the same bytes.
fn commitment(salt: &Salt, before: &str, after: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(salt);
    for value in [before, after] {
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value.as_bytes());
    }
    hasher.finalize().to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        id::EventId,
        log::{
            event::{EventDraft, EventKind, FORMAT_VERSION, Target, value_change},
            revision::Revision,
        },
        time::Timestamp,
    };

    fn event() -> Event {
        let changes = [value_change("display_name", "Jo", "Jane Roe"), value_change("state", "active", "deactivated")];
        let draft = EventDraft {
            kind: EventKind::UserUpdated,
            account_id: None,
            actor: None,
            target: Target { kind: "user".into(), id: "u".into() },
            changes: changes.into_iter().flatten().collect(),
            affected_key_ids: vec![],
            break_glass: false,
        };
        draft.at(Revision { epoch: 1, number: 1 }, EventId::from_uuid(Uuid::from_u128(1)), Timestamp::from_micros(1))
    }

    fn sealed() -> (Event, Vec<Detail>) {
        let mut event = event();
        let details = event.seal(|| [7; 32]);
        (event, details)
    }

    #[test]
    fn what_people_typed_is_not_in_the_hashed_bytes_and_comes_back_with_its_details() {
        let (sealed, details) = sealed();
        let bytes = sealed.encode();
        let text = String::from_utf8(bytes.clone()).expect("JSON");
        assert!(!text.contains("Jane") && !text.contains("Jo") && text.contains("deactivated"), "{text}");
        let mut read = Event::decode(FORMAT_VERSION, &bytes).expect("readable");
        assert!(read.is_sealed());
        assert!(read.unseal(details));
        assert_eq!(read, event());
    }

    #[test]
    fn details_that_were_changed_do_not_fit() {
        let (sealed, details) = sealed();
        let changes: [fn(&mut Detail); 4] = [
            |detail| detail.after.push('x'),
            |detail| (detail.before, detail.after) = ("JoJane".into(), " Roe".into()),
            |detail| detail.salt = "08".repeat(32),
            |detail| detail.change = 1,
        ];
        for change in changes {
            let (mut event, mut details) = (sealed.clone(), details.clone());
            change(&mut details[0]);
            assert!(!event.unseal(details));
            assert!(event.is_sealed());
        }
    }

    #[test]
    fn an_event_of_the_first_format_reads_as_ever() {
        assert_eq!(Event::decode(1, &event().encode()), Some(event()));
    }
}

//! Events of any size, in parts that each reader can take.
//!
//! A watcher takes messages of at most 4 MiB unless it asks for more. What one change touches is bounded, but by far
//! more than that: all roles of a user, a catalogue of 256 permissions. So an event that would be too large is appended
//! as several: the first is of its own kind, each of the others continues the one before it.

use super::event::{Change, EventDraft, EventKind};

/// The bytes of an event's encoding that the lists of its changes and keys may take. What is not in a list is bounded,
/// far below.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// What a key's id takes, with its quotes and comma.
const KEY_ID_BYTES: usize = 40;
/// What a change takes beside its values, its commitment included.
const CHANGE_BYTES: usize = 256;
/// What the worst character takes, escaped.
const ESCAPED_BYTES: usize = 6;

/// The parts of an event so far, and what the last of them takes.
struct Parts {
    done: Vec<EventDraft>,
    open: EventDraft,
    bytes: usize,
    bytes_max: usize,
}

impl EventDraft {
    /// Returns the event, in as few parts as its size allows, in order: one, usually.
    #[must_use]
    pub fn parts(self) -> Vec<Self> {
        self.parts_of(EVENT_BYTES_MAX)
    }

    fn parts_of(mut self, bytes_max: usize) -> Vec<Self> {
        let changes: usize = self.changes.iter().map(bytes_at_most).sum();
        if changes + self.affected_key_ids.len() * KEY_ID_BYTES <= bytes_max {
            return vec![self];
        }
        let (changes, keys) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.affected_key_ids));
        let mut parts = Parts { done: Vec::new(), open: self, bytes: 0, bytes_max };
        for change in changes {
            parts.add_change(change);
        }
        for key in keys {
            parts.make_room(KEY_ID_BYTES);
            parts.open.affected_key_ids.push(key);
        }
        parts.done.push(parts.open);
        parts.done
    }
}

// === impl Parts ===

impl Parts {
    /// Opens the next part if this many bytes do not fit; reports whether it did.
    fn make_room(&mut self, bytes: usize) -> bool {
        let is_full = self.bytes > 0 && self.bytes + bytes > self.bytes_max;
        if is_full {
            let next = EventDraft {
                kind: EventKind::ChangeContinued,
                changes: Vec::new(),
                affected_key_ids: Vec::new(),
                ..self.open.clone()
            };
            self.done.push(std::mem::replace(&mut self.open, next));
            self.bytes = 0;
        }
        self.bytes += bytes;
        is_full
    }

    /// Adds a change, and splits its lists where they do not fit.
    fn add_change(&mut self, change: Change) {
        let Change { field, before, after, added, removed, .. } = change;
        let head = Change { field: field.clone(), before, after, ..Change::default() };
        self.make_room(bytes_at_most(&head));
        self.open.changes.push(head);
        let added = added.into_iter().map(|item| (true, item));
        for (is_added, item) in added.chain(removed.into_iter().map(|item| (false, item))) {
            if self.make_room(item_bytes(&item)) {
                self.bytes += CHANGE_BYTES;
                self.open.changes.push(Change { field: field.clone(), ..Change::default() });
            }
            let open = self.open.changes.last_mut().expect("a change was opened for its lists");
            if is_added { open.added.push(item) } else { open.removed.push(item) }
        }
    }
}

/// Returns what a change's encoding takes at most.
fn bytes_at_most(change: &Change) -> usize {
    let Change { field, before, after, added, removed, .. } = change;
    let values: usize = [field, before, after].iter().map(|value| item_bytes(value)).sum();
    CHANGE_BYTES + values + added.iter().chain(removed).map(|item| item_bytes(item)).sum::<usize>()
}

fn item_bytes(item: &str) -> usize {
    let escaped = item.bytes().filter(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')).count();
    item.len() + escaped * (ESCAPED_BYTES - 1) + 3
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        id::{AccountId, EventId, KeyId},
        log::{event::Target, revision::Revision},
        time::Timestamp,
    };

    const SMALL: usize = 2_000;

    fn draft(changes: Vec<Change>, keys: u128) -> EventDraft {
        EventDraft {
            kind: EventKind::UserUpdated,
            account_id: Some(AccountId::from_stored("acme")),
            actor: None,
            target: Target { kind: "user".into(), id: "u".into() },
            changes,
            affected_key_ids: (0..keys).map(|n| KeyId::from_uuid(Uuid::from_u128(n))).collect(),
            break_glass: true,
        }
    }

    fn list(field: &str, items: usize) -> Change {
        let items = |sign: &str| (0..items).map(|n| format!("{sign}\"\u{1}é{n}")).collect();
        Change { field: field.into(), before: "b".into(), added: items("+"), removed: items("-"), ..Change::default() }
    }

    fn encoded(draft: &EventDraft) -> usize {
        let id = EventId::from_uuid(Uuid::from_u128(1));
        draft.clone().at(Revision { epoch: 1, number: 1 }, id, Timestamp::from_micros(1)).encode().len()
    }

    #[test]
    fn an_event_that_fits_is_one() {
        let small = draft(vec![list("team_roles", 3)], 5);
        assert_eq!(small.clone().parts(), [small]);
    }

    #[test]
    fn a_large_event_is_several_that_each_fit_and_together_say_the_same() {
        let whole = draft(vec![list("custom_role_ids", 100), list("team_roles", 300)], 200);
        let empty = encoded(&draft(vec![], 0));
        let parts = whole.clone().parts_of(SMALL);
        assert!(parts.len() > 10);
        assert!(parts.iter().all(|part| encoded(part) - empty <= SMALL), "each is as small as it must be");
        assert_eq!(parts[0].kind, EventKind::UserUpdated);
        assert!(parts[1..].iter().all(|part| part.kind == EventKind::ChangeContinued));
        assert!(parts.iter().all(|part| part.target == whole.target && part.break_glass));
        let keys: Vec<_> = parts.iter().flat_map(|part| part.affected_key_ids.clone()).collect();
        assert_eq!(keys, whole.affected_key_ids);
        for change in &whole.changes {
            let of_field = || parts.iter().flat_map(|part| &part.changes).filter(|part| part.field == change.field);
            assert_eq!(of_field().flat_map(|part| part.added.clone()).collect::<Vec<_>>(), change.added);
            assert_eq!(of_field().flat_map(|part| part.removed.clone()).collect::<Vec<_>>(), change.removed);
            assert_eq!(of_field().filter(|part| part.before == "b").count(), 1);
        }
    }
}

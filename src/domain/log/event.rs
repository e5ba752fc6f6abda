//! Events: one for every change (V5), chained by hashes over the exact stored bytes (V6).

use serde::{Deserialize, Serialize};

use super::revision::Revision;
use crate::domain::{
    id::{AccountId, EventId, KeyId, UserId},
    time::Timestamp,
};

/// The format that [`Event::encode`] writes. Old formats stay readable for ever.
///
/// 2 has commitments in the place of what people typed ([`super::personal`]).
pub const FORMAT_VERSION: i16 = 2;
/// The first format, and all since.
const FORMAT_VERSIONS: std::ops::RangeInclusive<i16> = 1..=FORMAT_VERSION;

/// A link of the chain: BLAKE3 over the predecessor's link and the event's bytes.
pub type Hash = [u8; 32];

/// The link before the first event.
pub const GENESIS: Hash = [0; 32];

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind { $($(#[$doc])* $variant),+ }

        impl EventKind {
            /// Every kind that this build knows.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns its name in the log.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Returns the kind of that name; `None` for one of a later release.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

event_kinds! {
    /// A key was minted.
    ApiKeyCreated = "api_key.created",
    /// A key was edited.
    ApiKeyUpdated = "api_key.updated",
    /// A key's token was rotated.
    ApiKeyRotated = "api_key.rotated",
    /// A key was disabled.
    ApiKeyDisabled = "api_key.disabled",
    /// A key was enabled.
    ApiKeyEnabled = "api_key.enabled",
    /// A key was deleted by a manager.
    ApiKeyDeleted = "api_key.deleted",
    /// A key was deleted by its own current token.
    ApiKeyRevoked = "api_key.revoked",
    /// A retiring token ended itself.
    RetiringTokenRevoked = "api_key.retiring_token_revoked",
    /// A token was presented after its end (K8).
    RotatedTokenPresented = "api_key.rotated_token_presented",
    /// An account was created.
    AccountCreated = "account.created",
    /// An account was changed.
    AccountUpdated = "account.updated",
    /// An account was deleted with everything in it.
    AccountDeleted = "account.deleted",
    /// An account was suspended.
    AccountSuspended = "account.suspended",
    /// An account was resumed.
    AccountResumed = "account.resumed",
    /// A team was created.
    TeamCreated = "team.created",
    /// A team was changed.
    TeamUpdated = "team.updated",
    /// A team was deleted and taken from all keys and users (A5).
    TeamDeleted = "team.deleted",
    /// A role was created.
    RoleCreated = "role.created",
    /// A role was changed.
    RoleUpdated = "role.updated",
    /// A role was deleted.
    RoleDeleted = "role.deleted",
    /// A user was created.
    UserCreated = "user.created",
    /// A user was changed.
    UserUpdated = "user.updated",
    /// A user was deleted with its roles.
    UserDeleted = "user.deleted",
    /// The catalogue was replaced.
    CatalogueApplied = "catalogue.applied",
    /// An operator accepted the database's history: the first event of an epoch.
    HistoryAccepted = "history.accepted",
    /// An operator read what only the reach of `system.operate` lets it read (A3). No authority changes.
    AccountReadByOperator = "account.read_by_operator",
    /// More of what the event before it changed, which one event cannot hold.
    ChangeContinued = "change.continued",
    /// A team that was deleted before was taken from keys and users that still named it (A5).
    TeamPurged = "team.purged",
    /// What an account that was deleted before still had was removed (A5).
    AccountPurged = "account.purged",
    /// Keys that were deleted long ago were erased with everything of theirs.
    ApiKeysErased = "api_keys.erased",
    /// What people had typed was erased from events of the past and from what was deleted.
    PersonalDataErased = "personal_data.erased",
}

impl EventKind {
    /// Reports whether such an event can take authority away, so that its mutation's answer waits for
    /// every replica (V1). What only creates cannot, nor can a note.
    #[must_use]
    pub const fn can_narrow(self) -> bool {
        !matches!(
            self,
            Self::ApiKeyCreated
                | Self::ApiKeyEnabled
                | Self::RotatedTokenPresented
                | Self::AccountReadByOperator
                // What they remove was withdrawn by the event of the deletion.
                | Self::TeamPurged
                | Self::AccountPurged
                | Self::ApiKeysErased
                | Self::PersonalDataErased
                | Self::AccountCreated
                | Self::AccountResumed
                | Self::TeamCreated
                | Self::RoleCreated
                | Self::UserCreated
        )
    }

    /// Reports whether a replica can have remembered anything that such an event changes: if not, the next request for
    /// it asks the database, and need not wait until any replica has applied the event. No caller can have presented a
    /// new key's token before it was minted.
    #[must_use]
    pub const fn can_be_remembered(self) -> bool {
        !matches!(self, Self::ApiKeyCreated)
    }
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The key that called.
    pub key_id: KeyId,
    /// The key's account, or the user's if there is one.
    pub account_id: AccountId,
    /// The user on whose behalf the key acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
}

/// What an event happened to: a type and an id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `api_key`, `account`, `team`, `role`, `user`, `catalogue` or `history`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Empty for the catalogue and the history.
    pub id: String,
}

/// One field's difference. Never a secret, a comment or a metadata value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The field.
    pub field: String,
    /// A single value before.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub before: String,
    /// A single value after.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// In the place of both, if people typed them: what [`super::personal`] commits to.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commitment: String,
    /// List items added, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// List items removed, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// An event before it has its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventDraft {
    /// What happened.
    pub kind: EventKind,
    /// The account it happened in; `None` for the catalogue and the history.
    pub account_id: Option<AccountId>,
    /// Who did it; `None` if Latchkey itself did.
    pub actor: Option<Principal>,
    /// What it happened to.
    pub target: Target,
    /// What changed.
    pub changes: Vec<Change>,
    /// Keys beside the target whose authority changed.
    pub affected_key_ids: Vec<KeyId>,
    /// True if the reach of `system.operate` was used (A3).
    pub break_glass: bool,
}

/// An event of the log. Its encoding is what the chain's hashes cover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the log.
    pub revision: Revision,
    /// Its id.
    pub event_id: EventId,
    /// Microseconds since the Unix epoch, by the database's clock; never decreasing.
    pub time: Timestamp,
    /// [`EventKind::name`], or a name that a later release wrote.
    pub kind: String,
    /// The account it happened in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_id: Option<AccountId>,
    /// Who did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Principal>,
    /// What it happened to.
    pub target: Target,
    /// What changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Keys beside the target whose authority changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected_key_ids: Vec<KeyId>,
    /// True if the reach of `system.operate` was used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
}

impl EventDraft {
    /// Returns the event at its place in the log.
    #[must_use]
    pub fn at(self, revision: Revision, event_id: EventId, time: Timestamp) -> Event {
        Event {
            revision,
            event_id,
            time,
            kind: self.kind.name().to_owned(),
            account_id: self.account_id,
            actor: self.actor,
            target: self.target,
            changes: self.changes,
            affected_key_ids: self.affected_key_ids,
            break_glass: self.break_glass,
        }
    }
}

impl Event {
    /// Returns the bytes to store and to hash: JSON, so that a person with psql can read them.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event has string keys only and cannot fail to serialise")
    }

    /// Reads stored bytes; `None` if they are no event of a format that this build knows.
    #[must_use]
    pub fn decode(format_version: i16, bytes: &[u8]) -> Option<Self> {
        if FORMAT_VERSIONS.contains(&format_version) { serde_json::from_slice(bytes).ok() } else { None }
    }

    /// Returns the kind, if this build knows it.
    #[must_use]
    pub fn known_kind(&self) -> Option<EventKind> {
        EventKind::from_name(&self.kind)
    }
}

/// Returns the next link of the chain.
#[must_use]
pub fn chain(previous: &Hash, bytes: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(previous);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// Returns the difference of two lists as one field; `None` if they are equal.
#[must_use]
pub fn list_change<'a, T: Ord + ToString + 'a>(
    field: &str,
    before: impl IntoIterator<Item = &'a T>,
    after: impl IntoIterator<Item = &'a T>,
) -> Option<Change> {
    let sorted =
        |items: Vec<&'a T>| items.into_iter().map(ToString::to_string).collect::<std::collections::BTreeSet<_>>();
    let before = sorted(before.into_iter().collect());
    let after = sorted(after.into_iter().collect());
    let added: Vec<_> = after.difference(&before).cloned().collect();
    let removed: Vec<_> = before.difference(&after).cloned().collect();
    (!added.is_empty() || !removed.is_empty()).then(|| Change {
        field: field.to_owned(),
        added,
        removed,
        ..Change::default()
    })
}

/// Returns the difference of two single values as one field; `None` if they are equal.
#[must_use]
pub fn value_change(field: &str, before: &str, after: &str) -> Option<Change> {
    (before != after).then(|| Change {
        field: field.to_owned(),
        before: before.to_owned(),
        after: after.to_owned(),
        ..Change::default()
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn event() -> Event {
        let draft = EventDraft {
            kind: EventKind::TeamDeleted,
            account_id: Some(AccountId::from_stored("acme")),
            actor: None,
            target: Target { kind: "team".into(), id: "t".into() },
            changes: vec![],
            affected_key_ids: vec![KeyId::from_uuid(Uuid::from_u128(5))],
            break_glass: false,
        };
        draft.at(Revision { epoch: 1, number: 7 }, EventId::from_uuid(Uuid::from_u128(6)), Timestamp::from_micros(8))
    }

    #[test]
    fn v6_an_event_reads_back_from_its_hashed_bytes() {
        assert_eq!(Event::decode(FORMAT_VERSION, &event().encode()), Some(event()));
        assert_eq!(Event::decode(FORMAT_VERSION + 1, &event().encode()), None);
    }

    #[test]
    fn v6_the_chain_depends_on_every_byte_before() {
        let one = chain(&GENESIS, b"a");
        assert_ne!(one, chain(&GENESIS, b"b"));
        assert_ne!(chain(&one, b"c"), chain(&GENESIS, b"c"));
    }

    #[test]
    fn every_kind_reads_back_and_an_unknown_one_is_kept() {
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_name(kind.name()), Some(*kind));
        }
        assert_eq!(EventKind::from_name("later.kind"), None);
    }

    #[test]
    fn a_change_names_only_what_differs() {
        let set = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(list_change("f", &set(&["a"]), &set(&["a"])), None);
        let change = list_change("f", &set(&["a", "b"]), &set(&["c", "b"])).expect("differs");
        assert_eq!((change.added, change.removed), (set(&["c"]), set(&["a"])));
        assert_eq!(value_change("f", "x", "x"), None);
    }
}

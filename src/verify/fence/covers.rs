//! Which fences an event raises: the one place that knows (V1).
//!
//! The match is exhaustive, so that a new kind of event cannot be forgotten; a kind that a later
//! release wrote, or an event that this build cannot read, raises everything (rolling upgrades).

use super::buckets::{AccountBucket, KeyBucket};
use crate::domain::{
    id::{AccountId, KeyId},
    log::event::{Event, EventKind},
};

/// The fences that an event raises.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Covers {
    keys: Vec<KeyBucket>,
    accounts: Vec<AccountBucket>,
    everything: bool,
}

impl Covers {
    /// Covers all that is cached, absences too.
    #[must_use]
    pub fn all() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Covers a key, with all its tokens.
    #[must_use]
    pub fn key(key_id: KeyId) -> Self {
        Self { keys: vec![KeyBucket::of(key_id)], ..Self::default() }
    }

    /// Covers every key of an account.
    #[must_use]
    pub fn account(account_id: &AccountId) -> Self {
        Self { accounts: vec![AccountBucket::of(account_id)], ..Self::default() }
    }

    /// Returns the fences that an event raises; `None` stands for an event that this build cannot read.
    #[must_use]
    pub fn of(event: Option<&Event>) -> Self {
        let known = event.and_then(|event| Some((event, event.known_kind()?)));
        let covers = known.and_then(|(event, kind)| Self::of_known(event, kind));
        covers.unwrap_or_else(Self::all)
    }

    /// Returns the fences that a known kind raises; `None` if the event does not name what its kind is about.
    fn of_known(event: &Event, kind: EventKind) -> Option<Self> {
        let mut covers = match kind {
            // Edits of one key. Nothing can have been cached of a key before it was created, but to tell
            // that apart would save nothing. A late presentation changes the key's revision, hence what
            // an entry claims.
            EventKind::ApiKeyCreated
            | EventKind::ApiKeyUpdated
            | EventKind::ApiKeyRotated
            | EventKind::ApiKeyDisabled
            | EventKind::ApiKeyEnabled
            | EventKind::ApiKeyDeleted
            | EventKind::ApiKeyRevoked
            | EventKind::RetiringTokenRevoked
            | EventKind::RotatedTokenPresented => Self::key(KeyId::parse("target.id", &event.target.id).ok()?),
            // The account's state is part of each of its keys' answers (A2), and a team's deletion takes it
            // from any number of them (A5). That a team was created or renamed changes no key; the account
            // falls all the same, because this happens rarely and the argument need not hold for ever.
            EventKind::AccountCreated
            | EventKind::AccountUpdated
            | EventKind::AccountDeleted
            | EventKind::AccountSuspended
            | EventKind::AccountResumed
            | EventKind::TeamCreated
            | EventKind::TeamUpdated
            | EventKind::TeamDeleted => Self::account(event.account_id.as_ref()?),
            // Entries hold what *keys* hold. Keys draw on the catalogue, never on roles or users (K1), and
            // outlive their creators (K5). What a user may do is read from the database by every call on a
            // user's behalf (M9) and is in no entry. So there is nothing to refuse, and a bulk sync of
            // users must not empty the cache of its account.
            EventKind::RoleCreated
            | EventKind::RoleUpdated
            | EventKind::RoleDeleted
            | EventKind::UserCreated
            | EventKind::UserUpdated
            | EventKind::UserDeleted => Self::default(),
            // A note: nothing changes, no key's revision either.
            EventKind::AccountReadByOperator => Self::default(),
            // No authority changes: a purge and an erasure remove what the event of the deletion withdrew, and a
            // continuation goes with the event before it, which raised what its kind raises. The keys that they name
            // fall below, since what an entry says of them (their state, that they are known) is of before.
            EventKind::ChangeContinued
            | EventKind::TeamPurged
            | EventKind::AccountPurged
            | EventKind::ApiKeysErased
            // What is erased was never in an entry.
            | EventKind::PersonalDataErased => Self::default(),
            // What each key's permissions amount to (P2).
            EventKind::CatalogueApplied => Self::all(),
            // Nothing that was read of another history may be served. A follower starts afresh in a new
            // epoch and never applies the event that began it; this is for a replica that does.
            EventKind::HistoryAccepted => Self::all(),
        };
        // Whatever its kind: the keys that it names have changed.
        covers.keys.extend(event.affected_key_ids.iter().copied().map(KeyBucket::of));
        Some(covers)
    }

    /// Returns the keys' buckets.
    #[must_use]
    pub fn keys(&self) -> &[KeyBucket] {
        &self.keys
    }

    /// Returns the accounts' buckets.
    #[must_use]
    pub fn accounts(&self) -> &[AccountBucket] {
        &self.accounts
    }

    /// Reports whether everything is covered.
    #[must_use]
    pub fn everything(&self) -> bool {
        self.everything
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        id::EventId,
        log::{
            event::{EventDraft, Target},
            revision::Revision,
        },
        time::Timestamp,
    };

    fn key(id: u128) -> KeyId {
        KeyId::from_uuid(Uuid::from_u128(id))
    }

    fn acme() -> AccountId {
        AccountId::from_stored("acme")
    }

    fn event(kind: EventKind, affected: &[u128]) -> Event {
        let draft = EventDraft {
            kind,
            account_id: (kind != EventKind::CatalogueApplied).then(acme),
            actor: None,
            target: Target { kind: "api_key".into(), id: key(1).to_string() },
            changes: vec![],
            affected_key_ids: affected.iter().copied().map(key).collect(),
            break_glass: false,
        };
        draft.at(Revision { epoch: 1, number: 1 }, EventId::from_uuid(Uuid::from_u128(1)), Timestamp::from_micros(1))
    }

    #[test]
    fn v1_an_event_of_a_key_raises_that_keys_fence() {
        for kind in EventKind::ALL.iter().filter(|kind| kind.name().starts_with("api_key.")) {
            assert_eq!(Covers::of(Some(&event(*kind, &[]))), Covers::key(key(1)), "{kind:?}");
        }
    }

    #[test]
    fn v1_an_event_of_an_account_or_team_raises_the_accounts_fence() {
        let is_purge = |kind: &EventKind| matches!(kind, EventKind::AccountPurged | EventKind::TeamPurged);
        let of_either = |kind: &EventKind| kind.name().starts_with("account.") || kind.name().starts_with("team.");
        let is_note = |kind: &EventKind| *kind == EventKind::AccountReadByOperator;
        for kind in EventKind::ALL.iter().filter(|kind| of_either(kind) && !is_purge(kind) && !is_note(kind)) {
            assert_eq!(Covers::of(Some(&event(*kind, &[]))), Covers::account(&acme()), "{kind:?}");
        }
    }

    #[test]
    fn v1_every_key_that_an_event_names_falls_whatever_its_kind() {
        for kind in EventKind::ALL {
            let covers = Covers::of(Some(&event(*kind, &[8, 9])));
            assert!(covers.keys().contains(&KeyBucket::of(key(8))), "{kind:?}");
            assert!(covers.keys().contains(&KeyBucket::of(key(9))), "{kind:?}");
        }
    }

    #[test]
    fn k5_users_and_roles_change_no_key() {
        for kind in EventKind::ALL.iter().filter(|k| k.name().starts_with("role.") || k.name().starts_with("user.")) {
            assert_eq!(Covers::of(Some(&event(*kind, &[]))), Covers::default(), "{kind:?}");
        }
    }

    #[test]
    fn a3_a_note_of_a_read_raises_nothing() {
        assert_eq!(Covers::of(Some(&event(EventKind::AccountReadByOperator, &[]))), Covers::default());
        assert!(!EventKind::AccountReadByOperator.can_narrow(), "no mutation waits for it");
    }

    #[test]
    fn the_catalogue_and_an_accepted_history_raise_the_global_fence() {
        for kind in [EventKind::CatalogueApplied, EventKind::HistoryAccepted] {
            assert_eq!(Covers::of(Some(&event(kind, &[]))), Covers::all());
        }
    }

    #[test]
    fn an_unknown_kind_raises_the_global_fence() {
        let later = Event { kind: "api_key.imported".into(), ..event(EventKind::ApiKeyCreated, &[]) };
        assert_eq!(Covers::of(Some(&later)), Covers::all());
    }

    #[test]
    fn an_event_that_cannot_be_read_raises_the_global_fence() {
        assert_eq!(Covers::of(None), Covers::all());
        let mut nameless = event(EventKind::ApiKeyDeleted, &[]);
        nameless.target.id = "not a key".into();
        assert_eq!(Covers::of(Some(&nameless)), Covers::all());
        let homeless = Event { account_id: None, ..event(EventKind::TeamDeleted, &[]) };
        assert_eq!(Covers::of(Some(&homeless)), Covers::all());
    }
}

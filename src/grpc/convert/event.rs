//! Converts events and filters of events.

use std::collections::BTreeSet;

use super::{
    all,
    api_key::to_principal,
    optional,
    revision::{revision, to_revision},
    specified,
    time::to_timestamp,
};
use crate::{
    app::{
        ports::{EventFilter, StoredEvent},
        types::ChainReport,
    },
    domain::{
        Error,
        error::Violated,
        id::{AccountId, KeyId},
        log::{
            event::{Change, Event, EventKind},
            revision::Revision,
        },
    },
    proto,
};

/// Parses the filter of a list of events, and the revision after which the list starts.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn filter(request: &proto::ListEventsRequest) -> Result<(EventFilter, Option<Revision>), Error> {
    let (account_id, kinds, key_id, after) = all((
        optional("account_id", &request.account_id, AccountId::parse),
        kinds(&request.kinds),
        optional("key_id", &request.key_id, KeyId::parse),
        revision("after_revision", request.after_revision),
    ))?;
    Ok((EventFilter { account_id, kinds, key_id }, after))
}

fn kinds(kinds: &[i32]) -> Result<BTreeSet<EventKind>, Error> {
    let mut problems = Violated::default();
    let mut set = BTreeSet::new();
    for (i, kind) in kinds.iter().enumerate() {
        set.extend(problems.collect(specified(&format!("kinds[{i}]"), *kind, from_kind))?);
    }
    problems.finish()?;
    Ok(set)
}

macro_rules! kinds {
    ($($kind:ident),+ $(,)?) => {
        fn from_kind(kind: proto::EventKind) -> Option<EventKind> {
            match kind {
                proto::EventKind::Unspecified => None,
                $(proto::EventKind::$kind => Some(EventKind::$kind),)+
            }
        }

        fn to_kind(kind: EventKind) -> proto::EventKind {
            match kind { $(EventKind::$kind => proto::EventKind::$kind),+ }
        }
    };
}

kinds!(
    ApiKeyCreated,
    ApiKeyUpdated,
    ApiKeyRotated,
    ApiKeyDisabled,
    ApiKeyEnabled,
    ApiKeyDeleted,
    ApiKeyRevoked,
    RetiringTokenRevoked,
    RotatedTokenPresented,
    AccountCreated,
    AccountUpdated,
    AccountDeleted,
    AccountSuspended,
    AccountResumed,
    TeamCreated,
    TeamUpdated,
    TeamDeleted,
    RoleCreated,
    RoleUpdated,
    RoleDeleted,
    UserCreated,
    UserUpdated,
    UserDeleted,
    CatalogueApplied,
    HistoryAccepted,
    AccountReadByOperator,
    ChangeContinued,
    TeamPurged,
    AccountPurged,
    ApiKeysErased,
    PersonalDataErased,
);

/// Converts an event to its message. Of an event whose format this build cannot read, only the revision and the hash
/// are shown.
#[must_use]
pub fn to_event(stored: StoredEvent) -> proto::Event {
    let (revision, hash) = (stored.revision(), stored.hash.to_vec());
    match stored.event {
        None => proto::Event { revision: Some(to_revision(revision)), hash, ..proto::Event::default() },
        Some(event) => to_readable_event(event, hash),
    }
}

/// The bytes that the lists of one event may take in a message. An event has at most two thirds of that
/// (`domain::event_parts`) unless an earlier release wrote it; a page of events and one more event fit into 4 MiB.
const SHOWN_BYTES_MAX: usize = 3 << 19;

/// Truncates the lists of an event to `bytes_max`; returns whether it had to.
fn shorten(event: &mut proto::Event, bytes_max: usize) -> bool {
    /// The bytes that an item takes in addition to its text.
    const ITEM_BYTES: usize = 5;
    let (mut bytes, mut is_cut) = (0, false);
    let changes = event.changes.iter_mut().flat_map(|change| [&mut change.added, &mut change.removed]);
    for list in changes.chain([&mut event.affected_key_ids]) {
        let fitting = list.iter().take_while(|item| {
            bytes += item.len() + ITEM_BYTES;
            bytes <= bytes_max
        });
        let fitting = fitting.count();
        is_cut |= fitting < list.len();
        list.truncate(fitting);
    }
    is_cut
}

fn to_readable_event(event: Event, hash: Vec<u8>) -> proto::Event {
    let mut shown = to_whole_event(event, hash);
    shown.truncated = shorten(&mut shown, SHOWN_BYTES_MAX);
    shown
}

fn to_whole_event(event: Event, hash: Vec<u8>) -> proto::Event {
    proto::Event {
        revision: Some(to_revision(event.revision)),
        event_id: event.event_id.to_string(),
        time: Some(to_timestamp(event.time)),
        kind: event.known_kind().map_or(proto::EventKind::Unspecified, to_kind).into(),
        kind_name: event.kind,
        account_id: event.account_id.map(|id| id.to_string()).unwrap_or_default(),
        actor: event.actor.as_ref().map(to_principal),
        target: Some(proto::EventTarget { r#type: event.target.kind, id: event.target.id }),
        changes: event.changes.into_iter().map(to_change).collect(),
        affected_key_ids: event.affected_key_ids.iter().map(ToString::to_string).collect(),
        break_glass: event.break_glass,
        hash,
        truncated: false,
    }
}

fn to_change(change: Change) -> proto::FieldChange {
    proto::FieldChange {
        erased: change.is_sealed(),
        field: change.field,
        before: change.before,
        after: change.after,
        added: change.added,
        removed: change.removed,
    }
}

/// Converts the result of verifying the chain (V6).
#[must_use]
pub fn to_chain_report(report: ChainReport) -> proto::VerifyEventChainResponse {
    let valid = report.broken.is_none();
    let (first_invalid_number, problem) = report.broken.unwrap_or_default();
    proto::VerifyEventChainResponse {
        valid,
        verified_events: report.verified_events.into(),
        verified_after: Some(to_revision(report.verified_after)),
        verified_through: Some(to_revision(report.verified_through)),
        next_start_number: report.next_start_number.unwrap_or_default(),
        first_invalid_number,
        problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_number_in_the_contract() {
        for kind in EventKind::ALL {
            assert_eq!(from_kind(to_kind(*kind)), Some(*kind));
        }
        // And every number but 0 has its kind.
        let numbers = (1..1_000).filter_map(|n| proto::EventKind::try_from(n).ok());
        assert_eq!(numbers.filter_map(from_kind).count(), EventKind::ALL.len());
        assert_eq!((1..1_000).filter(|n| proto::EventKind::try_from(*n).is_ok()).count(), EventKind::ALL.len());
    }

    #[test]
    fn an_event_of_an_earlier_release_is_cut_off_where_a_watcher_would_not_take_it() {
        use prost::Message;
        let list = |n: usize| (0..n).map(|n| format!("key_{n:026}")).collect::<Vec<_>>();
        let change = proto::FieldChange { field: "users".into(), removed: list(1_000), ..Default::default() };
        let whole = proto::Event { changes: vec![change], affected_key_ids: list(200_000), ..Default::default() };
        let mut cut = whole.clone();
        assert!(whole.encoded_len() > 4 << 20 && shorten(&mut cut, SHOWN_BYTES_MAX));
        assert!((1 << 20..2 << 20).contains(&cut.encoded_len()));
        assert_eq!(cut.changes, whole.changes);
        assert!(whole.affected_key_ids.starts_with(&cut.affected_key_ids));
        let mut small = proto::Event { affected_key_ids: list(1_000), ..Default::default() };
        assert!(!shorten(&mut small, SHOWN_BYTES_MAX) && small.affected_key_ids.len() == 1_000);
    }

    #[test]
    fn an_event_of_a_later_format_still_says_where_in_the_log_it_is() {
        let stored = StoredEvent {
            epoch: 3,
            number: 7,
            payload: b"later".to_vec(),
            hash: [9; 32],
            event: None,
            columns_match: true,
        };
        let event = to_event(stored);
        assert_eq!(event.revision, Some(proto::Revision { epoch: 3, number: 7 }));
        assert_eq!(event.hash, [9; 32]);
    }

    #[test]
    fn an_unspecified_kind_is_refused_by_its_place() {
        let request = proto::ListEventsRequest { kinds: vec![1, 0, 99], ..proto::ListEventsRequest::default() };
        let error = filter(&request).expect_err("bad").to_string();
        assert!(error.contains("kinds[1]") && error.contains("kinds[2]"), "{error}");
    }
}

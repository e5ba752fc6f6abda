//! What the log says of a key's change: the difference, never a secret.

use crate::{
    app::{
        caller::requester::Actor,
        ports::{Append, Stamp},
    },
    domain::{
        api_key::{ApiKey, ApiKeyContent},
        log::event::{Change, EventDraft, EventKind, Target, list_change, value_change},
        permissions::grants::{Grants, TeamScope},
        time::Timestamp,
    },
};

/// Makes one event about a key, with its difference. `before` is `None` for a new key.
pub(super) fn event(kind: EventKind, actor: &Actor, before: Option<&ApiKey>, after: &ApiKey) -> Append {
    let stamps = vec![Stamp::ApiKeys(after.account_id.clone(), vec![after.key_id])];
    Append { draft: draft(kind, actor, after, changes(before, after)), stamps }
}

/// Drafts an event about a key with these changes; the caller says what it stamps.
pub(super) fn draft(kind: EventKind, actor: &Actor, key: &ApiKey, changes: Vec<Change>) -> EventDraft {
    EventDraft {
        kind,
        account_id: Some(key.account_id.clone()),
        actor: actor.principal.clone(),
        target: Target { kind: "api_key".into(), id: key.key_id.to_string() },
        changes,
        affected_key_ids: Vec::new(),
        break_glass: actor.break_glass(),
    }
}

fn changes(before: Option<&ApiKey>, after: &ApiKey) -> Vec<Change> {
    let nothing = ApiKeyContent::default();
    let (old, new) = (before.map_or(&nothing, |key| &key.content), &after.content);
    let hidden = |field: &str, differs: bool| differs.then(|| Change { field: field.into(), ..Change::default() });
    [
        value_change("name", &old.name, &new.name),
        hidden("comment", old.comment != new.comment),
        hidden("metadata", old.metadata != new.metadata),
        list_change("account_permissions", &old.grants.account_permissions, &new.grants.account_permissions),
        list_change("team_scope.team_ids", teams(&old.grants), teams(&new.grants)),
        list_change("team_scope.permissions", names(&old.grants), names(&new.grants)),
        value_change("expire_time", &time(old.expire_time), &time(new.expire_time)),
        value_change("state", before.map_or("", |key| key.state.as_str()), after.state.as_str()),
        value_change("token_hint", before.map_or("", |key| key.token_hint.as_str()), &after.token_hint),
        value_change(
            "retiring_token_end_time",
            &time(before.and_then(|key| key.retiring_end_time)),
            &time(after.retiring_end_time),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn teams(grants: &Grants) -> Vec<&crate::domain::id::TeamId> {
    grants.team_scope.iter().flat_map(TeamScope::team_ids).collect()
}

fn names(grants: &Grants) -> Vec<&String> {
    grants.team_scope.iter().flat_map(TeamScope::permissions).collect()
}

/// Microseconds since the Unix epoch; empty for never.
fn time(time: Option<Timestamp>) -> String {
    time.map(|time| time.as_micros().to_string()).unwrap_or_default()
}

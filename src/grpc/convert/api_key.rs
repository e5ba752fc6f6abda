//! Converts keys: drafts, edits and filters to domain values, keys to messages. Tokens never pass through here (K4).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Within, all, optional, specified,
    time::{timestamp, to_timestamp, ttl},
};
use crate::{
    app::{
        ports::ApiKeyFilter,
        types::{ApiKeyDraft, ApiKeyEdit, Expiry, TeamScopeEdit},
    },
    domain::{
        Error,
        api_key::{ApiKey, ApiKeyState},
        error::Violated,
        id::{AccountId, TeamId},
        log::event::Principal,
        permissions::{
            grants::{self, Grants, TeamScope},
            permission,
        },
        text,
    },
    grpc::request::field_mask::{ApiKeyPath, Mask},
    proto,
};

/// Parses a key to mint. Output-only fields are ignored.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn draft(key: proto::ApiKey) -> Result<ApiKeyDraft, Error> {
    let (name, comment, metadata, account_permissions, team_scope, expiry) = all((
        name(key.name),
        comment(key.comment),
        metadata(key.metadata),
        account_permissions(&key.account_permissions),
        team_scope(key.team_scope),
        expiry(key.expiry),
    ))?;
    Ok(ApiKeyDraft { name, comment, metadata, grants: Grants { account_permissions, team_scope }, expiry })
}

/// Parses an edit of the fields that the mask names; the others are not examined.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn edit(key: proto::ApiKey, mask: &Mask) -> Result<ApiKeyEdit, Error> {
    let team_scope = team_scope_edit(key.team_scope, mask);
    let named_expiry = mask.has(ApiKeyPath::ExpireTime) || mask.has(ApiKeyPath::Ttl);
    let (name, comment, metadata, account_permissions, team_scope, expiry) = all((
        when(mask.has(ApiKeyPath::Name), || name(key.name)),
        when(mask.has(ApiKeyPath::Comment), || comment(key.comment)),
        when(mask.has(ApiKeyPath::Metadata), || metadata(key.metadata)),
        when(mask.has(ApiKeyPath::AccountPermissions), || account_permissions(&key.account_permissions)),
        team_scope,
        when(named_expiry, || expiry(key.expiry)),
    ))?;
    Ok(ApiKeyEdit { name, comment, metadata, account_permissions, team_scope, expiry })
}

fn when<T>(named: bool, parse: impl FnOnce() -> Result<T, Error>) -> Result<Option<T>, Error> {
    if named { parse().map(Some) } else { Ok(None) }
}

fn team_scope_edit(scope: Option<proto::TeamScope>, mask: &Mask) -> Result<Option<TeamScopeEdit>, Error> {
    if mask.has(ApiKeyPath::TeamScope) {
        return Ok(Some(TeamScopeEdit::Whole(team_scope(scope)?)));
    }
    let (teams, names) = (mask.has(ApiKeyPath::TeamIds), mask.has(ApiKeyPath::TeamPermissions));
    if !teams && !names {
        return Ok(None);
    }
    let scope = scope.unwrap_or_default();
    let (team_ids, permissions) = all((
        when(teams, || grants::parse_team_ids("team_ids", &scope.team_ids)),
        when(names, || grants::parse_names("permissions", &scope.permissions)),
    ))
    .within("team_scope")?;
    Ok(Some(TeamScopeEdit::Parts { team_ids, permissions }))
}

fn name(name: String) -> Result<String, Error> {
    text::check_name("name", &name).map(|()| name)
}

fn comment(comment: String) -> Result<String, Error> {
    text::check_comment("comment", &comment).map(|()| comment)
}

fn metadata(pairs: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, Error> {
    let pairs = pairs.into_iter().collect();
    text::check_metadata("metadata", &pairs).map(|()| pairs)
}

fn account_permissions(names: &[String]) -> Result<BTreeSet<String>, Error> {
    grants::parse_names("account_permissions", names)
}

fn team_scope(scope: Option<proto::TeamScope>) -> Result<Option<TeamScope>, Error> {
    scope.map(|scope| TeamScope::parse("team_scope", &scope.team_ids, &scope.permissions)).transpose()
}

fn expiry(expiry: Option<proto::api_key::Expiry>) -> Result<Expiry, Error> {
    match expiry {
        None => Ok(Expiry::Never),
        Some(proto::api_key::Expiry::ExpireTime(moment)) => timestamp("expire_time", moment).map(Expiry::At),
        Some(proto::api_key::Expiry::Ttl(span)) => ttl("ttl", span).map(Expiry::In),
    }
}

/// Parses the filter of a list of keys.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field, DELETED without `show_deleted` included: together they would ask for
/// keys and hide them.
pub fn filter(request: &proto::ListApiKeysRequest) -> Result<ApiKeyFilter, Error> {
    let (team_id, permission, states) = all((
        optional("team_id", &request.team_id, TeamId::parse),
        optional("permission", &request.permission, |field, name| {
            permission::check_name(field, name).map(|()| name.to_owned())
        }),
        states(&request.states, request.show_deleted),
    ))?;
    Ok(ApiKeyFilter { team_id, permission, states, show_deleted: request.show_deleted })
}

fn states(states: &[i32], show_deleted: bool) -> Result<BTreeSet<ApiKeyState>, Error> {
    let mut problems = Violated::default();
    let mut set = BTreeSet::new();
    for (i, state) in states.iter().enumerate() {
        let field = format!("states[{i}]");
        let state = problems.collect(specified(&field, *state, from_state))?;
        if state == Some(ApiKeyState::Deleted) && !show_deleted {
            problems.add(field, "DELETED needs show_deleted");
        }
        set.extend(state);
    }
    problems.finish()?;
    Ok(set)
}

fn from_state(state: proto::ApiKeyState) -> Option<ApiKeyState> {
    match state {
        proto::ApiKeyState::Unspecified => None,
        proto::ApiKeyState::Active => Some(ApiKeyState::Active),
        proto::ApiKeyState::Disabled => Some(ApiKeyState::Disabled),
        proto::ApiKeyState::Deleted => Some(ApiKeyState::Deleted),
    }
}

fn to_state(state: ApiKeyState) -> proto::ApiKeyState {
    match state {
        ApiKeyState::Active => proto::ApiKeyState::Active,
        ApiKeyState::Disabled => proto::ApiKeyState::Disabled,
        ApiKeyState::Deleted => proto::ApiKeyState::Deleted,
    }
}

/// Converts a key to its message.
#[must_use]
pub fn to_api_key(key: ApiKey) -> proto::ApiKey {
    let content = key.content;
    proto::ApiKey {
        key_id: key.key_id.to_string(),
        account_id: key.account_id.to_string(),
        name: content.name,
        comment: content.comment,
        metadata: content.metadata.into_iter().collect(),
        account_permissions: content.grants.account_permissions.into_iter().collect(),
        team_scope: content.grants.team_scope.as_ref().map(to_team_scope),
        expiry: content.expire_time.map(to_timestamp).map(proto::api_key::Expiry::ExpireTime),
        state: to_state(key.state).into(),
        token_hint: key.token_hint,
        create_time: Some(to_timestamp(key.create_time)),
        update_time: Some(to_timestamp(key.update_time)),
        delete_time: key.delete_time.map(to_timestamp),
        rotate_time: Some(to_timestamp(key.rotate_time)),
        retiring_token_end_time: key.retiring_end_time.map(to_timestamp),
        last_used_time: key.last_used_time.map(to_timestamp),
        creator: Some(key.creator.as_ref().map_or_else(bootstrap, to_principal)),
        etag: key.revision.etag().to_string(),
        current_token_last_used_time: key.current_token_last_used_time.map(to_timestamp),
        retiring_token_last_used_time: key.retiring_token_last_used_time.map(to_timestamp),
    }
}

fn to_team_scope(scope: &TeamScope) -> proto::TeamScope {
    proto::TeamScope {
        team_ids: scope.team_ids().iter().map(ToString::to_string).collect(),
        permissions: scope.permissions().iter().cloned().collect(),
    }
}

/// Converts the principal of a change.
#[must_use]
pub fn to_principal(principal: &Principal) -> proto::Principal {
    proto::Principal {
        key_id: principal.key_id.to_string(),
        account_id: principal.account_id.to_string(),
        user_id: principal.user_id.as_ref().map(ToString::to_string).unwrap_or_default(),
    }
}

/// Returns the principal of `latchkey bootstrap`, which acts for account `system` without a key.
fn bootstrap() -> proto::Principal {
    proto::Principal { account_id: AccountId::system().to_string(), ..proto::Principal::default() }
}

//! Converts requirements of checks, and the answers to them. Never looks into a token.

use super::{all, api_key::to_api_key, revision::to_revision, time::to_timestamp};
use crate::{
    app::{Verification, types::IdentityView},
    domain::{
        Error,
        id::{AccountId, TeamId},
        permissions::{
            catalogue::Catalogue,
            grants::TEAMS_MAX,
            permission::{self, PermissionSet},
        },
        verification::{Outcome, TokenFacts},
    },
    proto,
};

/// A requirement whose permission has not been looked up.
#[derive(Debug)]
pub struct NamedRequirement {
    /// The account that owns the resource.
    pub account_id: AccountId,
    /// The permission's name.
    pub permission: String,
    /// The teams that own the resource.
    pub team_ids: Vec<TeamId>,
}

/// Parses a requirement: account and permission are mandatory.
///
/// # Errors
/// [`Error::Invalid`] naming every wrong field.
pub fn requirement(requirement: proto::Requirement) -> Result<NamedRequirement, Error> {
    let (account_id, permission, team_ids) = all((
        AccountId::parse("account_id", &requirement.account_id),
        permission_name(requirement.permission),
        team_ids(&requirement.team_ids),
    ))?;
    Ok(NamedRequirement { account_id, permission, team_ids })
}

fn permission_name(name: String) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::field("permission", "is required: the permission that the token must be good for"));
    }
    permission::check_name("permission", &name).map(|()| name)
}

fn team_ids(ids: &[String]) -> Result<Vec<TeamId>, Error> {
    let field = "team_ids";
    if ids.len() > TEAMS_MAX {
        return Err(Error::field(field, format!("must have at most {TEAMS_MAX} entries (got {})", ids.len())));
    }
    // Parsed with an empty field name: an item of a list of strings is `team_ids[i]` itself.
    match ids.iter().map(|id| TeamId::parse("", id)).collect() {
        Ok(ids) => Ok(ids),
        Err(_) => ids.iter().enumerate().map(|(i, id)| TeamId::parse(&format!("{field}[{i}]"), id)).collect(),
    }
}

/// Converts an outcome to its value in the contract.
#[must_use]
pub fn to_outcome(outcome: Outcome) -> proto::VerificationOutcome {
    match outcome {
        Outcome::Malformed => proto::VerificationOutcome::Malformed,
        Outcome::Unknown => proto::VerificationOutcome::Unknown,
        Outcome::Deleted => proto::VerificationOutcome::Deleted,
        Outcome::Rotated => proto::VerificationOutcome::Rotated,
        Outcome::AccountSuspended => proto::VerificationOutcome::AccountSuspended,
        Outcome::Disabled => proto::VerificationOutcome::Disabled,
        Outcome::Expired => proto::VerificationOutcome::Expired,
        Outcome::PermissionDenied => proto::VerificationOutcome::PermissionDenied,
        Outcome::Valid => proto::VerificationOutcome::Valid,
    }
}

/// Converts an answer: the key is named whenever it is known, its permissions only when it is VALID.
#[must_use]
pub fn to_verification(verification: &Verification) -> proto::TokenVerification {
    let known = verification.entry().map(|entry| (entry.facts(), &**entry.catalogue()));
    let answer = to_answer(verification.outcome(), known, to_revision(verification.revision()));
    proto::TokenVerification { stale: verification.stale(), ..answer }
}

fn to_answer(
    outcome: Outcome,
    known: Option<(&TokenFacts, &Catalogue)>,
    revision: proto::Revision,
) -> proto::TokenVerification {
    let mut answer = proto::TokenVerification {
        outcome: to_outcome(outcome).into(),
        revision: Some(revision),
        ..proto::TokenVerification::default()
    };
    if let Some((facts, catalogue)) = known {
        answer.key_id = facts.key_id.to_string();
        answer.account_id = facts.account_id.to_string();
        if outcome == Outcome::Valid {
            answer.account_permissions = catalogue.names(&facts.account_permissions);
            answer.team_scope = to_team_scope(facts, catalogue);
            answer.expire_time = facts.end_time().map(to_timestamp);
        }
    }
    answer
}

/// Converts a team scope; `None` unless both lists are non-empty (K2): retiring permissions can empty one.
fn to_team_scope(facts: &TokenFacts, catalogue: &Catalogue) -> Option<proto::TeamScope> {
    let permissions = catalogue.names(&facts.team_permissions);
    let team_ids: Vec<_> = facts.team_ids.iter().map(ToString::to_string).collect();
    (!permissions.is_empty() && !team_ids.is_empty()).then_some(proto::TeamScope { team_ids, permissions })
}

/// Converts the identity and the permissions of the bearer, or of the user that it acts for.
#[must_use]
pub fn to_identity(view: IdentityView) -> proto::GetIdentityResponse {
    let names = |set: &PermissionSet| view.catalogue.names(set);
    let on_team = |team: &TeamId, set: &PermissionSet| proto::TeamPermissions {
        team_id: team.to_string(),
        permissions: names(set),
    };
    proto::GetIdentityResponse {
        account_id: view.account_id.to_string(),
        user_id: view.user_id.as_ref().map(ToString::to_string).unwrap_or_default(),
        account_permissions: names(&view.held.account),
        team_permissions: view.held.teams.keys().map(|team| on_team(team, &view.held.on(team))).collect(),
        grantable_account_permissions: names(&view.grantable_account),
        grantable_team_permissions: view.grantable_teams.iter().map(|(team, set)| on_team(team, set)).collect(),
        revision: Some(to_revision(view.revision)),
        api_key: view.key.map(to_api_key),
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;

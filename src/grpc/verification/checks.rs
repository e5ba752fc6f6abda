//! Parses, resolves and answers checks of tokens that were decoded with prost. Shared by the unary call, the batch and
//! the stream, which differ only in where checks come from.

use futures_util::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::{
    app::{App, error::AppError},
    domain::{self, error::Violated, verification::Requirement},
    grpc::convert::{
        Within, check_batch, each,
        token::{NamedRequirement, requirement, to_verification},
    },
    proto,
};

/// Checks of one message that may wait for the store at once; checks that the cache answers do not wait.
const CONCURRENT_CHECKS_MAX: usize = 32;

/// A check whose shape is right. Has no `Debug`: it holds a token, and wipes it when dropped (T2).
pub struct ParsedCheck {
    token: Zeroizing<String>,
    requirement: Option<NamedRequirement>,
}

/// Parses one check.
///
/// # Errors
/// [`domain::Error::Invalid`] naming every wrong field.
pub fn parse_check(token: String, needed: Option<proto::Requirement>) -> Result<ParsedCheck, domain::Error> {
    let token = Zeroizing::new(token);
    let requirement = needed.map(requirement).transpose().within("requirement")?;
    Ok(ParsedCheck { token, requirement })
}

/// Parses the checks of a batch: 1-1,000.
///
/// # Errors
/// [`domain::Error::Invalid`] naming every wrong field as `checks[i].…`.
pub fn parse_checks(checks: Vec<proto::TokenCheck>) -> Result<Vec<ParsedCheck>, domain::Error> {
    check_batch("checks", &checks)?;
    each("checks", checks, |check| parse_check(check.token, check.requirement))
}

/// Answers one check.
///
/// # Errors
/// INVALID_ARGUMENT for an unknown permission; UNAVAILABLE if the answer cannot be known.
pub async fn answer(app: &App, check: ParsedCheck) -> Result<proto::TokenVerification, AppError> {
    let requirement = resolve(app, check.requirement).await?;
    verify(app, check.token, requirement).await
}

/// Answers a batch, in its order: all of it or none.
///
/// # Errors
/// As [`answer`], naming every unknown permission as `checks[i].requirement.permission`.
pub async fn answer_all(app: &App, checks: Vec<ParsedCheck>) -> Result<Vec<proto::TokenVerification>, AppError> {
    let mut problems = Violated::default();
    let mut resolved = Vec::with_capacity(checks.len());
    for (i, check) in checks.into_iter().enumerate() {
        match resolve(app, check.requirement).await {
            Ok(requirement) => resolved.push((check.token, requirement)),
            Err(AppError::Rule(error)) => _ = problems.collect::<()>(Err(error).within(format_args!("checks[{i}]")))?,
            Err(other) => return Err(other),
        }
    }
    problems.finish()?;
    let answers = resolved.into_iter().map(|(token, requirement)| verify(app, token, requirement));
    stream::iter(answers).buffered(CONCURRENT_CHECKS_MAX).try_collect().await
}

async fn resolve(app: &App, named: Option<NamedRequirement>) -> Result<Option<Requirement>, AppError> {
    match named {
        None => Ok(None),
        Some(NamedRequirement { account_id, permission, team_ids }) => {
            app.requirement("requirement", &account_id, &permission, team_ids).await.map(Some)
        }
    }
}

async fn verify(
    app: &App,
    token: Zeroizing<String>,
    requirement: Option<Requirement>,
) -> Result<proto::TokenVerification, AppError> {
    let verified = app.verify(token.as_bytes(), requirement.as_ref()).await?;
    Ok(to_verification(&verified))
}

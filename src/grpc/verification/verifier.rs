//! Questions about tokens, one or many: their shape, their requirements' permissions, their answers.
//! Shared by the unary call, the batch and the stream, which differ only in where questions come from.

use futures_util::{StreamExt, TryStreamExt, stream};
use zeroize::Zeroizing;

use crate::{
    app::{App, error::Error},
    domain::{self, error::Violated, verification::Requirement},
    grpc::convert::{
        Within, check_batch, each,
        token::{NamedRequirement, requirement, to_verification},
    },
    proto,
};

/// Questions of one message that may wait for the store at once; hot ones do not wait.
const QUESTIONS_WAITING_MAX: usize = 32;

/// One question, its shape checked. Has no `Debug`: it holds a token, and wipes it at the end (T2).
pub struct Question {
    token: Zeroizing<String>,
    requirement: Option<NamedRequirement>,
}

/// One question's shape.
///
/// # Errors
/// [`domain::Error::Invalid`] naming every wrong field.
pub fn question(token: String, needed: Option<proto::Requirement>) -> Result<Question, domain::Error> {
    let token = Zeroizing::new(token);
    let requirement = needed.map(requirement).transpose().within("requirement")?;
    Ok(Question { token, requirement })
}

/// The questions of a batch: 1-1,000.
///
/// # Errors
/// [`domain::Error::Invalid`] naming every wrong field as `checks[i].…`.
pub fn questions(checks: Vec<proto::TokenCheck>) -> Result<Vec<Question>, domain::Error> {
    check_batch("checks", &checks)?;
    each("checks", checks, |check| question(check.token, check.requirement))
}

/// Answers one question.
///
/// # Errors
/// INVALID_ARGUMENT for an unknown permission; UNAVAILABLE if the answer cannot be known.
pub async fn answer(app: &App, question: Question) -> Result<proto::TokenVerification, Error> {
    let requirement = resolve(app, question.requirement).await?;
    verify(app, question.token, requirement).await
}

/// Answers a batch, in its order: all of it or none.
///
/// # Errors
/// As [`answer`], naming every unknown permission as `checks[i].requirement.permission`.
pub async fn answer_all(app: &App, questions: Vec<Question>) -> Result<Vec<proto::TokenVerification>, Error> {
    let mut problems = Violated::default();
    let mut resolved = Vec::with_capacity(questions.len());
    for (i, question) in questions.into_iter().enumerate() {
        match resolve(app, question.requirement).await {
            Ok(requirement) => resolved.push((question.token, requirement)),
            Err(Error::Rule(error)) => _ = problems.collect::<()>(Err(error).within(format_args!("checks[{i}]")))?,
            Err(other) => return Err(other),
        }
    }
    problems.finish()?;
    let answers = resolved.into_iter().map(|(token, requirement)| verify(app, token, requirement));
    stream::iter(answers).buffered(QUESTIONS_WAITING_MAX).try_collect().await
}

async fn resolve(app: &App, named: Option<NamedRequirement>) -> Result<Option<Requirement>, Error> {
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
) -> Result<proto::TokenVerification, Error> {
    let verified = app.verify(token.as_bytes(), requirement.as_ref()).await?;
    Ok(to_verification(&verified))
}

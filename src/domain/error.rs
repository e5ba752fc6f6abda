//! What the rules can say no with. Closed on purpose: `grpc::status` maps it in one exhaustive match.

use std::fmt;

/// A field of the request that is wrong, by its path in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// Such as `api_key.team_scope.team_ids[1]`.
    pub field: String,
    /// What is wrong and what would be right, for people. Never repeats a token.
    pub description: String,
}

/// The kinds of object that can be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// An account.
    Account,
    /// An API key.
    ApiKey,
    /// A team.
    Team,
    /// A role.
    Role,
    /// A user.
    User,
}

/// A refusal by the rules. Its texts are public: they name fields and ids, nothing internal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fields are wrong, in the request alone or against the state.
    #[error("invalid request: {}", Violations(.0))]
    Invalid(Vec<FieldViolation>),
    /// The caller may see it but lacks a permission (on a team).
    #[error("{}", Missing(.permission, .team.as_deref()))]
    PermissionMissing {
        /// The missing permission's name.
        permission: String,
        /// The id of the team it is missing on; `None` if it is missing account-wide.
        team: Option<String>,
    },
    /// The rules forbid this to the caller, whatever it holds.
    #[error("{message}")]
    NotAllowed {
        /// The rule's number, such as `M5`.
        rule: &'static str,
        /// What is forbidden, for people.
        message: &'static str,
    },
    /// Absent, or invisible to the caller (M8).
    #[error("{0} not found")]
    NotFound(ObjectKind),
    /// The etag is not the current one.
    #[error("the etag is stale: read the object again and retry with its current etag")]
    StaleEtag,
    /// The object's state does not allow it.
    #[error("{0}")]
    WrongState(String),
    /// Something still refers to the object.
    #[error("{0}")]
    InUse(String),
    /// What was deleted before is still being removed: to be tried again.
    #[error("{0}")]
    StillDeleting(String),
    /// The id of a deleted account (A5).
    #[error("the account was deleted, and account ids are never reused: choose another id")]
    IdNotReusable,
    /// A limit on how many there may be.
    #[error("quota reached: {quota} is limited to {limit}")]
    QuotaExceeded {
        /// What is limited, such as `api_keys_per_account`.
        quota: &'static str,
        /// How many are allowed.
        limit: u32,
    },
}

impl Error {
    /// Names one wrong field.
    #[must_use]
    pub fn field(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid(vec![FieldViolation { field: field.into(), description: description.into() }])
    }

    /// Names a permission that is missing account-wide.
    #[must_use]
    pub fn missing(permission: &str) -> Self {
        Self::PermissionMissing { permission: permission.to_owned(), team: None }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::ApiKey => "API key",
            Self::Team => "team",
            Self::Role => "role",
            Self::User => "user",
        })
    }
}

struct Violations<'a>(&'a [FieldViolation]);

impl fmt::Display for Violations<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.description)?;
        }
        Ok(())
    }
}

struct Missing<'a>(&'a str, Option<&'a str>);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            None => write!(f, "permission `{}` is missing at account level", self.0),
            Some(team) => write!(f, "permission `{}` is missing on team `{team}`", self.0),
        }
    }
}

/// Violations that one answer names: it travels in a trailer, which clients bound.
const VIOLATIONS_MAX: usize = 20;

/// Collects violations so that a caller learns of them at once: the first 20.
#[derive(Debug, Default)]
pub struct Violated(Vec<FieldViolation>);

impl Violated {
    /// Adds a violation, unless there are `VIOLATIONS_MAX` already.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        if self.0.len() < VIOLATIONS_MAX {
            self.0.push(FieldViolation { field: field.into(), description: description.into() });
        }
    }

    /// Takes over those of a failed check, and passes on what succeeded.
    ///
    /// # Errors
    /// Whatever is not about fields ends the collection.
    pub fn collect<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(Error::Invalid(violations)) => {
                violations.into_iter().for_each(|violation| self.add(violation.field, violation.description));
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// [`Error::Invalid`] if anything was noted.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Invalid(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_a_bounded_number_of_violations() {
        let mut problems = Violated::default();
        (0..1_000).for_each(|i| problems.add(format!("f[{i}]"), "wrong"));
        assert_eq!(problems.collect::<()>(Err(Error::field("one", "more"))), Ok(None));
        let Err(Error::Invalid(violations)) = problems.finish() else { panic!("there were violations") };
        assert_eq!((violations.len(), violations[0].field.as_str()), (VIOLATIONS_MAX, "f[0]"));
    }
}

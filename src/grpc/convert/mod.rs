//! Converts messages to domain values and back. Knows shapes only: what a field may look like, never what a caller may
//! do, and never a transport, a status or a use-case.
//!
//! Every parser names fields relative to its own message; the caller prefixes its own path with [`Within::within`]. All
//! problems of a request are collected before it is refused: [`all`], [`each`].

pub mod api_key;
pub mod catalogue;
pub mod directory;
pub mod event;
pub mod revision;
pub mod time;
pub mod token;

use std::fmt::Display;

use crate::domain::{Error, error::Violated};

/// The most items of one batch request.
pub const BATCH_ITEMS_MAX: usize = 1_000;

/// Prefixes the paths of wrong fields.
pub trait Within {
    /// Prefixes the path of every wrong field with `path`. Costs nothing if there is none.
    #[must_use]
    fn within(self, path: impl Display) -> Self;
}

impl<T> Within for Result<T, Error> {
    fn within(self, path: impl Display) -> Self {
        self.map_err(|error| match error {
            Error::Invalid(mut violations) => {
                for violation in &mut violations {
                    violation.field = format!("{path}.{}", violation.field);
                }
                Error::Invalid(violations)
            }
            other => other,
        })
    }
}

/// A tuple of results.
pub trait All {
    /// The tuple of their values.
    type Values;

    /// Returns the values, or the wrong fields of all results.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every wrong field; the first error that is not about fields otherwise.
    fn all(self) -> Result<Self::Values, Error>;
}

/// Returns the values of a tuple of results, or the wrong fields of all of them.
///
/// # Errors
/// See [`All::all`].
pub fn all<R: All>(results: R) -> Result<R::Values, Error> {
    results.all()
}

macro_rules! impl_all {
    ($($name:ident)+) => {
        #[expect(non_snake_case, reason = "one name for the type and its value")]
        impl<$($name),+> All for ($(Result<$name, Error>,)+) {
            type Values = ($($name,)+);

            fn all(self) -> Result<Self::Values, Error> {
                match self {
                    ($(Ok($name),)+) => Ok(($($name,)+)),
                    ($($name,)+) => {
                        let mut violations = Vec::new();
                        $(match $name {
                            Ok(_) => {}
                            Err(Error::Invalid(more)) => violations.extend(more),
                            Err(other) => return Err(other),
                        })+
                        Err(Error::Invalid(violations))
                    }
                }
            }
        }
    };
}

impl_all!(A B);
impl_all!(A B C);
impl_all!(A B C D);
impl_all!(A B C D E);
impl_all!(A B C D E F);

/// Parses every item of a list, each as `field[i]`, or reports the wrong fields of all of them.
///
/// # Errors
/// [`Error::Invalid`], or the first error that is not about fields.
pub fn each<I, T>(
    field: &str,
    items: impl IntoIterator<Item = I>,
    parse: impl Fn(I) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let mut problems = Violated::default();
    let mut values = Vec::new();
    for (i, item) in items.into_iter().enumerate() {
        values.extend(problems.collect(parse(item).within(format_args!("{field}[{i}]")))?);
    }
    problems.finish()?;
    Ok(values)
}

/// Requires a message to be present.
///
/// # Errors
/// [`Error::Invalid`] naming `field`.
pub fn required<T>(field: &str, message: Option<T>) -> Result<T, Error> {
    message.ok_or_else(|| Error::field(field, "is required"))
}

/// Parses an optional id or name: empty means absent.
///
/// # Errors
/// The error of `parse` for a text that is present.
pub fn optional<T>(
    field: &str,
    text: &str,
    parse: impl FnOnce(&str, &str) -> Result<T, Error>,
) -> Result<Option<T>, Error> {
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// Checks the size of a batch.
///
/// # Errors
/// [`Error::Invalid`] naming `field`, unless it has 1-1,000 items.
pub fn check_batch<T>(field: &str, items: &[T]) -> Result<(), Error> {
    if (1..=BATCH_ITEMS_MAX).contains(&items.len()) {
        Ok(())
    } else {
        Err(Error::field(field, format!("must have 1-{BATCH_ITEMS_MAX} entries (got {})", items.len())))
    }
}

/// Parses an enum's value, which must be known.
///
/// # Errors
/// [`Error::Invalid`] naming `field` for UNSPECIFIED and for values that this build does not know.
pub fn specified<P: TryFrom<i32>, T>(field: &str, value: i32, known: fn(P) -> Option<T>) -> Result<T, Error> {
    let value = P::try_from(value).ok().and_then(known);
    value.ok_or_else(|| Error::field(field, "must be one of the enum's values, not UNSPECIFIED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(field: &str) -> Result<(), Error> {
        Err(Error::field(field, "is bad"))
    }

    fn fields(error: Error) -> Vec<String> {
        match error {
            Error::Invalid(violations) => violations.into_iter().map(|violation| violation.field).collect(),
            other => panic!("not about fields: {other}"),
        }
    }

    #[test]
    fn all_problems_are_reported_at_once_by_their_paths() {
        let error = all((bad("a"), Ok(()), bad("b").within("outer"))).expect_err("two are bad");
        assert_eq!(fields(error), ["a", "outer.b"]);
        let error = each("items", [0, 1, 2], |n| if n == 1 { Ok(()) } else { bad("x") }).expect_err("two are bad");
        assert_eq!(fields(error), ["items[0].x", "items[2].x"]);
    }

    #[test]
    fn what_is_not_about_fields_wins() {
        assert_eq!(all((bad("a"), Err::<(), _>(Error::StaleEtag))), Err(Error::StaleEtag));
    }
}

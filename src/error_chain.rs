//! An error with everything that caused it: for logs and for the person at the terminal, never for a caller.
//!
//! The `Display` of an error of this crate leaves its source out, so that what prints an error decides how much of
//! it is shown.

use std::{error::Error, fmt, iter};

/// Displays an error and its causes, joined by colons.
pub(crate) struct ErrorChain<'a>(pub &'a dyn Error);

/// Iterates over the causes of an error, the nearest first.
pub(crate) fn causes<'a>(error: &'a (dyn Error + 'a)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(error.source(), |&cause| cause.source())
}

// === impl ErrorChain ===

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        causes(self.0).try_for_each(|cause| write!(f, ": {cause}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the store is unavailable")]
    struct Unavailable(#[source] std::io::Error);

    #[test]
    fn it_names_every_cause() {
        let error = Unavailable(std::io::Error::other("refused"));
        assert_eq!(ErrorChain(&error).to_string(), "the store is unavailable: refused");
    }
}

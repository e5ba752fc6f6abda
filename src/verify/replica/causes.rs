//! An error with everything that caused it, for the one place that logs it. Never for a caller.

use std::{error::Error, fmt};

/// Displays an error and its sources, joined by colons.
pub(crate) struct Causes<'a>(pub &'a dyn Error);

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::primary::Unavailable;

    #[test]
    fn it_names_every_cause() {
        let error = Unavailable(Box::new(std::io::Error::other("refused")));
        assert_eq!(Causes(&error).to_string(), "the store is unavailable: refused");
    }
}

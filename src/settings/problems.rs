//! Collects what is wrong with the settings, so that one restart fixes all of it.

use std::fmt;

/// Describes one thing that is wrong. Its texts hold no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The setting, or the unknown key or variable as it was written.
    pub setting: String,
    /// Where the offending value came from, if it came from anywhere.
    pub source: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Lists everything wrong with the settings, at least one problem. `Display` prints one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Wraps the problems; `None` if there are none.
    pub(super) fn of(problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() { None } else { Some(Self(problems)) }
    }

    /// Lists the problems.
    pub fn all(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} ({source}): {}", self.setting, self.message),
            None => write!(f, "{}: {}", self.setting, self.message),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, noun) = (self.0.len(), if self.0.len() == 1 { "problem" } else { "problems" });
        writeln!(f, "{count} {noun} with the settings:")?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        f.write_str(
            "Fix these and try again; `latchkey check-config` checks again, `latchkey serve --help` lists every setting.",
        )
    }
}

impl std::error::Error for Problems {}

/// Finds the candidate nearest to `word`, if it is near enough to be what was meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near_enough = (word.len() / 4).clamp(1, 4);
    let distances = candidates.map(|candidate| (strsim::levenshtein(word, candidate), candidate));
    distances
        .filter(|(distance, _)| *distance <= near_enough)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_word_and_nonsense_finds_none() {
        let words = ["lease_ms", "log_filter", "log_format"];
        assert_eq!(nearest("leese_ms", words.into_iter()), Some("lease_ms"));
        assert_eq!(nearest("log_fromat", words.into_iter()), Some("log_format"));
        assert_eq!(nearest("banana", words.into_iter()), None);
    }
}

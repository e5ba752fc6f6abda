//! Turns the texts of settings into checked values, collecting every problem on the way.

use std::collections::{BTreeMap, HashMap};

use super::problems::Problem;
use super::setting::{Parse, Setting};

/// Holds what the layers give for each setting, by key. A setting that no layer gives is absent.
pub(super) type Merged = BTreeMap<&'static str, Given>;

/// What the highest layer that has a setting gives for it.
pub(super) struct Given {
    /// The text, or why the value has none.
    pub(super) text: Result<String, String>,
    /// `default`, `file …`, `environment …` or `flag …`.
    pub(super) source: String,
}

/// A setting as it is in effect, fit to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting's name.
    pub key: &'static str,
    /// Its value, secrets redacted.
    pub value: String,
    /// Where it came from: `default`, `file …`, `environment …` or `flag …`.
    pub source: String,
}

/// Reads settings one by one.
pub(super) struct SettingReader<'a> {
    merged: &'a Merged,
    environment: &'a HashMap<String, String>,
    problems: Vec<Problem>,
    effective: Vec<Effective>,
}

impl<'a> SettingReader<'a> {
    /// Starts with the problems that merging has found. `environment` is for values that name a variable.
    pub(super) fn new(merged: &'a Merged, environment: &'a HashMap<String, String>, problems: Vec<Problem>) -> Self {
        Self { merged, environment, problems, effective: Vec::new() }
    }

    /// Reads one setting; `None` leaves at least one problem.
    pub(super) fn read<T: Parse>(&mut self, setting: &'static Setting) -> Option<T> {
        let Some(Given { text, source }) = self.merged.get(setting.key) else {
            self.report(setting, None, missing(setting));
            return None;
        };
        let parsed = match text {
            Ok(text) => T::parse(text, setting, self.environment),
            Err(problem) => Err(vec![problem.clone()]),
        };
        match parsed {
            Ok(value) => {
                self.effective.push(Effective { key: setting.key, value: value.shown(), source: source.clone() });
                Some(value)
            }
            Err(messages) => {
                for message in messages {
                    self.report(setting, Some(source.clone()), message);
                }
                None
            }
        }
    }

    /// Hands over what was read so far, as it is in effect.
    pub(super) fn take_effective(&mut self) -> Vec<Effective> {
        std::mem::take(&mut self.effective)
    }

    /// Ends reading, and returns every problem.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    fn report(&mut self, setting: &Setting, source: Option<String>, message: String) {
        self.problems.push(Problem { setting: setting.key.to_owned(), source, message });
    }
}

fn missing(setting: &Setting) -> String {
    format!(
        "is required: set `{}` in the file, {} in the environment, or --{} {}",
        setting.key,
        setting.variable(),
        setting.flag(),
        setting.value_name
    )
}

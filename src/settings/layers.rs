//! Merges the layers that settings come from (defaults, file, environment, flags) into texts that remember their
//! origin. Nothing is checked here but the names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use toml::Value;

use super::flags::Flags;
use super::problems::{Problem, nearest};
use super::reader::{Given, Merged};
use super::setting::{Fallback, Setting};
use super::table::{OTHER_VARIABLES, SETTINGS, find};
use super::values::Peppers;

const PREFIX: &str = "LATCHKEY_";
const CONFIG_VARIABLE: &str = "LATCHKEY_CONFIG";

/// Merges the layers, each overriding those before it, and adds to `problems` what is wrong with their names and forms.
pub(super) fn merge(flags: &Flags, environment: &HashMap<String, String>, problems: &mut Vec<Problem>) -> Merged {
    let mut merged = Merged::new();
    add_defaults(&mut merged);
    let variable = environment.get(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    if let Some(path) = flags.config_file.clone().or(variable) {
        add_file(&mut merged, &path, problems);
    }
    add_variables(&mut merged, environment);
    for (key, text) in &flags.values {
        let source = format!("flag --{}", key.replace('_', "-"));
        merged.insert(key, Given { text: Ok(text.clone()), source });
    }
    report_unknown_variables(environment, &merged, problems);
    merged
}

fn add_defaults(merged: &mut Merged) {
    for setting in SETTINGS {
        let text = match setting.fallback {
            Fallback::Value(text) => text,
            Fallback::Chosen { choose, .. } => choose(),
            Fallback::Required => continue,
        };
        merged.insert(setting.key, Given { text: Ok(text.to_owned()), source: "default".to_owned() });
    }
}

fn add_file(merged: &mut Merged, path: &Path, problems: &mut Vec<Problem>) {
    let source = format!("file {}", path.display());
    let mut problem = |setting: &str, message: String| {
        problems.push(Problem { setting: setting.to_owned(), source: Some(source.clone()), message });
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return problem("--config", format!("cannot read the file: {}", error.kind())),
    };
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return problem("--config", format!("is not valid TOML: {}", syntax_error(&error, &text))),
    };
    for (key, value) in table {
        match find(&key) {
            Some(setting) => {
                merged.insert(setting.key, Given { text: text_of(&value), source: source.clone() });
            }
            None => problem(&key, unknown("setting", nearest(&key, SETTINGS.iter().map(|setting| setting.key)))),
        }
    }
}

/// Says where and why TOML did not parse. It never quotes the line, as the error's own `Display` does: the line may
/// hold the password.
fn syntax_error(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// Adds the variables that are set. An empty one counts as unset: a deployment file that passes `LATCHKEY_X=` means
/// "nothing".
fn add_variables(merged: &mut Merged, environment: &HashMap<String, String>) {
    for setting in SETTINGS {
        let variable = setting.variable();
        if let Some(text) = environment.get(&variable).filter(|text| !text.is_empty()) {
            merged.insert(setting.key, Given { text: Ok(text.clone()), source: format!("environment {variable}") });
        }
    }
}

fn report_unknown_variables(environment: &HashMap<String, String>, merged: &Merged, problems: &mut Vec<Problem>) {
    let peppers = merged.get("peppers").and_then(|given| given.text.as_deref().ok()).unwrap_or_default();
    let known: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let is_known = |name: &str| {
        known.iter().any(|variable| variable == name)
            || OTHER_VARIABLES.iter().any(|(other, _)| match other.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *other,
            })
            || Peppers::variables_in(peppers).any(|variable| variable == name)
    };
    let mut unknown_names: Vec<&String> =
        environment.keys().filter(|name| name.starts_with(PREFIX) && !is_known(name)).collect();
    unknown_names.sort();
    for name in unknown_names {
        problems.push(Problem {
            setting: name.clone(),
            source: Some("environment".to_owned()),
            message: unknown("variable", nearest(name, known.iter().map(String::as_str))),
        });
    }
}

fn unknown(noun: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("unknown {noun}; did you mean `{meant}`?"),
        None => format!("unknown {noun}; remove it"),
    }
}

/// Returns a value's text, or why it has none. An array is the same as its items joined by commas.
fn text_of(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(answer) => Ok(answer.to_string()),
        Value::Datetime(time) => Ok(time.to_string()),
        Value::Array(items) => items.iter().map(text_of).collect::<Result<Vec<_>, _>>().map(|items| items.join(",")),
        Value::Table(_) => Err("must be one value, not a table".to_owned()),
    }
}

//! The layers that settings come from (defaults, file, environment, flags), merged by the `config` crate into texts
//! that remember their origin. Nothing is checked here but the names.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::builder::{ConfigBuilder, DefaultState};
use config::{Config, ConfigError, Environment, File, FileFormat, Map, Source, Value, ValueKind};

use super::flags::Flags;
use super::peppers::Peppers;
use super::problems::{Problem, nearest};
use super::table::Fallback;
use super::{OTHER_VARIABLES, SETTINGS, find};

const PREFIX: &str = "LATCHKEY_";
const CONFIG_VARIABLE: &str = "LATCHKEY_CONFIG";

/// Every setting's text and origin after merging; `None` where nobody gave one.
pub(super) struct Merged(Map<String, Value>);

/// A layer whose keys are all known.
#[derive(Clone, Default)]
struct Layer(Map<String, Value>);

/// Merges the layers, adding to `problems` what is wrong with their names and forms.
pub(super) fn merge(flags: &Flags, environment: &HashMap<String, String>, problems: &mut Vec<Problem>) -> Merged {
    let variable = environment.get(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let file = match flags.config_file.clone().or(variable) {
        Some(path) => file_layer(&path, problems),
        None => Layer::default(),
    };
    let variables = variables_layer(environment);
    let builder = Config::builder().add_source(defaults_layer()).add_source(file).add_source(variables);
    let merged =
        flags_layer(flags).0.into_iter().try_fold(builder, |builder, (key, value)| builder.set_override(key, value));
    let merged = merged
        .and_then(ConfigBuilder::<DefaultState>::build)
        .and_then(|config| config.collect())
        .expect("layers of known flat keys always merge");
    report_unknown_variables(environment, &merged, problems);
    Merged(merged)
}

fn defaults_layer() -> Layer {
    let mut layer = Layer::default();
    for setting in SETTINGS {
        let text = match setting.fallback {
            Fallback::Value(text) => text,
            Fallback::Chosen { choose, .. } => choose(),
            Fallback::Required => continue,
        };
        layer.0.insert(setting.key.to_owned(), Value::new(Some(&"default".to_owned()), text));
    }
    layer
}

fn file_layer(path: &Path, problems: &mut Vec<Problem>) -> Layer {
    let origin = format!("file {}", path.display());
    let mut problem = |setting: &str, message: String| {
        problems.push(Problem { setting: setting.to_owned(), source: Some(origin.clone()), message });
    };
    let mut layer = Layer::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problem("--config", format!("cannot read the file: {}", error.kind()));
            return layer;
        }
    };
    let table = match File::from_str(&text, FileFormat::Toml).collect() {
        Ok(table) => table,
        Err(error) => {
            problem("--config", format!("is not valid TOML: {}", syntax_error(&error, &text)));
            return layer;
        }
    };
    for (key, value) in table {
        if find(&key).is_some() {
            layer.0.insert(key, Value::new(Some(&origin), value.kind));
        } else {
            problem(&key, unknown("setting", nearest(&key, SETTINGS.iter().map(|setting| setting.key))));
        }
    }
    layer
}

/// Where and why TOML did not parse. Never the line itself, which the error's own `Display` would print: it may be
/// the one with the password.
fn syntax_error(error: &ConfigError, text: &str) -> String {
    let ConfigError::FileParse { cause, .. } = error else {
        return "a value that no setting can have".to_owned();
    };
    let Some(cause) = cause.downcast_ref::<toml::de::Error>() else {
        return "a number out of range".to_owned();
    };
    let before = cause.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, cause.message())
}

/// Empty variables count as unset: a deployment file that passes `LATCHKEY_X=` means "nothing".
fn variables_layer(environment: &HashMap<String, String>) -> Layer {
    let known = SETTINGS.iter().filter_map(|setting| {
        let variable = setting.variable();
        let text = environment.get(&variable)?;
        Some((variable, text.clone()))
    });
    let source = Environment::with_prefix(PREFIX.trim_end_matches('_'))
        .prefix_separator("_")
        .ignore_empty(true)
        .source(Some(known.collect()));
    let collected = source.collect().expect("texts are collected as they are, without parsing");
    let with_origin = collected.into_iter().map(|(key, value)| {
        let origin = format!("environment {PREFIX}{}", key.to_ascii_uppercase());
        (key, Value::new(Some(&origin), value.kind))
    });
    Layer(with_origin.collect())
}

fn flags_layer(flags: &Flags) -> Layer {
    let with_origin = flags.values.iter().map(|(key, text)| {
        let origin = format!("flag --{}", key.replace('_', "-"));
        ((*key).to_owned(), Value::new(Some(&origin), text.as_str()))
    });
    Layer(with_origin.collect())
}

fn report_unknown_variables(
    environment: &HashMap<String, String>,
    merged: &Map<String, Value>,
    problems: &mut Vec<Problem>,
) {
    let peppers = merged.get("peppers").and_then(|value| text_of(value).ok()).unwrap_or_default();
    let known: Vec<String> = SETTINGS.iter().map(super::Setting::variable).collect();
    let is_known = |name: &str| {
        known.iter().any(|variable| variable == name)
            || OTHER_VARIABLES.iter().any(|(other, _)| match other.strip_suffix('*') {
                Some(start) => name.starts_with(start),
                None => name == *other,
            })
            || Peppers::variables_in(&peppers).any(|variable| variable == name)
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

impl Merged {
    /// A setting's text and origin, or why its value has no text. `None` if nobody gave it.
    pub(super) fn text(&self, key: &str) -> Option<(Result<String, String>, String)> {
        let value = self.0.get(key)?;
        Some((text_of(value), value.origin().unwrap_or("default").to_owned()))
    }
}

/// A value's text. An array of strings is the same as its items joined by commas.
fn text_of(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        ValueKind::I64(number) => Ok(number.to_string()),
        ValueKind::I128(number) => Ok(number.to_string()),
        ValueKind::U64(number) => Ok(number.to_string()),
        ValueKind::U128(number) => Ok(number.to_string()),
        ValueKind::Float(number) => Ok(number.to_string()),
        ValueKind::Boolean(answer) => Ok(answer.to_string()),
        ValueKind::Array(items) => {
            items.iter().map(text_of).collect::<Result<Vec<_>, _>>().map(|items| items.join(","))
        }
        ValueKind::Nil | ValueKind::Table(_) => Err("must be one value, not a table".to_owned()),
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.clone())
    }
}

impl fmt::Debug for Layer {
    /// Names only: a value may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

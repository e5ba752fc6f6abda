//! What people read, word for word: the help, refusals, problems with the settings, the welcome of `latchkey dev`.

#[path = "../support/mod.rs"]
mod support;

mod constructed;
mod help;
mod refusals;
mod settings;
mod welcome;

use std::fmt::Write;

use tonic::Status;
use tonic_types::StatusExt;

/// Compares a text with the checked-in one of this name.
#[track_caller]
fn assert_text(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// All that a caller sees of refusals, each under a name: code, reason and metadata, text, fields, when to retry.
fn table(refusals: impl IntoIterator<Item = (String, Status)>) -> String {
    let mut table = String::new();
    for (name, status) in refusals {
        let details = status.get_error_details();
        let info = details.error_info().expect("every error carries ErrorInfo");
        let mut metadata: Vec<_> = info.metadata.iter().map(|(name, value)| format!(" {name}={value}")).collect();
        metadata.sort();
        writeln!(table, "{name}").expect("a string");
        writeln!(table, "  {:?} {}{}", status.code(), info.reason, metadata.concat()).expect("a string");
        writeln!(table, "  {}", status.message()).expect("a string");
        for violation in details.bad_request().iter().flat_map(|bad| &bad.field_violations) {
            writeln!(table, "  - {}: {}", violation.field, violation.description).expect("a string");
        }
        if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
            writeln!(table, "  retry in {delay:?}").expect("a string");
        }
        table.push('\n');
    }
    table
}

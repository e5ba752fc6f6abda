//! The first lines of `latchkey dev`: for people, and for programs.

use std::time::Duration;

use crate::{
    assert_text,
    support::{
        logs,
        process::{Signal, latchkey, scratch},
    },
};

/// A first start makes a cluster.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// What it says until a line has this in it. What differs from run to run has a name in its place.
fn said(json: bool, last: &str) -> String {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let mut arguments = vec!["dev", "--port", "0", "--data-dir", data_dir.to_str().expect("Unicode")];
    arguments.extend(json.then_some("--json"));
    let mut process = latchkey(arguments).secret_stdout().spawn();
    let mut lines = vec![process.line(START_LIMIT)];
    while !lines.last().is_some_and(|line| line.contains(last)) {
        lines.push(process.line(START_LIMIT));
    }
    process.signal(Signal::INT);
    let ended = process.wait(STOP_LIMIT).success();
    let pepper = std::fs::read_to_string(data_dir.join("pepper")).expect("the folder's pepper");
    logs::keep_secret("welcome", pepper.trim());
    lines.extend(ended.lines().map(str::to_owned));
    let said = lines.join("\n").replace(data_dir.to_str().expect("Unicode"), "<data dir>");
    let said = replaced(&said, "lk_", "<token>", |c| c.is_ascii_alphanumeric() || c == '_');
    let said = replaced(&said, "127.0.0.1:", "<address>", |c| c.is_ascii_digit());
    replaced(&said, "postgres", "<database url>", |c| c != '"')
}

/// Whatever begins so and goes on with such characters, as long as there are some.
fn replaced(text: &str, begins: &str, name: &str, goes_on: impl Fn(char) -> bool) -> String {
    let mut pieces = text.split(begins);
    let mut replaced = pieces.next().expect("a first piece").to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(&goes_on);
        replaced += if rest.len() < piece.len() { name } else { begins };
        replaced += rest;
    }
    replaced
}

#[test]
fn of_the_tour() {
    assert_text("welcome", &said(false, "ListEvents"));
}

#[test]
fn of_the_line_for_programs() {
    assert_text("welcome_json", &said(true, "}"));
}

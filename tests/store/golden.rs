//! Golden SQL: the text of every statement that a method of the ports sends, checked in beside the plans of all, in a
//! file for each noun (`golden/users.snap`). README.md says how to read and to update them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// How long a line becomes before it is broken.
const WIDTH_MAX: usize = 116;
/// What so many methods send is how snapshots and transactions begin.
const METHODS_LISTED_MAX: usize = 12;
const CLAUSES: [&str; 21] = [
    "AND",
    "CROSS",
    "DELETE",
    "FOR",
    "FROM",
    "GROUP",
    "HAVING",
    "INSERT",
    "JOIN",
    "LEFT",
    "LIMIT",
    "ON",
    "OR",
    "ORDER",
    "RETURNING",
    "SELECT",
    "SET",
    "UNION",
    "UPDATE",
    "VALUES",
    "WHERE",
];
/// No clause starts behind these.
const GOES_ON: [&str; 11] = ["AS", "CROSS", "DELETE", "DO", "FILTER", "FOR", "FROM", "KEY", "LEFT", "SELECT", "WHERE"];
/// What a statement begins with. The rest of what is logged stands in functions of the migrations.
const VERBS: [&str; 6] = ["BEGIN", "DELETE ", "INSERT ", "SELECT ", "UPDATE ", "WITH "];

/// Compares the statements that were sent, each with the methods that sent it, with the golden files.
pub fn check(texts: &BTreeMap<String, BTreeSet<&'static str>>) {
    let mut files: BTreeMap<String, BTreeMap<String, BTreeSet<&str>>> = BTreeMap::new();
    for (text, methods) in texts {
        let is_for_foreign_key = text.contains("FROM ONLY \"public\".");
        if is_for_foreign_key || !VERBS.iter().any(|verb| text.starts_with(verb)) {
            continue;
        }
        let (noun, text) = (noun(text), pretty(&without_ids(text)));
        let senders = files.entry(noun.clone()).or_default().entry(text).or_default();
        // Which method finds no connection open is chance.
        if noun != "session" {
            senders.extend(methods);
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let nouns: BTreeSet<_> = files.keys().map(|noun| format!("{noun}.snap")).collect();
    settings
        .bind(|| files.into_iter().for_each(|(noun, statements)| insta::assert_snapshot!(noun, whole(&statements))));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/golden");
    let found = fs::read_dir(folder).expect("the golden files").map(|file| file.expect("a file").file_name());
    let found: BTreeSet<_> = found.map(|name| name.into_string().expect("a name")).collect();
    let stale: Vec<_> = found.iter().filter(|name| name.ends_with(".snap") && !nouns.contains(*name)).collect();
    assert!(stale.is_empty(), "tests/store/golden: no method sends these any more: {stale:?}");
}

/// What a statement is about: the first table that it names.
fn noun(text: &str) -> String {
    let words: Vec<_> = text.split([' ', '\n', '(', ')', ',', ';']).filter(|word| !word.is_empty()).collect();
    let names = words.windows(2).filter(|pair| matches!(pair[0], "FROM" | "INTO" | "UPDATE" | "JOIN"));
    let table = names.map(|pair| pair[1].trim_matches('"')).find(|name| {
        name.chars().all(|c| c.is_ascii_lowercase() || c == '_') && !["unnest", "jsonb_each"].contains(name)
    });
    match (text.starts_with("BEGIN"), table) {
        (true, _) => "session",
        (_, Some("user_roles")) => "users",
        (_, Some("default_roles")) => "roles",
        (_, Some("catalogue_head" | "permissions")) => "catalogue",
        (_, Some("pg_roles")) => "powers",
        (_, Some("__diesel_schema_migrations")) => "migrations",
        (_, Some(table)) if table.starts_with("api_key") || table.starts_with("token_") => "api_keys",
        (_, Some(table)) if table.starts_with("event") || table.starts_with("log_") => "log",
        (_, Some(table)) => table,
        (_, None) => "session",
    }
    .to_owned()
}

/// An account's lock is sent with its id in the text.
fn without_ids(text: &str) -> String {
    const BEFORE: &str = "FROM accounts WHERE account_id = '";
    let mut pieces = text.split(BEFORE);
    let mut text = pieces.next().expect("a first piece").to_owned();
    for piece in pieces {
        let (_id, rest) = piece.split_once('\'').expect("a closed literal");
        text += &format!("{BEFORE}…'{rest}");
    }
    text
}

/// All statements of a noun. One that differs little from the one before it, such as a list by another filter, is
/// written down as its difference.
fn whole(statements: &BTreeMap<String, BTreeSet<&str>>) -> String {
    let mut written = String::new();
    let mut before: Vec<&str> = Vec::new();
    for (text, methods) in statements {
        let lines: Vec<_> = text.lines().collect();
        let same_at = |pairs: &mut dyn Iterator<Item = (&&str, &&str)>| pairs.take_while(|(a, b)| a == b).count();
        let first = same_at(&mut before.iter().zip(&lines));
        let last = same_at(&mut before[first..].iter().rev().zip(lines[first..].iter().rev()));
        if methods.len() > METHODS_LISTED_MAX {
            written += "-- sent by most methods\n";
        } else {
            methods.iter().for_each(|method| written += &format!("-- {method}\n"));
        }
        let changed = &lines[first..lines.len() - last];
        if lines.len() > 12 && changed.len() * 3 < lines.len() {
            written += &format!("-- as before, with lines {} to {} replaced by\n", first + 1, before.len() - last);
            changed.iter().for_each(|line| written += &format!("{line}\n"));
            written += "--\n\n";
        } else {
            written += &format!("{text};\n\n");
        }
        before = lines;
    }
    written
}

/// One clause a line, indented by its parentheses: only white space changes.
fn pretty(text: &str) -> String {
    let (mut lines, mut line, mut depth, mut before) = (Vec::new(), String::new(), 0_usize, "");
    for word in text.split_whitespace() {
        let starts = CLAUSES.contains(&word.trim_start_matches('(')) && !GOES_ON.contains(&before);
        if !line.trim().is_empty() && (starts || line.len() + word.len() > WIDTH_MAX) {
            lines.push(std::mem::take(&mut line));
        }
        if line.is_empty() {
            line = "  ".repeat(depth);
        } else {
            line.push(' ');
        }
        line += word;
        depth = (depth + word.matches('(').count()).saturating_sub(word.matches(')').count());
        before = word;
    }
    lines.push(line);
    lines.join("\n")
}

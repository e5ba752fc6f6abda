//! Every statement that the store sends is explained, on a skewed store with statistics and without: none scans a table
//! that grows, and none looks at more rows than its share.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use crate::{
    costs, costs_writes,
    database::execute,
    explained::{Case, Explained, case},
    golden,
};

fn all() -> Vec<Case> {
    costs::all().into_iter().chain(costs_writes::all()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_scans_or_looks_at_more_than_its_share() {
    let mut explained = Explained::new(true).await;
    let faults = explained.faults(&all()).await;
    assert!(faults.is_empty(), "{} calls are too dear:\n{}", faults.len(), faults.join("\n"));
    let unexplained: Vec<_> = statements().into_iter().filter(|sql| !is_among(sql, &explained.texts)).collect();
    assert!(unexplained.is_empty(), "in src/store, and sent by no case:\n{}", unexplained.join("\n"));
    golden::check(&explained.texts);
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_before_the_planner_has_heard_of_any_row() {
    let faults = Explained::new(false).await.faults(&all()).await;
    assert!(faults.is_empty(), "{} calls are too dear:\n{}", faults.len(), faults.join("\n"));
}

/// Else the two above would show nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_and_a_filter_that_discards_rows_are_found() {
    let planted = |sql: &'static str| {
        case("planted", 100, sql, move |ground| async move {
            execute(&ground.url, sql).await;
        })
    };
    let few = "SELECT FROM users WHERE account_id = 'b7' AND user_id = 'u1'";
    let scan = "SELECT FROM users WHERE display_name = 'U' LIMIT 1";
    let filter = "SET enable_seqscan = off; SELECT FROM users WHERE account_id = 'a1' AND state = 'deactivated'";
    let faults = Explained::new(false).await.faults(&[planted(few), planted(scan), planted(filter)]).await;
    let found: Vec<_> =
        faults.iter().map(|fault| (fault.contains("scans users"), fault.contains("rows (at most 100)"))).collect();
    assert_eq!(found, [(true, false), (false, true)].repeat(2), "{faults:#?}");
}

/// A method that is added to a port has to be called too.
#[test]
fn every_method_of_the_ports_is_called() {
    let called: BTreeSet<_> = all().iter().map(|case| case.method).collect();
    let store = include_str!("../../src/store/postgres.rs");
    let primary = include_str!("../../src/verify/primary.rs");
    let blocks = [
        (include_str!("../../src/app/ports/read.rs"), "pub trait Reader", 25),
        (include_str!("../../src/app/ports/write.rs"), "pub trait Tx", 25),
        (include_str!("../../src/app/ports/store.rs"), "pub trait Store", 5),
        (include_str!("../../src/app/ports/replicas.rs"), "pub trait Replicas", 2),
        (primary, "pub trait Primary", 8),
        (store, "impl PostgresStore", 5),
    ];
    // They open and end what the others are called in; the last asks nothing.
    let others = ["snapshot", "begin", "commit", "rollback", "session", "known_away"];
    let private = ["missing_peppers_by", "fill_now"];
    for (source, block, least) in blocks {
        let methods = methods(source, block);
        assert!(methods.len() >= least, "{block} is read: {methods:?}");
        let is_covered = |method: &&str| called.contains(method) || others.contains(method) || private.contains(method);
        let missing: Vec<_> = methods.into_iter().filter(|method| !is_covered(method)).collect();
        assert!(missing.is_empty(), "{block}: not called: {missing:?}");
    }
}

fn methods(source: &'static str, block: &str) -> BTreeSet<&'static str> {
    let body = source.split(block).nth(1).expect("the block");
    let body = body.split("\n}\n").next().expect("an end");
    let name = |line: &'static str| {
        let line = line.trim();
        line.strip_prefix("pub ").unwrap_or(line).strip_prefix("async fn ")?.split(['(', '<']).next()
    };
    body.lines().filter_map(name).collect()
}

/// The text of every statement in the sources of the store, as it stands there: its longest piece between values that
/// are filled in.
fn statements() -> BTreeSet<String> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for file in fs::read_dir(folder).expect("the sources") {
            let path = file.expect("a file").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let source = fs::read_to_string(&path).expect("a source");
            let source = source.split("#[cfg(test)]").next().expect("a first piece");
            let code: Vec<_> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            found.extend(literals(&code.join("\n")).iter().filter_map(|literal| statement(literal)));
        }
    }
    assert!(found.len() > 60, "the sources are read: {found:?}");
    found
}

/// The string literals of some code, their continued lines joined. No character literal is a quote.
fn literals(code: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), code);
    while let Some((_, begun)) = rest.split_once('"') {
        let mut escaped = false;
        let is_end = |c: char| {
            let is_end = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            is_end
        };
        let end = begun.find(is_end).expect("an end");
        let lines = begun[..end].split("\\\n").map(str::trim_start);
        found.push(lines.collect());
        rest = &begun[end + 1..];
    }
    found
}

fn statement(literal: &str) -> Option<String> {
    const VERBS: [&str; 5] = ["SELECT ", "WITH ", "INSERT ", "UPDATE ", "DELETE "];
    if !VERBS.iter().any(|verb| literal.starts_with(verb)) {
        return None;
    }
    let pieces = literal.split('{').map(|piece| piece.split_once('}').map_or(piece, |(_, after)| after));
    pieces.max_by_key(|piece| piece.len()).map(str::to_owned)
}

fn is_among(sql: &str, texts: &BTreeMap<String, BTreeSet<&'static str>>) -> bool {
    texts.keys().any(|text| text.contains(sql))
}

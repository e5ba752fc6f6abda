//! The rules' pages and the code that cites them: every rule that is cited is defined, and every one that is defined is
//! cited by a test.

use std::collections::BTreeSet;

use crate::files::{below, read};

const PAGES: [&str; 2] = ["proto/RULES.md", "src/DESIGN.md"];
/// The letters that rules are numbered under.
const LETTERS: &str = "PKAMTVI";

/// The rules that a text names: a letter and a number, by themselves or at the beginning of a test's name (`k4_…`).
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.map(str::to_ascii_uppercase).filter(|word| is_rule(word)).collect()
}

/// Every one has a number below ten; `i64` is none.
fn is_rule(word: &str) -> bool {
    matches!(word.as_bytes(), [letter, b'1'..=b'9'] if LETTERS.as_bytes().contains(letter))
}

/// The rules that a page defines: in bold, at the beginning of what is said of them.
fn defined(page: &str) -> BTreeSet<String> {
    let bold = page.split("**").skip(1).step_by(2);
    bold.filter_map(|bold| bold.split_whitespace().next()).filter(|word| is_rule(word)).map(str::to_owned).collect()
}

fn rules() -> BTreeSet<String> {
    PAGES.iter().flat_map(|page| defined(&read(page))).collect()
}

#[test]
fn every_rule_that_is_cited_is_defined() {
    let rules = rules();
    assert!(rules.len() > 30, "the pages were read: {rules:?}");
    // Variables are called a1 and k1 too: only what is written as the rules are, or begins a test's name, is a citation.
    for (path, text) in below(&["src", "proto", "migrations", "deploy"], &[".rs", ".proto", ".md", ".sql", ".toml"]) {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let cited: BTreeSet<_> = words.filter(|word| is_rule(word)).map(str::to_owned).collect();
        let unknown: Vec<_> = cited.difference(&rules).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}

#[test]
fn every_rule_that_is_defined_is_named_by_a_test() {
    let mut tests = below(&["tests", "src"], &[".rs"]);
    tests.retain(|path, _| path.contains("tests"));
    let named: BTreeSet<_> = tests.values().flat_map(|text| named(text)).collect();
    let untested: Vec<_> = rules().into_iter().filter(|rule| !named.contains(rule)).collect();
    assert!(untested.is_empty(), "no test names {untested:?}");
}

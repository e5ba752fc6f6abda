//! One meaning a type name, and words that are not to come back.

use std::collections::BTreeMap;

use crate::{
    files::{below, read},
    sources::Library,
};

/// Narrators that leave open who acts, and phrases that the glossary's terms have replaced.
const PHRASES: [&str; 7] = ["whoever", "nobody", "somebody", "short way", "long way", "sheds load", "Mend these"];
/// Names that the glossary's terms have replaced.
const NAMES: [&str; 20] = [
    "Asked",
    "Awaited",
    "Fare",
    "InHand",
    "Looks",
    "Pilot",
    "Recall",
    "Room",
    "Seat",
    "Sought",
    "Spot",
    "Told",
    "Warrant",
    "before_telling",
    "board",
    "land",
    "let_go",
    "look_ahead",
    "send_for",
    "tell",
];

#[test]
fn no_type_name_has_two_meanings() {
    let library = Library::parse();
    let mut named: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (file, source) in &library.files {
        source.types.iter().for_each(|name| named.entry(name).or_default().push(file));
    }
    named.retain(|_, files| files.len() > 1);
    assert!(named.is_empty(), "{named:#?}");
}

#[test]
fn retired_phrases_stay_away() {
    let mut texts = below(&["src", "proto", "deploy", ".github"], &[".rs", ".md", ".proto", ".toml"]);
    texts.insert("README.md".to_owned(), read("README.md"));
    let mut found = Vec::new();
    for (file, text) in &texts {
        for (number, line) in text.lines().enumerate() {
            // The account of that name is a user of the operating system.
            let line = line.to_lowercase().replace("`nobody`", "").replace("\"nobody\"", "");
            let held = PHRASES.iter().filter(|phrase| line.contains(&phrase.to_lowercase()));
            found.extend(held.map(|phrase| format!("{file}:{}: {phrase}", number + 1)));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn retired_names_stay_away() {
    let library = Library::parse();
    let mut found = Vec::new();
    for (file, source) in &library.files {
        let names = source.types.iter().chain(&source.functions);
        found.extend(names.filter(|name| NAMES.contains(&name.as_str())).map(|name| format!("{file}: {name}")));
    }
    assert!(found.is_empty(), "{found:#?}");
}

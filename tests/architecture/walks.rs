//! The walks of `src/DESIGN.md`: every function that one names is in the file that it names.

use std::collections::BTreeSet;

use crate::{files::read, sources::Library};

/// Reads the steps of all walks: `path/of/file.rs` and a function of it.
fn steps() -> Vec<(String, String)> {
    let page = read("src/DESIGN.md");
    let walks = page.split("\n## ").find(|part| part.starts_with("Walks")).expect("the page has its walks");
    let rows = walks.lines().filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()));
    let cells = rows.filter_map(|row| {
        let mut quoted = row.split('`').skip(1).step_by(2);
        Some((quoted.next()?.to_owned(), quoted.next()?.to_owned()))
    });
    cells.collect()
}

#[test]
fn every_function_of_a_walk_exists() {
    let (library, steps) = (Library::parse(), steps());
    assert!(steps.len() > 30, "the walks were read: {}", steps.len());
    let mut missing = Vec::new();
    for (file, function) in &steps {
        let source = library.files.get(&format!("src/{file}"));
        let (owner, name) = function.rsplit_once("::").unwrap_or(("", function));
        let is_there = source.is_some_and(|source| source.functions.iter().any(|known| known == name));
        if !is_there || !read(&format!("src/{file}")).contains(owner) {
            missing.push(format!("{file} {function}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let rooms: BTreeSet<_> = steps.iter().filter_map(|(file, _)| file.rsplit_once('/')).map(|(room, _)| room).collect();
    assert!(rooms.len() < 30, "{rooms:?}");
}

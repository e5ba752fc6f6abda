//! The walks of `src/DESIGN.md`: every function that one names is in the file that it names.

use std::collections::BTreeSet;

use crate::{
    files::{entries, read, root},
    sources::Library,
};

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
}

/// Splits the page's walks: each with its heading's figures and the files of its steps.
fn walks() -> Vec<(Vec<usize>, Vec<String>)> {
    let page = read("src/DESIGN.md");
    let part = page.split("\n## ").find(|part| part.starts_with("Walks")).expect("the page has its walks");
    let walk = |text: &str| {
        let (heading, steps) = text.split_once("\n\n").expect("steps below a heading");
        let digits = heading.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        let rows = steps.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let files = rows.filter_map(|row| row.split('`').nth(1)).map(str::to_owned);
        (digits.collect(), files.collect())
    };
    part.split("\n**").skip(1).map(walk).collect()
}

#[test]
fn every_walk_says_how_many_rooms_it_visits_and_how_many_files_are_in_them() {
    for (figures, files) in walks() {
        let rooms: BTreeSet<_> = files.iter().map(|file| file.rsplit_once('/').expect("in a room").0).collect();
        let in_room = |room: &&str| entries(&root().join("src").join(room)).filter(|path| path.is_file()).count();
        assert_eq!(figures[..2], [rooms.len(), rooms.iter().map(in_room).sum()], "{files:?}");
    }
}

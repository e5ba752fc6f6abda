//! The walks of `src/DESIGN.md`: every function that one names is in the file that it names.

use std::collections::BTreeSet;

use crate::{
    files::{entries, read, root},
    sources::Library,
};

/// A walk: the figures of its heading, and its steps, each a file of `src` and a function of it.
struct Walk {
    figures: Vec<usize>,
    steps: Vec<(String, String)>,
}

fn walks() -> Vec<Walk> {
    let page = read("src/DESIGN.md");
    let part = page.split("\n## ").find(|part| part.starts_with("Walks")).expect("the page has its walks");
    let walk = |text: &str| {
        let (heading, steps) = text.split_once("\n\n").expect("steps below a heading");
        let digits = heading.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok());
        let rows = steps.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
        let step = |row: &str| {
            let mut quoted = row.split('`').skip(1).step_by(2).map(str::to_owned);
            Some((quoted.next()?, quoted.next()?))
        };
        Walk { figures: digits.collect(), steps: rows.filter_map(step).collect() }
    };
    part.split("\n**").skip(1).map(walk).collect()
}

#[test]
fn every_function_of_a_walk_exists() {
    let library = Library::parse();
    let steps: Vec<_> = walks().into_iter().flat_map(|walk| walk.steps).collect();
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

#[test]
fn every_walk_says_how_many_rooms_it_visits_and_how_many_files_are_in_them() {
    for Walk { figures, steps } in walks() {
        let rooms: BTreeSet<_> = steps.iter().map(|(file, _)| file.rsplit_once('/').expect("in a room").0).collect();
        let in_room = |room: &&str| entries(&root().join("src").join(room)).filter(|path| path.is_file()).count();
        assert_eq!(figures[..2], [rooms.len(), rooms.iter().map(in_room).sum()], "{steps:?}");
    }
}

//! Layers and circles: which file depends on which.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    files::read,
    sources::{Library, ModulePath},
};

/// How far re-exports of re-exports are followed.
const HOPS_MAX: usize = 12;

/// Files by what they depend on.
struct Graph(BTreeMap<String, BTreeSet<String>>);

impl Library {
    /// Finds the file that defines what a path, written in a module, names. Re-exports are followed, so that a facade
    /// stands for nothing itself.
    fn file_of(&self, module: &[String], path: &[String], hops: usize) -> Option<&String> {
        if hops == HOPS_MAX {
            return None;
        }
        let ups = path.iter().take_while(|part| *part == "super").count();
        let (mut at, mut rest): (ModulePath, &[String]) = match path.first()?.as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module[..module.len().checked_sub(ups)?].to_vec(), &path[ups..]),
            first if self.modules.contains_key(&[module, &[first.to_owned()]].concat()) => (module.to_vec(), path),
            first => {
                let here = self.imports_of(module).find(|import| import.name == *first)?;
                let is_ours = ["crate", "self", "super"].contains(&here.path[0].as_str());
                return is_ours
                    .then(|| [here.path.as_slice(), &path[1..]].concat())
                    .and_then(|path| self.file_of(module, &path, hops + 1));
            }
        };
        while let Some((next, beyond)) = rest.split_first() {
            let deeper = [at.as_slice(), std::slice::from_ref(next)].concat();
            if !self.modules.contains_key(&deeper) {
                break;
            }
            (at, rest) = (deeper, beyond);
        }
        let defined_in = self.modules.get(&at)?;
        let Some((name, beyond)) = rest.split_first() else { return Some(defined_in) };
        let exported = self.imports_of(&at).find(|import| import.exported && import.name == *name);
        let through = exported.map(|import| [import.path.as_slice(), beyond].concat());
        through.and_then(|path| self.file_of(&at, &path, hops + 1)).or(Some(defined_in))
    }

    fn imports_of(&self, module: &[String]) -> impl Iterator<Item = &crate::sources::Import> {
        let file = self.modules.get(module).and_then(|file| self.files.get(file));
        file.into_iter().flat_map(|source| &source.imports).filter(move |import| import.module == module)
    }

    fn graph(&self) -> Graph {
        let mut graph = BTreeMap::new();
        for (file, source) in &self.files {
            let imported = source.imports.iter().filter(|import| !import.exported);
            let paths = imported.map(|import| (&import.module, &import.path));
            let paths = paths.chain(source.mentions.iter().map(|mention| (&mention.module, &mention.path)));
            let found = paths.filter_map(|(module, path)| self.file_of(module, path, 0));
            // The generated messages stand in `lib.rs`.
            let needs = found.filter(|needed| *needed != file && *needed != "src/lib.rs").cloned().collect();
            graph.insert(file.clone(), needs);
        }
        Graph(graph)
    }
}

impl Graph {
    /// Everything that a file depends on, near or far.
    fn reach(&self, from: &str) -> BTreeSet<&String> {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = open.pop() {
            for needed in &self.0[&file] {
                if reached.insert(needed) {
                    open.push(needed.clone());
                }
            }
        }
        reached
    }

    fn edges(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0.iter().flat_map(|(file, needs)| needs.iter().map(move |needed| (file, needed)))
    }
}

/// The first folder, or file, below `src`.
fn layer(file: &str) -> &str {
    file.trim_start_matches("src/").split(['/', '.']).next().unwrap_or_default()
}

/// The layers as the table of `lib.rs` has them, from the top down.
fn layers() -> Vec<String> {
    let page = read("src/lib.rs");
    let rows = page.lines().filter_map(|line| line.strip_prefix("//! | [`"));
    rows.map(|row| row.split('`').next().expect("a name").to_owned()).collect()
}

#[test]
fn the_graph_is_read_as_it_is() {
    let graph = Library::parse().graph();
    let depends = |file: &str, on: &str| graph.0[&format!("src/{file}")].contains(&format!("src/{on}"));
    assert!(depends("verify/answer/look_up.rs", "verify/cache/tables.rs"), "by a use of its own");
    assert!(depends("app/verification.rs", "verify/answer/look_up.rs"), "through the facade of verify");
    assert!(!depends("verify/cache/slot.rs", "verify/answer/look_up.rs"));
    assert!(graph.edges().count() > 500);
}

#[test]
fn dependencies_point_from_the_top_of_the_table_to_its_bottom() {
    let (layers, library) = (layers(), Library::parse());
    assert!(layers.len() >= 8, "the table was read: {layers:?}");
    let rank = |file: &str| layers.iter().position(|name| name == layer(file));
    let graph = library.graph();
    let wrong: Vec<_> = graph
        .edges()
        .filter(|(file, needed)| layer(file) != layer(needed))
        .filter(|(file, needed)| match (rank(file), rank(needed)) {
            (Some(above), Some(below)) => above >= below,
            // What stands beside the layers knows none of them.
            (None, Some(_)) => layer(file) != "main" && layer(file) != "lib",
            _ => false,
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_files_depend_on_each_other_in_a_circle() {
    let graph = Library::parse().graph();
    let circular: Vec<_> = graph.edges().filter(|(file, needed)| graph.reach(needed).contains(file)).collect();
    assert!(circular.is_empty(), "these dependencies are parts of circles: {circular:#?}");
}

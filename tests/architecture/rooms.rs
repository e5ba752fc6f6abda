//! Rooms: few files on a floor, and pages that name what is there.

use std::collections::BTreeMap;

use crate::files::{below, entries, read, root};

/// Files on one floor, its page included.
const FILES_MAX: usize = 12;
/// How names of files end.
const FILES: [&str; 5] = [".rs", ".md", ".sql", ".sh", ".toml"];

#[test]
fn no_folder_of_the_sources_holds_more_than_twelve_files() {
    let mut floors: BTreeMap<String, usize> = BTreeMap::new();
    let mut open = vec![root().join("src")];
    while let Some(folder) = open.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                open.push(path);
            } else {
                *floors.entry(folder.to_string_lossy().into_owned()).or_default() += 1;
            }
        }
    }
    assert!(floors.len() > 30, "the folders were found");
    floors.retain(|_, files| *files > FILES_MAX);
    assert!(floors.is_empty(), "{floors:#?}");
}

#[test]
fn every_room_has_a_page_and_every_file_that_it_names_is_there() {
    let is_file = |name: &&str| !name.contains('*') && FILES.iter().any(|ending| name.ends_with(ending));
    let pages = below(&["src"], &["README.md"]);
    for (page, text) in &pages {
        let folder = root().join(page.trim_end_matches("README.md"));
        // The first cell of a row, or the beginning of a list's item, names files; `*_service.rs` names several.
        let named = text.lines().filter_map(|line| line.strip_prefix("| ").and_then(|row| row.split(" | ").next()));
        for cell in named {
            for name in cell.split('`').skip(1).step_by(2).filter(is_file) {
                assert!(folder.join(name).exists(), "{page} names {name}");
            }
        }
    }
    for module in below(&["src"], &["/mod.rs"]).keys() {
        let page = format!("{}README.md", module.trim_end_matches("mod.rs"));
        let is_for_tests = module.contains("/tests/");
        assert!(is_for_tests || pages.contains_key(&page), "{page} says what lives there and what must not");
    }
}

#[test]
fn every_page_and_every_contract_leads_to_the_rules() {
    let mut pages = below(&["src", "tests", "deploy", "migrations", "proto"], &["README.md", ".proto"]);
    pages.insert("README.md".to_owned(), read("README.md"));
    pages.insert("src/lib.rs".to_owned(), read("src/lib.rs"));
    let lost: Vec<_> = pages.into_iter().filter(|(_, text)| !text.contains("RULES.md")).map(|(page, _)| page).collect();
    assert!(lost.is_empty(), "{lost:#?}");
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = below(&["src", "tests", "deploy", "migrations", "proto", ".github"], &[".md"]);
    pages.insert("README.md".to_owned(), read("README.md"));
    let mut broken = Vec::new();
    for (page, text) in &pages {
        let folder = root().join(page.rsplit_once('/').map_or("", |(folder, _)| folder));
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !target.contains("://") && !file.is_empty() && !folder.join(file).exists() {
                broken.push(format!("{page}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

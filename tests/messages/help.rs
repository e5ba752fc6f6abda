//! `--help`, of the program and of each command in it.

use std::time::Duration;

use crate::{assert_text, support::process::latchkey};

const LIMIT: Duration = Duration::from_secs(20);

fn help(command: &[&str]) -> String {
    // Where no terminal says how wide it is, it is this wide.
    let arguments = command.iter().copied().chain(["--help"]);
    latchkey(arguments).env("COLUMNS", "100").run(LIMIT).success()
}

/// The commands that a help lists.
fn commands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn the_program_and_each_command_explain_themselves() {
    let mut pending: Vec<Vec<String>> = vec![vec![]];
    let mut explained = 0;
    while let Some(command) = pending.pop() {
        let help = help(&command.iter().map(String::as_str).collect::<Vec<_>>());
        pending.extend(commands(&help).into_iter().map(|name| [command.clone(), vec![name]].concat()));
        let name = [vec!["help".to_owned()], command].concat().join("_");
        assert_text(&name, &help);
        explained += 1;
    }
    assert!(explained > 8, "the commands are found: {explained}");
}

//! The tour that people paste from: every command of it works.

use std::process::Command;

use super::{
    START_LIMIT, STOP_LIMIT,
    support::{
        logs,
        process::{Signal, latchkey, scratch},
    },
};

/// The commands of the tour: what comes before the first comment, then what follows each.
fn blocks(tour: &[String]) -> Vec<String> {
    let mut blocks = vec![String::new()];
    for line in tour.iter().filter_map(|line| line.strip_prefix("  ")) {
        if line.starts_with("# ") {
            blocks.push(String::new());
        } else if let Some(block) = blocks.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    blocks
}

/// Runs commands in a shell, as if pasted.
fn paste(setup: &str, commands: &str) -> String {
    let script = format!("set -eu\n{setup}\n{commands}");
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{commands}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

#[test]
fn its_lines_can_be_pasted() {
    let there = Command::new("bash").args(["-c", "command -v grpcurl && grpcurl -version"]).output().expect("bash");
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let arguments = ["dev", "--port", "0", "--data-dir", data_dir.to_str().expect("Unicode")];
    let mut process = latchkey(arguments).secret_stdout().spawn();
    let mut tour = Vec::new();
    while !tour.last().is_some_and(|line: &String| line.contains("ListEvents")) {
        tour.push(process.line(START_LIMIT));
    }
    let pepper = std::fs::read_to_string(data_dir.join("pepper")).expect("the folder's pepper");
    logs::keep_secret("tour", pepper.trim());
    let blocks = blocks(&tour);
    let [setup, look, create, verify, events] = &blocks[..] else { panic!("{blocks:#?}") };
    // Whether or not they can be run: a shell can read them.
    for block in &blocks {
        let read = Command::new("bash").args(["-n", "-c", block]).status().expect("bash");
        assert!(read.success(), "{block}");
    }
    if there.status.success() {
        let listed = paste(setup, look);
        assert!(listed.contains("latchkey.v1.ApiKeyService") && listed.contains("is a message"), "{listed}");
        let created: serde_json::Value = serde_json::from_str(&paste(setup, create)).expect("JSON");
        let token = created["token"].as_str().expect("a token");
        let verified = paste(setup, &verify.replace("PASTE THE TOKEN", token));
        let verified: serde_json::Value = serde_json::from_str(&verified).expect("JSON");
        assert_eq!(verified["verification"]["outcome"], "VERIFICATION_OUTCOME_VALID");
        let listed = paste(setup, events);
        assert!(listed.contains("EVENT_KIND_API_KEY_CREATED") && listed.contains("adam"), "{listed}");
    } else {
        println!("NOTE: grpcurl is not on PATH: the tour's commands were read by a shell and not run");
    }
    process.signal(Signal::INT);
    process.wait(STOP_LIMIT).success();
}

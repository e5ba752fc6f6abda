//! Checks what keeps `latchkey dev` from starting: the error says what to do, and nothing is left behind.

use super::{
    START_LIMIT, dev,
    support::process::{latchkey, processes_naming, scratch},
};

#[test]
fn a_port_in_use_is_reported_before_anything_is_made() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let stderr = dev(&data_dir, address.port()).run(START_LIMIT).failure();
    assert!(
        stderr.contains(&format!("cannot listen on {address}")) && stderr.contains("choose another port"),
        "{stderr}"
    );
    assert!(!data_dir.exists(), "no cluster is made for nothing");
    assert!(processes_naming(&data_dir).is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("written");
    let data_dir = file.join("data");
    let stderr = dev(&data_dir, 0).run(START_LIMIT).failure();
    assert!(stderr.contains(&format!("cannot create the folder {}", data_dir.display())), "{stderr}");
    assert!(stderr.contains("a part of the path is not a folder"), "{stderr}");
}

#[test]
fn a_folder_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    let closed = scratch.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    let mode = |mode| std::fs::set_permissions(&closed, PermissionsExt::from_mode(mode)).expect("ours");
    mode(0o500);
    let data_dir = closed.join("data");
    let stderr = dev(&data_dir, 0).run(START_LIMIT).failure();
    mode(0o700);
    assert!(stderr.contains(closed.to_str().expect("Unicode")), "{stderr}");
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; the user that PostgreSQL runs as may not pass.
        assert!(stderr.contains("cannot enter the folder") && stderr.contains("--data-dir"), "{stderr}");
    } else {
        assert!(stderr.contains("permission denied"), "{stderr}");
    }
    assert!(processes_naming(&data_dir).is_empty());
}

#[test]
fn missing_programs_of_postgres_are_reported_with_what_to_install() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let start = dev(&data_dir, 0).env("LATCHKEY_POSTGRES_BIN", scratch.path().to_str().expect("Unicode"));
    let stderr = start.run(START_LIMIT).failure();
    assert!(stderr.contains("LATCHKEY_POSTGRES_BIN") && stderr.contains("initdb"), "{stderr}");
    assert!(!data_dir.exists());
}

#[test]
fn settings_of_a_production_server_do_not_reach_it() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("written");
    let data_dir = file.join("data").to_str().expect("Unicode").to_owned();
    let start = latchkey(["dev", "--data-dir", &data_dir, "--port", "0"]);
    let start = start.env("LATCHKEY_DATABASE_URL", "nonsense").env("LATCHKEY_PEPPERS", "nonsense");
    let stderr = start.run(START_LIMIT).failure();
    assert!(stderr.contains("cannot create the folder"), "its own trouble, not the environment's: {stderr}");
}

//! What keeps `latchkey dev` from starting, in words that say what to do; and nothing is left behind.

use super::{
    START_LIMIT, dev,
    support::process::{latchkey, processes_naming, scratch},
};

#[test]
fn a_port_in_use_is_told_before_anything_is_made() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound");
    let told = dev(&data_dir, address.port()).run(START_LIMIT).failure();
    assert!(told.contains(&format!("cannot listen on {address}")) && told.contains("choose another port"), "{told}");
    assert!(!data_dir.exists(), "no cluster is made for nothing");
    assert!(processes_naming(&data_dir).is_empty());
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("written");
    let data_dir = file.join("data");
    let told = dev(&data_dir, 0).run(START_LIMIT).failure();
    assert!(told.contains(&format!("cannot create the folder {}", data_dir.display())), "{told}");
    assert!(told.contains("a part of the path is not a folder"), "{told}");
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
    let told = dev(&data_dir, 0).run(START_LIMIT).failure();
    mode(0o700);
    assert!(told.contains(closed.to_str().expect("Unicode")), "{told}");
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; the user that PostgreSQL runs as may not pass.
        assert!(told.contains("cannot enter the folder") && told.contains("--data-dir"), "{told}");
    } else {
        assert!(told.contains("permission denied"), "{told}");
    }
    assert!(processes_naming(&data_dir).is_empty());
}

#[test]
fn missing_programs_of_postgres_are_told_with_what_to_install() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let start = dev(&data_dir, 0).env("LATCHKEY_POSTGRES_BIN", scratch.path().to_str().expect("Unicode"));
    let told = start.run(START_LIMIT).failure();
    assert!(told.contains("LATCHKEY_POSTGRES_BIN") && told.contains("initdb"), "{told}");
    assert!(!data_dir.exists());
}

#[test]
fn settings_of_a_server_in_earnest_do_not_reach_it() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    std::fs::write(&file, "").expect("written");
    let data_dir = file.join("data").to_str().expect("Unicode").to_owned();
    let start = latchkey(["dev", "--data-dir", &data_dir, "--port", "0"]);
    let start = start.env("LATCHKEY_DATABASE_URL", "nonsense").env("LATCHKEY_PEPPERS", "nonsense");
    let told = start.run(START_LIMIT).failure();
    assert!(told.contains("cannot create the folder"), "its own trouble, not the environment's: {told}");
}

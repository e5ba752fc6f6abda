//! Whatever is killed, and whenever: nothing is left running, and nothing is left lying about.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use latchkey::private_postgres::{Options, PrivatePostgres};

use super::{alive, eventually, execute, kill, lasting, postmaster_pid, scratch};

/// Tells the re-executed test binary where to start its PostgreSQL.
const CHILD_DIR: &str = "LATCHKEY_TEST_CHILD_DIR";

#[tokio::test]
async fn a_killed_postmaster_is_noticed_and_does_not_block_the_next_start() {
    let scratch = scratch();
    let options = lasting(scratch.path().join("pg"));
    let mut postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    assert!(!postgres.ended());
    kill(postmaster_pid(&options.data_dir));
    eventually("the end is noticed", Duration::from_secs(5), || postgres.ended()).await;
    postgres.stop().await.unwrap();
    // As if the process id in the stale file had been reused meanwhile: by us.
    let pid_file = options.data_dir.join("postgres/data/postmaster.pid");
    let stale = std::fs::read_to_string(&pid_file).unwrap();
    let rest: Vec<&str> = stale.lines().skip(1).collect();
    std::fs::write(&pid_file, format!("{}\n{}\n", std::process::id(), rest.join("\n"))).unwrap();
    PrivatePostgres::start(options).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn a_postmaster_that_lost_its_guard_is_stopped_too() {
    let scratch = scratch();
    let options = lasting(scratch.path().join("pg"));
    let postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    let postmaster = postmaster_pid(&options.data_dir);
    // Everything that watches is killed; what is left is an orphan.
    for watcher in watchers(&options.data_dir) {
        kill(watcher);
    }
    assert!(alive(postmaster));
    drop(postgres);
    assert!(alive(postmaster), "nothing was left to stop it");
    let again = PrivatePostgres::start(options.clone()).await.unwrap();
    assert!(!alive(postmaster));
    assert_ne!(postmaster_pid(&options.data_dir), postmaster);
    again.stop().await.unwrap();
}

/// The process ids of the guard (two shells) and the janitor of a folder.
fn watchers(data_dir: &Path) -> Vec<i32> {
    let data_dir = data_dir.canonicalize().unwrap();
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,args="]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    // Scripts hold new lines, which some versions of ps print: the id is looked for above the line that names us.
    let (mut found, mut pid) = (Vec::new(), 0);
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        if let (Some(first), Some("/bin/sh")) = (words.next().and_then(|word| word.parse().ok()), words.next()) {
            pid = first;
        }
        if line.contains("latchkey-") && line.contains(data_dir.to_str().unwrap()) && !found.contains(&pid) {
            found.push(pid);
        }
    }
    assert_eq!(found.len(), 3, "guard, its watcher, janitor:\n{listed}");
    found
}

/// Not a test: what the next ones run in a process of its own.
#[tokio::test]
#[ignore = "the child of other tests"]
async fn child() {
    let Some(data_dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let _postgres = PrivatePostgres::start(Options::throwaway(data_dir)).await.unwrap();
    // A child of ours must not keep PostgreSQL alive by having inherited the lifeline.
    let mut sleep = Command::new("sleep");
    let mut sleeper = sleep.arg("30").stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    println!("started, sleeper {}.", sleeper.id());
    sleeper.wait().unwrap();
}

fn spawn_child(data_dir: &Path) -> std::process::Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kills::child", "--ignored", "--nocapture"]).env(CHILD_DIR, data_dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[tokio::test]
async fn killing_the_parent_stops_postgres_and_removes_the_folder() {
    use std::io::BufRead;
    let scratch = scratch();
    let data_dir = scratch.path().join("pg");
    let mut parent = spawn_child(&data_dir);
    let lines = std::io::BufReader::new(parent.stdout.take().unwrap()).lines();
    let started = lines.map(Result::unwrap).find(|line| line.contains("started, sleeper ")).expect("it starts");
    let sleeper: i32 = started.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap();
    let postmaster = postmaster_pid(&data_dir);
    parent.kill().unwrap();
    parent.wait().unwrap();
    let limit = Duration::from_secs(10);
    eventually("PostgreSQL is gone", limit, || !alive(postmaster)).await;
    eventually("its folder is gone", limit, || !data_dir.exists()).await;
    assert!(alive(sleeper), "it was not the sleeper's end that did it");
    kill(sleeper);
}

#[tokio::test]
async fn killing_the_parent_at_any_moment_of_its_start_leaves_nothing() {
    for delay_ms in [20, 60, 150, 400, 800, 1200, 1600] {
        let scratch = scratch();
        let data_dir = scratch.path().join("pg");
        let mut parent = spawn_child(&data_dir);
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        parent.kill().unwrap();
        let rest = parent.wait_with_output().unwrap();
        if let Some((_, pid)) = String::from_utf8_lossy(&rest.stdout).split_once("sleeper ") {
            kill(pid.split('.').next().unwrap().parse().unwrap());
        }
        let limit = Duration::from_secs(15);
        // A folder that was created only just before the kill, perhaps with its lock, has no janitor yet.
        let bare = || match std::fs::read_dir(&data_dir) {
            Ok(entries) => entries.flatten().all(|entry| entry.file_name() == "latchkey.lock"),
            Err(_) => true,
        };
        eventually("the folder is gone", limit, bare).await;
        let quiet = || {
            let listed = Command::new("ps").args(["-A", "-ww", "-o", "args="]).output().unwrap();
            !String::from_utf8_lossy(&listed.stdout).contains(data_dir.to_str().unwrap())
        };
        eventually("no process is left", limit, quiet).await;
        assert!(bare(), "killed after {delay_ms} ms");
    }
}

#[tokio::test]
async fn a_restart_right_after_a_kill_waits_for_the_clean_up() {
    use std::io::BufRead;
    let scratch = scratch();
    let data_dir = scratch.path().join("pg");
    let mut parent = spawn_child(&data_dir);
    let lines = std::io::BufReader::new(parent.stdout.take().unwrap()).lines();
    let started = lines.map(Result::unwrap).find(|line| line.contains("started, sleeper ")).expect("it starts");
    kill(started.rsplit(' ').next().unwrap().trim_end_matches('.').parse().unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    let postgres = PrivatePostgres::start(Options::throwaway(&data_dir)).await.unwrap();
    assert_eq!(execute(&postgres.superuser_url("postgres"), "SELECT 1").await.unwrap(), 1);
    postgres.stop().await.unwrap();
}

//! The private PostgreSQL, started for real: it works as any user, keeps its data, refuses what it must, and is never
//! left running.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use latchkey::private_postgres::binaries::Search;
use latchkey::private_postgres::{Durability, Options, PrivatePostgres, PrivatePostgresError};

mod kills;

/// A temporary folder that PostgreSQL's user may pass through.
fn scratch() -> tempfile::TempDir {
    log_where_the_suite_looks_for_secrets();
    let scratch = tempfile::tempdir().unwrap();
    std::fs::set_permissions(scratch.path(), PermissionsExt::from_mode(0o711)).unwrap();
    scratch
}

fn log_where_the_suite_looks_for_secrets() {
    let Some(folder) = std::env::var_os("LATCHKEY_TEST_LOG_DIR") else {
        return;
    };
    let file = Path::new(&folder).join(format!("private_postgres.{}.log", std::process::id()));
    let file = std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
    // Only the first test of the process gets to set it.
    let _ = tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(file)).with_ansi(false).try_init();
}

fn lasting(data_dir: PathBuf) -> Options {
    Options { remove_on_stop: false, ..Options::throwaway(data_dir) }
}

fn postmaster_pid(data_dir: &Path) -> i32 {
    let text = std::fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

fn alive(pid: i32) -> bool {
    // A zombie does not count: this machine's init may take its time.
    let stat = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    !stat.stdout.is_empty() && !stat.stdout.starts_with(b"Z")
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

async fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(limit, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "not within {limit:?}: {what}");
}

async fn execute(url: &str, sql: &str) -> Result<usize, diesel::result::Error> {
    let mut connection = AsyncPgConnection::establish(url).await.expect("the address works");
    diesel::sql_query(sql).execute(&mut connection).await
}

#[tokio::test]
async fn it_starts_as_any_user_and_leaves_nothing_behind() {
    let scratch = scratch();
    let data_dir = scratch.path().join("pg");
    let postgres = PrivatePostgres::start(Options::throwaway(&data_dir)).await.unwrap();
    let pid = postmaster_pid(&data_dir);
    assert_eq!(execute(&postgres.superuser_url("postgres"), "SELECT 1").await.unwrap(), 1);
    let password_mode = std::fs::metadata(data_dir.join("superuser.password")).unwrap().permissions().mode();
    assert_eq!(password_mode & 0o777, 0o600);
    let shown = format!("{postgres:?}");
    let password = std::fs::read_to_string(data_dir.join("superuser.password")).unwrap();
    assert!(!shown.contains(password.trim()), "{shown}");
    postgres.stop().await.unwrap();
    assert!(!alive(pid));
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn dropping_it_stops_it() {
    let scratch = scratch();
    let data_dir = scratch.path().join("pg");
    let postgres = PrivatePostgres::start(Options::throwaway(&data_dir)).await.unwrap();
    let pid = postmaster_pid(&data_dir);
    drop(postgres);
    assert!(!alive(pid));
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn what_others_put_into_the_folder_is_not_removed() {
    let scratch = scratch();
    std::fs::write(scratch.path().join("mine.password"), "mine").unwrap();
    let postgres = PrivatePostgres::start(Options::throwaway(scratch.path())).await.unwrap();
    postgres.stop().await.unwrap();
    let left: Vec<_> = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["mine.password"]);
}

#[tokio::test]
async fn a_second_start_keeps_data_roles_and_passwords() {
    let scratch = scratch();
    let options = Options::durable(scratch.path().join("pg"));
    let first = PrivatePostgres::start(options.clone()).await.unwrap();
    first.create_roles_and_database().await.unwrap();
    first.create_roles_and_database().await.unwrap();
    let owner = first.owner_url("latchkey").unwrap();
    execute(&owner, "CREATE TABLE kept (n int)").await.unwrap();
    execute(&owner, "INSERT INTO kept VALUES (1), (2)").await.unwrap();
    first.stop().await.unwrap();

    let second = PrivatePostgres::start(options).await.unwrap();
    second.create_roles_and_database().await.unwrap();
    assert_eq!(execute(&second.owner_url("latchkey").unwrap(), "SELECT n FROM kept").await.unwrap(), 2);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn the_two_roles_are_plain_and_the_application_owns_nothing() {
    let scratch = scratch();
    let postgres = PrivatePostgres::start(Options::throwaway(scratch.path().join("pg"))).await.unwrap();
    postgres.create_roles_and_database().await.unwrap();
    let (owner, app) = (postgres.owner_url("latchkey").unwrap(), postgres.app_url("latchkey").unwrap());
    let privileged = "SELECT 1 FROM pg_roles WHERE rolname LIKE 'latchkey%' AND
                      (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)";
    assert_eq!(execute(&app, privileged).await.unwrap(), 0);
    let owned = "SELECT 1 FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba
                 WHERE d.datname = 'latchkey' AND r.rolname = 'latchkey_owner'";
    assert_eq!(execute(&app, owned).await.unwrap(), 1);
    assert!(execute(&app, "CREATE TABLE t (n int)").await.is_err(), "the application cannot create");
    execute(&owner, "CREATE TABLE t (n int)").await.unwrap();
    assert!(execute(&app, "SELECT n FROM t").await.is_err(), "nothing is granted by itself");

    // A database is copied from a template; odd names are quoted; a wrong password is refused.
    postgres.create_database("co'py \"1\"", Some("latchkey")).await.unwrap();
    execute(&postgres.owner_url("co'py \"1\"").unwrap(), "INSERT INTO t VALUES (1)").await.unwrap();
    postgres.drop_database("co'py \"1\"").await.unwrap();
    let wrong = postgres.url("latchkey_app", "wrong", "latchkey");
    assert!(AsyncPgConnection::establish(&wrong).await.is_err());
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn two_at_once_on_one_folder_are_refused() {
    let scratch = scratch();
    let options = Options::throwaway(scratch.path().join("pg"));
    let postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    let error = PrivatePostgres::start(options).await.unwrap_err();
    assert!(matches!(error, PrivatePostgresError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
    assert_eq!(execute(&postgres.superuser_url("postgres"), "SELECT 1").await.unwrap(), 1, "the first one lives on");
    postgres.stop().await.unwrap();
}

#[tokio::test]
async fn missing_binaries_say_what_to_install() {
    let scratch = scratch();
    let search = Search { explicit: None, path: Some(scratch.path().into()), layouts: vec!["/nonexistent".into()] };
    let data_dir = scratch.path().join("pg");
    let options = Options { search, ..Options::throwaway(&data_dir) };
    let message = PrivatePostgres::start(options).await.unwrap_err().to_string();
    for part in ["apt-get install postgresql", "brew install postgresql@18", "LATCHKEY_POSTGRES_BIN"] {
        assert!(message.contains(part), "{part} in {message}");
    }
    assert!(!data_dir.exists(), "nothing is made before the binaries are found");

    let explicit = Some(scratch.path().to_owned());
    let message = Search { explicit, ..Search::this_machine() }.all().unwrap_err().to_string();
    assert!(message.contains(scratch.path().to_str().unwrap()) && message.contains("no postgres"), "{message}");
}

/// A folder of pretended binaries.
fn pretend(folder: &Path, version: &str) -> PathBuf {
    let bin = folder.join(version);
    std::fs::create_dir(&bin).unwrap();
    for name in ["postgres", "initdb"] {
        let program = bin.join(name);
        std::fs::write(&program, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    }
    bin
}

#[tokio::test]
async fn other_versions_are_refused_by_name_and_the_cluster_s_own_is_preferred() {
    let scratch = scratch();
    let (old, newer, new) =
        (pretend(scratch.path(), "13.9"), pretend(scratch.path(), "17.2"), pretend(scratch.path(), "19.1"));
    let search = Search { explicit: None, path: None, layouts: vec![old.clone(), new.clone()] };
    let message = search.all().unwrap_err().to_string();
    assert!(message.contains("13.9") && message.contains("19.1"), "{message}");
    let search = Search { explicit: None, path: Some(old.into()), layouts: vec![new, newer.clone()] };
    let found = search.all().unwrap();
    assert_eq!((found.len(), found[0].major, &found[0].folder), (1, 17, &newer));

    let options = lasting(scratch.path().join("pg"));
    let postgres = PrivatePostgres::start(options.clone()).await.unwrap();
    let major = postgres.major();
    postgres.stop().await.unwrap();
    if major != 17 {
        let error = PrivatePostgres::start(Options { search, ..options.clone() }).await.unwrap_err();
        assert!(matches!(error, PrivatePostgresError::MajorVersion { .. }), "{error}");
        let message = error.to_string();
        assert!(message.contains("PostgreSQL 17") && message.contains(&format!("PostgreSQL {major}")), "{message}");
        let mut search = Search::this_machine();
        search.path = None;
        search.layouts.insert(0, newer);
        PrivatePostgres::start(Options { search, ..options }).await.unwrap().stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_closed_folder_on_the_way_is_named() {
    let scratch = scratch();
    let closed = scratch.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let started = PrivatePostgres::start(Options::throwaway(closed.join("pg"))).await;
    if rustix::process::geteuid().is_root() {
        let message = started.unwrap_err().to_string();
        assert!(message.contains(closed.canonicalize().unwrap().to_str().unwrap()), "{message}");
        assert!(message.contains("choose a --data-dir") && message.contains("postgres"), "{message}");
        assert!(!closed.join("pg").exists(), "a failed start cleans up");
    } else {
        started.unwrap().stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_failed_start_shows_the_end_of_the_log() {
    let scratch = scratch();
    let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
    let options = Options { settings, ..Options::throwaway(scratch.path().join("pg")) };
    let message = PrivatePostgres::start(options).await.unwrap_err().to_string();
    assert!(message.contains("no_such_setting") && message.contains("postgres.log"), "{message}");
    assert!(!scratch.path().join("pg").exists());
}

#[tokio::test]
async fn a_lost_password_file_is_named() {
    let scratch = scratch();
    let options = Options { durability: Durability::Throwaway, ..lasting(scratch.path().join("pg")) };
    PrivatePostgres::start(options.clone()).await.unwrap().stop().await.unwrap();
    std::fs::remove_file(options.data_dir.join("superuser.password")).unwrap();
    let error = PrivatePostgres::start(options).await.unwrap_err();
    assert!(error.to_string().contains("superuser.password"), "{error}");
}

#[tokio::test]
async fn passwords_never_reach_the_log() {
    let scratch = scratch();
    let postgres = PrivatePostgres::start(lasting(scratch.path().join("pg"))).await.unwrap();
    let mut connection = AsyncPgConnection::establish(&postgres.superuser_url("postgres")).await.unwrap();
    let refused = connection.batch_execute("CREATE ROLE postgres PASSWORD 'very-secret'").await;
    assert!(refused.is_err());
    drop(connection);
    let log = postgres.data_dir().join("postgres/postgres.log");
    postgres.stop().await.unwrap();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("already exists") && !log.contains("very-secret"), "{log}");
}

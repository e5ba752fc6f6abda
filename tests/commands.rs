//! Runs the commands on an operator's own database, and checks what they do, print and refuse.

mod support;

use std::{path::PathBuf, time::Duration};

use latchkey::proto::{GetCatalogueRequest, GetIdentityRequest, ListEventsRequest};
use support::{
    Caller, database,
    ground::on,
    logs,
    process::{Ended, Process, Signal, latchkey, scratch},
    server::{connect, pepper},
    sql,
};
use tonic::Code;

const LIMIT: Duration = Duration::from_secs(20);
const EXAMPLE: &str = "deploy/catalogue.toml";

fn run(database_url: &str, arguments: &[&str]) -> Ended {
    on(database_url, arguments).secret_stdout().run(LIMIT)
}

async fn serve(database_url: &str) -> (Process, tonic::transport::Channel) {
    let mut process = on(database_url, &["serve", "--listen-address", "127.0.0.1:0"]).spawn();
    let channel = connect(process.address(LIMIT)).await;
    (process, channel)
}

/// Creates an empty database, reachable as its owner and as the application's role.
async fn empty(name: &str) -> database::Database {
    let postgres = database::postgres().await;
    postgres.create_database(name, None).await.expect("a new database");
    let url = |url: Result<String, _>| url.map_err(|_| "the password is on file").expect("a URL");
    database::Database {
        name: name.into(),
        app_url: url(postgres.app_url(name)),
        owner_url: url(postgres.owner_url(name)),
    }
}

/// Writes a catalogue file.
fn file(scratch: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = scratch.path().join("catalogue.toml");
    std::fs::write(&path, text).expect("written");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_an_empty_database_to_a_call() {
    logs::start();
    let database = empty("commands_all").await;
    let behind = run(&database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]).failure();
    assert!(behind.contains("schema") && behind.contains("latchkey migrate"), "{behind}");
    let migrated = run(&database.owner_url, &["migrate"]).success();
    assert!(migrated.contains("latchkey_app"), "{migrated}");
    let again = run(&database.owner_url, &["migrate"]).success();
    assert!(again.contains("up to date") && !again.contains("running 2"), "{again}");

    let applied = run(&database.app_url, &["catalogue", "apply", EXAMPLE]).success();
    assert!(applied.contains("27 permissions"), "{applied}");
    let token = run(&database.app_url, &["bootstrap", "--name", "first"]).success();
    assert_eq!(token.lines().count(), 1, "the token alone");
    let second = run(&database.app_url, &["bootstrap", "--ttl-hours", "1"]).success();
    assert_ne!(token, second, "repeatable: the way back in");

    let (process, channel) = serve(&database.app_url).await;
    for token in [token, second] {
        let caller = Caller { channel: channel.clone(), token, on_behalf_of: None };
        let identity = caller.tokens().get_identity(GetIdentityRequest {}).await.expect("live").into_inner();
        assert!(identity.account_permissions.contains(&"system.operate".to_owned()));
        let catalogue = caller.directory().get_catalogue(GetCatalogueRequest {}).await.expect("may read").into_inner();
        assert_eq!(catalogue.catalogue.map(|catalogue| catalogue.permissions.len()), Some(27));
    }
    process.signal(Signal::TERM);
    process.wait(LIMIT).success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_applying_a_catalogue_warns_of_replicas_that_have_not_confirmed_it() {
    let database = database::fresh().await;
    let lost = "INSERT INTO replicas (incarnation, lease_ms, stale_max_ms, pepper_ids, name) \
                VALUES (gen_random_uuid(), 600000, 0, ARRAY['test'], 'lost')";
    sql::run(&database, lost).await;
    let apply = ["catalogue", "apply", EXAMPLE, "--lease-ms", "1000", "--poll-interval-ms", "200"];
    // The second changes nothing, and waits again.
    for what in ["was replaced", "is unchanged"] {
        let ended = run(&database.app_url, &apply);
        let stderr = ended.stderr.clone();
        assert!(ended.success().contains(what));
        assert!(stderr.contains("1 replica has not confirmed") && stderr.contains("again"), "{stderr}");
    }
    let validated = run(&database.app_url, &[&apply[..], &["--validate-only"]].concat());
    assert!(!validated.stderr.contains("confirmed"), "{}", validated.stderr);
    sql::run(&database, "DELETE FROM replicas").await;
    let ended = run(&database.app_url, &apply);
    assert!(!ended.stderr.contains("confirmed"), "{}", ended.stderr);
    ended.success();
}

/// Simulates a failover to a standby that had not received the last event.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v2_after_events_were_lost_nothing_is_known_until_an_operator_accepts_the_history() {
    let database = database::fresh().await;
    let token = run(&database.app_url, &["bootstrap"]).success();
    let head = sql::lines(&database, "SELECT number::text AS line FROM log_head").await.concat();
    let lost = run(&database.app_url, &["bootstrap", "--name", "lost"]).success();
    let (process, channel) = serve(&database.app_url).await;
    let identity = async |token: &str| {
        let caller = Caller { channel: channel.clone(), token: token.to_owned(), on_behalf_of: None };
        caller.tokens().get_identity(GetIdentityRequest {}).await.map(drop).map_err(|status| status.code())
    };
    assert_eq!(identity(&lost).await, Ok(()));
    let forget = format!(
        "DELETE FROM api_key_secrets WHERE key_id IN (SELECT key_id FROM api_keys WHERE name = 'lost'); \
         UPDATE api_keys SET state = 'deleted', delete_time = now() WHERE name = 'lost'; \
         DELETE FROM api_keys WHERE name = 'lost'; DELETE FROM events WHERE number > {head}; \
         UPDATE log_head SET number = {head}, hash = (SELECT hash FROM events WHERE number = {head})"
    );
    database.execute_as_owner(&forget).await;
    let until = async |token: &str, wanted: Result<(), Code>| {
        for _ in 0..500 {
            if identity(token).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never {wanted:?}");
    };
    until(&token, Err(Code::Unavailable)).await;
    // A miss notices before the follower does, which says what to do.
    for _ in 0..500 {
        if process.stderr().contains("`latchkey accept-history`") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(process.stderr().contains("`latchkey accept-history`"), "{}", process.stderr());
    let next: i64 = head.parse::<i64>().expect("a number") + 1;
    let accepted = run(&database.app_url, &["accept-history"]).success();
    assert!(accepted.contains(&format!("the revision was 1.{head} and is 2.{next}")), "{accepted}");
    until(&token, Ok(())).await;
    until(&lost, Err(Code::Unauthenticated)).await;
    // It asks nothing, and can be repeated.
    let again = run(&database.app_url, &["accept-history"]).success();
    assert!(again.contains(&format!("was 2.{next} and is 3.{}", next + 1)), "{again}");
    until(&token, Ok(())).await;
    process.signal(Signal::TERM);
    process.wait(LIMIT).success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_of_a_later_release_is_not_served() {
    let database = database::fresh().await;
    sql::run(&database, "INSERT INTO __diesel_schema_migrations (version) VALUES ('99991231000000')").await;
    let stderr = run(&database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]).failure();
    assert!(stderr.contains("later release"), "{stderr}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_catalogue_file_is_checked_whole_and_named() {
    let database = database::fresh().await;
    let example = std::fs::read_to_string(EXAMPLE).expect("it is there");
    let apply = |text: &str, more: &[&str]| {
        let scratch = scratch();
        let path = file(&scratch, text);
        let mut arguments = vec!["catalogue", "apply", path.to_str().expect("Unicode")];
        arguments.extend(more);
        run(&database.app_url, &arguments)
    };
    let head = async || sql::lines(&database, "SELECT number::text AS line FROM log_head").await;
    let before = head().await;
    assert!(apply(&example, &["--validate-only"]).success().contains("would"));
    assert_eq!(head().await, before, "validating changes nothing");
    apply(&example, &[]).success();
    let applied = head().await;
    assert_ne!(applied, before);
    apply(&example, &[]).success();
    assert_eq!(head().await, applied, "unchanged: no event");

    let unknown_key = example.replacen("team_scopable = true", "team_scoped = true", 1);
    assert!(apply(&unknown_key, &[]).failure().contains("team_scoped"));
    let wrong_name = example.replacen("name = \"catalog.view\"", "name = \"Catalog.View\"", 1);
    assert!(apply(&wrong_name, &[]).failure().contains("permissions[0].name"));
    let left_out = example.replacen(
        "[[permissions]]\nname = \"postmortems.manage\"\ndescription = \"Manage postmortems\"\n",
        "",
        1,
    );
    assert_ne!(left_out, example);
    let stderr = apply(&left_out, &[]).failure();
    assert!(stderr.contains("postmortems.manage") && stderr.contains("retired"), "{stderr}");
    let system = format!("{example}\n[[permissions]]\nname = \"system.verify\"\n");
    assert!(apply(&system, &[]).failure().contains("system."));
    let missing = run(&database.app_url, &["catalogue", "apply", "/no/such/file.toml"]).failure();
    assert!(missing.contains("/no/such/file.toml"), "{missing}");
    assert_eq!(head().await, applied, "what is refused changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pepper_and_an_unreachable_database_are_reported_without_secrets() {
    let database = database::fresh().await;
    run(&database.app_url, &["bootstrap"]).success();
    let other = "5".repeat(63) + "6";
    let start = on(&database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]);
    let stderr = start.env("LATCHKEY_TEST_PEPPER", other.clone()).run(LIMIT).failure();
    assert!(stderr.contains("pepper `test`") && !stderr.contains(&other), "{stderr}");

    let password = "a-password-nobody-sees";
    let away = format!("postgres://latchkey_app:{password}@127.0.0.1:1/latchkey");
    let stderr = run(&away, &["serve", "--listen-address", "127.0.0.1:0"]).failure();
    assert!(stderr.contains("database") && stderr.contains("127.0.0.1:1") && !stderr.contains(password), "{stderr}");
    let refused = format!("postgres://nobody:{password}@{}", database.app_url.rsplit_once('@').expect("a host").1);
    let stderr = run(&refused, &["serve", "--listen-address", "127.0.0.1:0"]).failure();
    assert!(stderr.contains("database") && !stderr.contains(password), "{stderr}");
}

#[test]
fn check_config_prints_what_is_in_force_and_redacts() {
    logs::start();
    let password = "another-password-nobody-sees";
    let url = format!("postgres://app:{password}@db.example/latchkey?password={password}");
    let printed = on(&url, &["check-config", "--lease-ms", "5000"]).run(LIMIT).success();
    assert!(printed.contains("db.example") && printed.contains("5000") && printed.contains("--lease-ms"), "{printed}");
    assert!(!printed.contains(password) && !printed.contains(pepper()), "{printed}");
}

#[test]
fn every_problem_with_the_settings_is_named_at_once() {
    let start = latchkey(["check-config", "--lease-ms", "1", "--token-prefix", "UPPER"]);
    let stderr =
        start.env("LATCHKEY_LISTEN_ADDRES", "typo").env("LATCHKEY_DATABASE_URL", "mysql://x").run(LIMIT).failure();
    for named in ["lease_ms", "token_prefix", "LATCHKEY_LISTEN_ADDRES", "database_url", "peppers"] {
        assert!(stderr.contains(named), "{named} is not named in:\n{stderr}");
    }
}

#[test]
fn help_teaches() {
    let help = latchkey(["--help"]).run(LIMIT).success();
    for command in [
        "serve",
        "dev",
        "migrate",
        "bootstrap",
        "catalogue",
        "accept-history",
        "erase-personal-data",
        "events",
        "check-config",
    ] {
        assert!(help.contains(command), "{help}");
        let help = latchkey([command, "--help"]).run(LIMIT).success();
        assert!(help.contains("Usage:") && help.lines().count() > 5, "{help}");
    }
    assert!(latchkey(["serve", "--no-such-flag"]).run(LIMIT).failure().contains("--no-such-flag"));
    assert!(latchkey(["serv"]).run(LIMIT).failure().contains("serve"), "a near name is suggested");
}

/// A3: the log of the program names the key, the call and the account of each read by break-glass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a3_a_read_by_break_glass_is_in_the_programs_log_and_in_the_events_when_it_stops() {
    let database = database::fresh().await;
    let token = run(&database.app_url, &["bootstrap"]).success();
    let (process, channel) = serve(&database.app_url).await;
    let caller = Caller { channel, token, on_behalf_of: None };
    let identity = caller.tokens().get_identity(GetIdentityRequest {}).await.expect("live").into_inner();
    let key_id = identity.api_key.expect("a key").key_id;
    for _ in 0..2 {
        caller.events().list_events(ListEventsRequest::default()).await.expect("an operator reads all");
    }
    process.signal(Signal::TERM);
    let log = process.wait(LIMIT).stderr;
    let lines: Vec<_> = log.lines().filter(|line| line.contains("latchkey::audit")).collect();
    assert_eq!(lines.len(), 2, "one for each read: {log}");
    assert!(lines.iter().all(|line| line.contains(&key_id) && line.contains("list_events")), "{lines:?}");
    let noted = "SELECT count(*)::text AS line FROM events WHERE kind = 'account.read_by_operator'";
    assert_eq!(sql::lines(&database, noted).await.concat(), "1");
}

/// V6: the server's database role cannot change or delete events, or the server says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v6_no_server_starts_as_a_role_that_could_change_events_unless_asked_to_by_name() {
    let database = database::fresh().await;
    let superuser = database::postgres().await.superuser_url(&database.name);
    let arguments = ["serve", "--listen-address", "127.0.0.1:0"];
    for (url, role) in [(&database.owner_url, "latchkey_owner"), (&superuser, "postgres")] {
        let refused = run(url, &arguments).failure();
        for expected in [role, "latchkey_app", "README.md", "allow_privileged_database_role"] {
            assert!(refused.contains(expected), "{expected} is not in {refused}");
        }
    }
    // It left nothing behind: no row that a revocation would wait for, and no pepper.
    let left = "SELECT (SELECT count(*) FROM replicas) || ' ' || (SELECT count(*) FROM peppers) AS line";
    assert_eq!(sql::lines(&database, left).await.concat(), "0 0");
    // Commands of an operator may run as either.
    run(&database.owner_url, &["catalogue", "apply", EXAMPLE]).success();
    let token = run(&database.owner_url, &["bootstrap"]).success();

    let asked = [&arguments[..], &["--allow-privileged-database-role", "true"]].concat();
    let mut process = on(&database.owner_url, &asked).spawn();
    let channel = connect(process.address(LIMIT)).await;
    let caller = Caller { channel, token, on_behalf_of: None };
    caller.tokens().get_identity(GetIdentityRequest {}).await.expect("it serves");
    process.signal(Signal::TERM);
    let log = process.wait(LIMIT).stderr;
    let warnings = log.lines().filter(|line| line.contains("allow_privileged_database_role")).count();
    assert_eq!(warnings, 1, "{log}");

    let (process, _) = serve(&database.app_url).await;
    process.signal(Signal::TERM);
    let log = process.wait(LIMIT).stderr;
    assert!(!log.contains("allow_privileged_database_role"), "{log}");
}

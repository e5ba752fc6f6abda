use std::fs;
use std::path::Path;

use clap::{Args, FromArgMatches};

use super::setting::{Fallback, Setting};
use super::table::SETTINGS;
use super::*;

const SECRET_A: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const SECRET_B: &str = "f00102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const URL: &str = "postgres://u:hunter2@db/latchkey";

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let required = [("LATCHKEY_DATABASE_URL", URL), ("LATCHKEY_PEPPERS", "a=env:SECRET_A"), ("SECRET_A", SECRET_A)];
    required.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_with(pairs: &[(&str, &str)]) -> Result<Settings, Problems> {
    load(&Flags::default(), environment(pairs))
}

/// The problems, as `setting` → message lines.
fn problems_with(pairs: &[(&str, &str)]) -> String {
    load_with(pairs).expect_err("these settings are wrong").to_string()
}

fn file(folder: &Path, text: &str) -> Flags {
    let path = folder.join("latchkey.toml");
    fs::write(&path, text).unwrap();
    Flags { config_file: Some(path), ..Flags::default() }
}

fn effective(settings: &Settings, key: &str) -> (String, String) {
    let found = settings.effective().iter().find(|effective| effective.key == key).unwrap();
    (found.value.clone(), found.source.clone())
}

#[test]
fn the_defaults_need_only_a_database_and_a_pepper() {
    let settings = load_with(&[]).unwrap();
    assert_eq!(settings.listen_address.to_string(), "127.0.0.1:50051");
    assert_eq!(settings.lease_ms, 10_000);
    assert_eq!(settings.database_url.expose(), URL);
    assert_eq!(settings.token_prefix.as_str(), "lk");
    assert_eq!(settings.peppers.minting().id, "a");
    assert_eq!(settings.peppers.minting().secret[31], 0x1f);
    assert_eq!(settings.effective().len(), SETTINGS.len());
    assert_eq!(effective(&settings, "lease_ms"), ("10000".to_owned(), "default".to_owned()));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        file(folder.path(), "lease_ms = 2000\npoll_interval_ms = 20\ncache_keys_max = 7").with("lease_ms", "4000");
    let settings =
        load(&flags, environment(&[("LATCHKEY_LEASE_MS", "3000"), ("LATCHKEY_CACHE_KEYS_MAX", "8")])).unwrap();
    assert_eq!((settings.lease_ms, settings.cache_keys_max, settings.poll_interval_ms), (4000, 8, 20));
    assert_eq!(effective(&settings, "lease_ms").1, "flag --lease-ms");
    assert_eq!(effective(&settings, "cache_keys_max").1, "environment LATCHKEY_CACHE_KEYS_MAX");
    assert!(effective(&settings, "poll_interval_ms").1.starts_with("file "));
}

#[test]
fn the_file_may_be_named_by_a_variable_and_a_flag_beats_it() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let named = file(one.path(), "lease_ms = 2000").config_file.unwrap();
    let pairs = [("LATCHKEY_CONFIG", named.to_str().unwrap())];
    assert_eq!(load_with(&pairs).unwrap().lease_ms, 2000);
    let flags = file(other.path(), "lease_ms = 3000");
    assert_eq!(load(&flags, environment(&pairs)).unwrap().lease_ms, 3000);
}

#[test]
fn an_empty_variable_is_no_variable() {
    assert_eq!(load_with(&[("LATCHKEY_TOKEN_PREFIX", "")]).unwrap().token_prefix.as_str(), "lk");
}

#[test]
fn every_problem_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        file(folder.path(), "leese_ms = 1\n[server]\nport = 1\n[cache_keys_max]\nx = 1").with("token_prefix", "LK_");
    let pairs = [
        ("LATCHKEY_LEASE_MS", "999"),
        ("LATCHKEY_LISTEN_ADDRESS", "localhost"),
        ("LATCHKEY_LOG_FORMAT", "xml"),
        ("LATCHKEY_LOG_FILTER", "a=b=c"),
        ("LATCHKEY_REQUEST_BYTES_MAX", "4MB"),
        ("LATCHKEY_POOL_INTERVAL_MS", "1"),
    ];
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let problems = load(&flags, pairs).unwrap_err();
    let settings: Vec<&str> = problems.all().iter().map(|problem| problem.setting.as_str()).collect();
    for expected in [
        "leese_ms",
        "server",
        "cache_keys_max",
        "token_prefix",
        "lease_ms",
        "listen_address",
        "log_format",
        "log_filter",
        "request_bytes_max",
        "LATCHKEY_POOL_INTERVAL_MS",
        "database_url",
        "peppers",
    ] {
        assert_eq!(settings.iter().filter(|setting| **setting == expected).count(), 1, "{expected} in {problems}");
    }
    assert_eq!(settings.len(), 12, "{problems}");
    let text = problems.to_string();
    assert!(text.starts_with("12 problems with the settings:\n"), "{text}");
    assert!(text.contains("did you mean `lease_ms`?"), "{text}");
    assert!(text.contains("did you mean `LATCHKEY_POLL_INTERVAL_MS`?"), "{text}");
    assert!(
        text.contains(
            "set `database_url` in the file, LATCHKEY_DATABASE_URL in the environment, or --database-url URL"
        )
    );
    assert!(text.contains("lease_ms (environment LATCHKEY_LEASE_MS): must be at least 1000 (got 999)"), "{text}");
}

#[test]
fn documented_variables_that_are_no_settings_are_let_be() {
    load_with(&[
        ("LATCHKEY_TOKEN", "x"),
        ("LATCHKEY_ADDRESS", "x"),
        ("LATCHKEY_POSTGRES_BIN", "x"),
        ("LATCHKEY_TEST_SEED", "x"),
        ("LATCHKEY_SIM_STEPS", "x"),
        ("OTHER", "x"),
    ])
    .unwrap();
}

#[test]
fn a_missing_or_broken_file_is_a_problem_that_shows_none_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags { config_file: Some(folder.path().join("absent.toml")), ..Flags::default() };
    assert!(load(&flags, environment(&[])).unwrap_err().to_string().contains("cannot read the file: entity not found"));
    let flags = file(folder.path(), "lease_ms = 2000\ndatabase_url = postgres://u:hunter2@db/x\n");
    let text = load(&flags, environment(&[])).unwrap_err().to_string();
    assert!(text.contains("is not valid TOML: line 2"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn numbers_of_the_wrong_kind_are_refused_from_every_layer() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["lease_ms = 1.5", "lease_ms = -1", "lease_ms = true", "lease_ms = [2000, 3000]", "lease_ms = ''"] {
        let problems = load(&file(folder.path(), text), environment(&[])).unwrap_err();
        assert_eq!(problems.all().len(), 1, "{problems}");
        assert_eq!(problems.all()[0].setting, "lease_ms");
    }
    assert!(problems_with(&[("LATCHKEY_LEASE_MS", "600001")]).contains("must be at most 600000 (got 600001)"));
}

#[test]
fn polls_must_come_more_often_than_leases_end() {
    assert!(
        problems_with(&[("LATCHKEY_POLL_INTERVAL_MS", "10000")])
            .contains("poll_interval_ms: must be less than lease_ms, 10000 (got 10000)")
    );
}

#[test]
fn the_first_pepper_mints_and_all_verify() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("b");
    fs::write(&path, format!("  {}\n", SECRET_B.to_uppercase())).unwrap();
    let flags = file(folder.path(), &format!("peppers = ['b=file:{}', ' a = env:LATCHKEY_PEPPER_A ']", path.display()));
    let pairs = [("LATCHKEY_DATABASE_URL", URL), ("LATCHKEY_PEPPER_A", SECRET_A)];
    let settings = load(&flags, pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))).unwrap();
    assert_eq!(settings.peppers.minting().id, "b");
    assert_eq!(settings.peppers.all().iter().map(|pepper| &*pepper.id).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(settings.peppers.all()[0].secret[0], 0xf0);
    assert_eq!(
        effective(&settings, "peppers").0,
        format!("b from file:{}, a from env:LATCHKEY_PEPPER_A", path.display())
    );
    let printed = format!("{settings:?}").to_lowercase();
    assert!(!printed.contains("hunter2") && !printed.contains(&SECRET_A[..16]) && !printed.contains("240, 1, 2"));
}

#[test]
fn bad_peppers_are_all_named_and_never_echoed() {
    let mistakes = [
        ("a=env:ABSENT", "\"ABSENT\" is not set"),
        ("a=file:/absent/pepper", "cannot read the file \"/absent/pepper\": entity not found"),
        ("a=file:relative", "is not absolute"),
        ("A=env:SECRET_A", "an id that is not"),
        ("=env:SECRET_A", "an id that is not"),
        ("a=env:SHORT", "the content of env:SHORT must be exactly 64 hex digits"),
        ("a=env:NOT_HEX", "the content of env:NOT_HEX must be exactly 64 hex digits"),
        ("a=env:ZEROS", "a placeholder"),
        ("a=env:SECRET_A,a=env:SECRET_B", "pepper number 2 (a) repeats"),
        ("a=env:SECRET_A,b=env:SECRET_A", "pepper number 2 (b) repeats"),
        ("a=env:SECRET_A,", "pepper number 2 is not of the form"),
        (SECRET_B, "is not of the form"),
        (&format!("a={SECRET_B}"), "must be given as"),
        (&format!("a=env:{SECRET_B}"), "holds the secret itself"),
    ];
    let not_hex = SECRET_B.replace('f', "g");
    let zeros = "0".repeat(64);
    for (peppers, expected) in mistakes {
        let text = problems_with(&[
            ("LATCHKEY_PEPPERS", peppers),
            ("SECRET_B", SECRET_B),
            ("SHORT", &SECRET_B[..62]),
            ("NOT_HEX", &not_hex),
            ("ZEROS", &zeros),
        ]);
        assert!(text.contains(expected), "{peppers}: {text}");
        assert!(!text.contains(&SECRET_B[8..40]), "{peppers}: {text}");
    }
    let text = problems_with(&[("LATCHKEY_PEPPERS", "a=env:ABSENT,B=env:X,c")]);
    assert!(text.starts_with("3 problems"), "{text}");
}

#[test]
fn a_wrong_database_url_is_refused_without_being_echoed() {
    for url in ["mysql://u:hunter2@db/x", "postgres://", "postgres://u:hunter2 @db/x", "hunter2"] {
        let text = problems_with(&[("LATCHKEY_DATABASE_URL", url)]);
        assert!(text.contains("database_url (environment LATCHKEY_DATABASE_URL):"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn the_flags_are_the_table() {
    let command = Flags::augment_args(clap::Command::new("serve"));
    command.clone().debug_assert();
    let help = command.clone().render_long_help().to_string();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{} <{}>", setting.flag(), setting.value_name)), "{help}");
        assert!(help.contains(&setting.variable()), "{help}");
    }
    let arguments = ["serve", "--config", "/x.toml", "--lease-ms", "5000", "--database-url", URL];
    let matches = command.try_get_matches_from(arguments).unwrap();
    let flags = Flags::from_arg_matches(&matches).unwrap();
    assert_eq!(flags.config_file.as_deref(), Some(Path::new("/x.toml")));
    assert_eq!(flags.values.len(), 2);
    assert!(!format!("{flags:?}").contains("hunter2"));
    assert_eq!(load(&Flags { config_file: None, ..flags }, environment(&[])).unwrap().lease_ms, 5000);
}

/// The settings as a Markdown table.
fn markdown() -> String {
    let mut lines = vec!["| setting | default | what it is |".to_owned(), "|---|---|---|".to_owned()];
    lines.extend(SETTINGS.iter().map(|setting: &Setting| {
        let default = match setting.fallback {
            Fallback::Value(text) => format!("`{text}`"),
            Fallback::Required | Fallback::Chosen { .. } => setting.default_shown().to_owned(),
        };
        format!("| `{}` | {default} | {} |", setting.key, setting.doc_with_range())
    }));
    lines.join("\n")
}

#[test]
fn the_readme_holds_the_table() {
    let table = markdown();
    assert!(include_str!("README.md").contains(&table), "src/settings/README.md must hold this table:\n{table}");
}

#[test]
fn names_end_in_their_unit_and_every_default_parses() {
    for setting in SETTINGS {
        assert_eq!(SETTINGS.iter().filter(|other| other.key == setting.key).count(), 1);
        let unit_shown = match setting.value_name {
            "MS" => setting.key.ends_with("_ms"),
            "SECONDS" => setting.key.ends_with("_s"),
            "DAYS" => setting.key.ends_with("_days"),
            "THREADS" => setting.key.ends_with("_threads"),
            _ => setting.range.is_none() || setting.key.ends_with("_max"),
        };
        assert!(unit_shown, "{}", setting.key);
        assert!(!setting.doc.ends_with('.'), "{}", setting.key);
    }
}

//! What is wrong with settings, and what to do.

use latchkey::settings::{Flags, load};

use crate::assert_text;

/// The problems with a file and variables.
fn problems(file: &str, variables: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("latchkey.toml");
    std::fs::write(&path, file).expect("written");
    let named = [("LATCHKEY_CONFIG", path.to_str().expect("Unicode"))];
    let variables = named.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let problems = load(&Flags::default(), variables).expect_err("these settings are wrong").to_string();
    problems.replace(path.to_str().expect("Unicode"), "latchkey.toml")
}

const DATABASE: (&str, &str) = ("LATCHKEY_DATABASE_URL", "postgres://u:p@db/latchkey");
const PEPPERS: (&str, &str) = ("LATCHKEY_PEPPERS", "a=env:SECRET_A");
const SECRET: (&str, &str) = ("SECRET_A", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");

#[test]
fn what_is_missing() {
    assert_text("settings_missing", &problems("", &[]));
}

#[test]
fn what_is_unknown_or_of_the_wrong_kind() {
    let variables = |name| [DATABASE, PEPPERS, SECRET, (name, "1")];
    let file = "leese_ms = 1\nlease_ms = \"soon\"\n[cache_keys_max]\nx = 1";
    assert_text("settings_unknown", &problems(file, &variables("LATCHKEY_POOL_INTERVAL_MS")));
    assert_text("settings_nonsense", &problems("[server]\nport = 1", &variables("LATCHKEY_NONSENSE")));
    assert_text("settings_no_toml", &problems("lease_ms = = 1", &[DATABASE, PEPPERS, SECRET]));
}

#[test]
fn what_is_out_of_bounds_or_malformed() {
    let variables = [
        ("LATCHKEY_DATABASE_URL", "mysql://db/latchkey"),
        PEPPERS,
        SECRET,
        ("LATCHKEY_LEASE_MS", "999"),
        ("LATCHKEY_LISTEN_ADDRESS", "localhost"),
        ("LATCHKEY_LOG_FORMAT", "xml"),
        ("LATCHKEY_LOG_FILTER", "a=b=c"),
        ("LATCHKEY_REQUEST_BYTES_MAX", "4MB"),
        ("LATCHKEY_TOKEN_PREFIX", "LK_"),
        ("LATCHKEY_DATABASE_POOL_SIZE_MAX", "0"),
    ];
    assert_text("settings_out_of_bounds", &problems("", &variables));
}

#[test]
fn what_does_not_fit_together() {
    let variables = [DATABASE, PEPPERS, SECRET, ("LATCHKEY_POLL_INTERVAL_MS", "9000"), ("LATCHKEY_LEASE_MS", "2000")];
    assert_text("settings_together", &problems("", &variables));
}

#[test]
fn what_is_wrong_with_peppers() {
    for (name, peppers) in [
        ("shape", "nonsense"),
        ("no_variable", "a=env:NOT_THERE"),
        ("short", "a=env:SHORT"),
        ("no_hex", "a=env:NO_HEX"),
        ("twice", "a=env:SECRET_A,a=env:SECRET_A"),
    ] {
        let digits = "z".repeat(64);
        let variables = [DATABASE, ("LATCHKEY_PEPPERS", peppers), SECRET, ("SHORT", "00ff"), ("NO_HEX", &digits)];
        assert_text(&format!("settings_peppers_{name}"), &problems("", &variables));
    }
}

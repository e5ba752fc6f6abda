//! Settings: one table, four layers, every problem at once.
//!
//! A setting comes from its default, the TOML file, the environment or a flag, each winning over those before it. The
//! table below is the only place that names a setting: the struct, the flags, `--help`, `check-config` and the README
//! are made from it. This module must not know what a setting is used for.

mod database_url;
mod flags;
mod layers;
mod peppers;
mod problems;
mod table;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashMap;
use std::net::SocketAddr;

pub use self::database_url::DatabaseUrl;
pub use self::flags::{Flags, flags};
pub use self::peppers::{Pepper, PepperSource, Peppers};
pub use self::problems::{Problem, Problems};
pub use self::table::{Fallback, Setting};
pub use self::values::{LogFilter, LogFormat, TokenPrefix};

use self::Fallback::{Chosen, Required, Value};
use self::layers::Merged;
use self::table::Parse;

/// Makes, of one table: the struct, the descriptors, and the code that reads one into the other.
macro_rules! settings {
    ($(
        $key:ident: $type:ty, $value_name:literal $([$min:literal, $max:expr])?, $fallback:expr, $(secret $secret:literal,)? $doc:literal;
    )*) => {
        /// The settings, checked. Names end in their unit.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $(
                #[doc = $doc]
                pub $key: $type,
            )*
            effective: Vec<Effective>,
        }

        /// Every setting, in the order that documentation lists them.
        pub static SETTINGS: &[Setting] = &[$(
            Setting {
                key: stringify!($key),
                doc: $doc,
                value_name: $value_name,
                range: settings!(@range $($min, $max)?),
                fallback: $fallback,
                secret: settings!(@secret $($secret)?),
            },
        )*];

        impl Settings {
            fn read(reader: &mut Reader<'_>) -> Option<Self> {
                // All are read before any is missed, so that every problem is found.
                $(let $key = reader.read::<$type>(stringify!($key));)*
                Some(Self { $($key: $key?,)* effective: std::mem::take(&mut reader.effective) })
            }
        }
    };
    (@range) => { None };
    (@range $min:literal, $max:expr) => { Some(($min, $max)) };
    (@secret) => { false };
    (@secret $secret:literal) => { $secret };
}

settings! {
    listen_address: SocketAddr, "ADDRESS", Value("127.0.0.1:50051"),
        "IP address and port to serve gRPC on; port 0 takes any free one";
    database_url: DatabaseUrl, "URL", Required, secret true,
        "Address of the PostgreSQL primary, `postgres://user:password@host:5432/name`";
    database_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("8"),
        "Most database connections for mutations, lists and the log, half of them for mutations and half for reads, and at least one for each; with those of the next five settings and four more, for the lease, the barrier and notifications, a server has at most 24 by default";
    narrowing_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Most database connections for calls that only take authority away (delete, disable, revoke, suspend, deactivate), which wait for no other kind";
    caller_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Most database connections for looking up the users that services act for";
    verify_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("4"),
        "Most database connections for verifications that miss the cache";
    watch_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Most database connections for reads of open watches (WatchEvents), of which an account takes one at a time";
    upkeep_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Most database connections for housekeeping: last uses, notes of ended tokens, forgetting";
    mutations_per_account_max: usize, "CALLS" [1, 1_000], Value("1"),
        "Most mutations of one account at work in the database at once, and as many again that only take authority away; the rest wait in the process, and one account never has all of a kind's connections if there are two";
    mutations_per_caller_max: usize, "CALLS" [1, 1_000], Value("2"),
        "The same of one caller: a key, or a user acted for; for keys of account `system` the only bound";
    reads_per_account_max: usize, "CALLS" [1, 1_000], Value("2"),
        "Most reads of one account at work in the database at once; the rest wait in the process, and one account never has all connections for reads if there are two";
    reads_per_caller_max: usize, "CALLS" [1, 1_000], Value("2"),
        "The same of one caller: a key, or a user acted for; for keys of account `system` the only bound";
    waiting_calls_max: usize, "CALLS" [0, 1_000_000], Value("8192"),
        "Most calls that wait for a turn at the database, of each kind; more are answered RESOURCE_EXHAUSTED";
    waiting_calls_per_account_max: usize, "CALLS" [0, 1_000_000], Value("512"),
        "The same of one account, but for account `system`";
    waiting_calls_per_caller_max: usize, "CALLS" [0, 1_000_000], Value("256"),
        "The same of one caller: a key, or a user acted for";
    watches_max: usize, "WATCHES" [1, 1_000_000], Value("1000"),
        "Most watches (WatchEvents) open at once; more are answered RESOURCE_EXHAUSTED";
    account_watches_max: usize, "WATCHES" [1, 1_000_000], Value("900"),
        "How many of `watches_max` all accounts may have together; the rest is kept for callers that hold `system.events`";
    watches_per_account_max: usize, "WATCHES" [1, 1_000_000], Value("50"),
        "Most watches of one account, but for callers that hold `system.events`";
    watches_per_caller_max: usize, "WATCHES" [1, 1_000_000], Value("50"),
        "The same of one caller: a key, or a user acted for";
    allow_privileged_database_role: bool, "true|false", Value("false"),
        "Whether to serve as a database role that could change or delete events: a superuser, an owner, or one with such privileges";
    database_timeout_ms: u64, "MS" [1, 600_000], Value("3000"),
        "Time limit for connecting to the database and for each statement";
    peppers: Peppers, "LIST", Required,
        "Secrets that key the stored digests, as a list of `id=file:/path` or `id=env:VARIABLE`, each 64 hex digits; all verify, and the first that every replica has mints";
    token_prefix: TokenPrefix, "PREFIX", Value("lk"),
        "Prefix of newly minted tokens, 2 to 12 of a-z and 0-9";
    cache_keys_max: usize, "KEYS" [1, 100_000_000], Value("1000000"),
        "Most tokens held in the cache, which takes some 250 bytes each as it fills";
    cache_shared_bytes_max: usize, "BYTES" [1_048_576, 1_099_511_627_776], Value("268435456"),
        "Most bytes kept of what cached tokens share (accounts, teams, permission sets and prepared answers), and for a moment half as much again; beyond it, tokens with long lists of teams leave the cache first";
    negative_entries_max: usize, "ENTRIES" [0, 100_000_000], Value("100000"),
        "Most unknown digests remembered as unknown";
    ended_entries_max: usize, "ENTRIES" [0, 100_000_000], Value("100000"),
        "Most tokens remembered that had ended (or were of a key that is disabled, deleted or expired) when they were first read, apart from the cache, so that they never evict good ones";
    misses_in_flight_max: usize, "MISSES" [1, 1_000_000], Value("1024"),
        "Most cache misses waiting for the database at one time; more are answered RESOURCE_EXHAUSTED";
    unknown_loads_per_second_max: u32, "LOADS" [1, 1_000_000], Value("500"),
        "Most tokens a second that are looked up in the database and turn out to be unknown, or to have ended; beyond it, tokens that memory does not know as good are answered RESOURCE_EXHAUSTED";
    unknown_loads_burst_max: usize, "LOADS" [1, 1_000_000], Value("2000"),
        "How many of those may come at once; at least as many as `misses_in_flight_max` may";
    ended_loads_per_second_max: u32, "LOADS" [1, 1_000_000], Value("50"),
        "Look-ups a second of tokens that turn out to have ended that do not count among those: clients that a rotation left behind are no flood";
    lease_ms: u64, "MS" [1_000, 600_000], Value("10000"),
        "How long a replica may answer from its cache without hearing from the database, and so the longest a revocation can wait for a lost replica";
    stale_max_ms: u64, "MS" [0, 3_600_000], Value("0"),
        "How much longer than the lease a replica goes on answering from its cache, each answer marked `stale`, when the database is away; a revocation waits so much longer for a replica that is lost, and until then what was revoked may still be answered VALID there; a caller without a deadline is answered incomplete after the lease and a second, with that replica pending, and has to await the rest (AwaitPropagation)";
    poll_interval_ms: u64, "MS" [10, 600_000], Value("1000"),
        "How often the log is polled when no notification comes; must be less than `lease_ms`";
    api_keys_per_account_max: u64, "KEYS" [1, 10_000_000], Value("5000"),
        "Most keys, not counting deleted ones, that an account may have";
    api_keys_per_team_max: u64, "KEYS" [0, 10_000_000], Value("0"),
        "Most keys, not counting deleted ones, scoped to one team; 0 for no limit";
    deleted_api_keys_per_account_max: u64, "KEYS" [1, 10_000_000], Value("100000"),
        "Most deleted keys that an account may have on record: from there on no key is created until some are erased, `ended_token_retention_days` after their deletion";
    tokens_per_api_key_max: u64, "TOKENS" [3, 1_000_000], Value("10000"),
        "Most tokens of one key on record, ended ones included: from there on it is not rotated until some are forgotten, `ended_token_retention_days` after their end";
    ended_token_retention_days: u64, "DAYS" [1, 36_500], Value("400"),
        "How long an ended token is still told from an unknown one, and a deleted key is kept on record";
    late_events_per_account_hour_max: u32, "EVENTS" [1, 1_000_000], Value("100"),
        "Most events an hour, from each replica, that record presentations of one account's rotated tokens; the rest is counted in a metric";
    late_events_per_hour_max: u32, "EVENTS" [1, 1_000_000], Value("1000"),
        "Most such events an hour from each replica, of all accounts together";
    usage_flush_interval_ms: u64, "MS" [100, 30_000], Value("15000"),
        "How often uses of tokens are written down, and so how far behind `last_used_time` may be";
    list_scan_rows_max: u64, "ROWS" [100, 1_000_000], Value("10000"),
        "Most rows that one page of a list looks at: a page that has come so far ends there, perhaps with nothing in it, and its page token goes on behind";
    chain_events_max: u64, "EVENTS" [100, 100_000], Value("10000"),
        "Most events that one VerifyEventChain call verifies; `next_start_number` goes on behind";
    serving_threads: usize, "THREADS" [1, 1_024], Chosen { how: "one for each processor", choose: values::processors },
        "Threads that serve calls; each connection belongs to one of them, and new ones go to the one that has the fewest";
    request_bytes_max: usize, "BYTES" [1_024, 1_073_741_824], Value("4194304"),
        "Largest request message accepted";
    request_message_timeout_ms: u64, "MS" [100, 600_000], Value("10000"),
        "How long a request message that has begun, or a unary call's that has not, may take to be complete";
    requests_memory_bytes_max: usize, "BYTES" [1_048_576, 1_099_511_627_776], Value("67108864"),
        "Most bytes of request messages that are large or incomplete in memory at one time, of which one account may take a quarter; more are answered RESOURCE_EXHAUSTED";
    open_calls_max: usize, "CALLS" [1, 1_000_000], Value("1000"),
        "Most open calls of each method that needs no caller: health, reflection and RevokeToken; more are answered RESOURCE_EXHAUSTED";
    stream_in_flight_max: usize, "MESSAGES" [1, 1_000_000], Value("256"),
        "Most unanswered messages on one verification stream";
    connection_age_max_s: u64, "SECONDS" [1, 31_536_000], Value("3600"),
        "Age at which a connection is asked to end, so that clients spread over new replicas";
    connection_age_grace_s: u64, "SECONDS" [1, 86_400], Value("30"),
        "Time given to a connection's calls after that before it is cut";
    connection_handshake_ms: u64, "MS" [100, 60_000], Value("5000"),
        "Time given to a new connection until its client has said what HTTP/2 begins with, and to each request's headers from their first byte to their last";
    connection_idle_max_s: u64, "SECONDS" [1, 31_536_000], Value("300"),
        "How long a connection may be without an open call before it is asked to end";
    connections_max: usize, "CONNECTIONS" [1, 1_000_000], Value("10000"),
        "Most connections at one time; fewer if the limit on open files is lower, so that the database and the log always have theirs. When all are taken, one that never made a call makes room for a new one";
    connections_per_peer_max: usize, "CONNECTIONS" [0, 1_000_000], Value("0"),
        "Most connections from one address, or one IPv6 network of 64 bits; 0 for a quarter of all, but at least 128";
    unread_bytes_max: usize, "BYTES" [4_194_304, 1_099_511_627_776], Value("134217728"),
        "Most bytes of large answers (lists, the catalogue) in memory until clients have read them; one peer may have a quarter, and calls that find no room wait for a few seconds before they are refused";
    unread_bytes_per_connection_max: usize, "BYTES" [4_194_304, 1_099_511_627_776], Value("16777216"),
        "The same for one connection";
    unread_answer_max_s: u64, "SECONDS" [1, 86_400], Value("30"),
        "How long a client may leave an answer unread before its connection is cut";
    drain_timeout_s: u64, "SECONDS" [0, 86_400], Value("20"),
        "Time given to running calls when the server stops";
    log_format: LogFormat, "FORMAT",
        Chosen { how: "pretty if standard error is a terminal, else json", choose: LogFormat::for_this_process },
        "How log lines look: pretty or json";
    log_filter: LogFilter, "FILTER", Value("info"),
        "Which events are logged, such as `info,latchkey=debug`";
    log_buffer_bytes_max: usize, "BYTES" [65_536, 1_073_741_824], Value("1048576"),
        "Most bytes of log lines that wait to be written when standard error is not read fast enough; lines beyond it are dropped and counted, so that calls never wait for a log";
    log_repeats_per_second_max: u32, "LINES" [0, 1_000_000], Value("5"),
        "Most warnings and errors a second that one place in the code logs with one message; the others are folded into one line that counts them; 0 folds none";
    log_calls_per_second_max: u32, "LINES" [0, 1_000_000], Value("200"),
        "Most lines a second that tell of calls that ended (verifications and health checks have none at `info`), beside one of each method and one of each method's failures that are the server's fault; the others are counted in one line; 0 leaves none out";
}

/// Variables that start with `LATCHKEY_` and are no settings, with what they are for. `*` stands for any ending.
pub static OTHER_VARIABLES: &[(&str, &str)] = &[
    ("LATCHKEY_CONFIG", "the settings file, as `--config`"),
    ("LATCHKEY_ADDRESS", "the server that client commands call"),
    ("LATCHKEY_TOKEN", "the token that client commands present"),
    ("LATCHKEY_POSTGRES_BIN", "the folder of the PostgreSQL programs that `latchkey dev` starts"),
    ("LATCHKEY_TEST_*", "for the tests"),
    ("LATCHKEY_SIM_*", "for the simulation"),
    ("LATCHKEY_BENCH_*", "for the benchmarks"),
];

/// One setting as it is in force, fit to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The setting's name.
    pub key: &'static str,
    /// Its value, secrets redacted.
    pub value: String,
    /// Where it came from: `default`, `file …`, `environment …` or `flag …`.
    pub source: String,
}

/// How to log: settings that every command has.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings<'a> {
    /// As [`Settings::log_format`].
    pub format: LogFormat,
    /// As [`Settings::log_filter`].
    pub filter: &'a LogFilter,
    /// As [`Settings::log_buffer_bytes_max`].
    pub buffer_bytes_max: usize,
    /// As [`Settings::log_repeats_per_second_max`].
    pub repeats_per_second_max: u32,
    /// As [`Settings::log_calls_per_second_max`].
    pub calls_per_second_max: u32,
}

macro_rules! log_settings {
    ($settings:ident) => {
        LogSettings {
            format: $settings.log_format,
            filter: &$settings.log_filter,
            buffer_bytes_max: $settings.log_buffer_bytes_max,
            repeats_per_second_max: $settings.log_repeats_per_second_max,
            calls_per_second_max: $settings.log_calls_per_second_max,
        }
    };
}

impl Settings {
    /// How to log.
    pub fn log(&self) -> LogSettings<'_> {
        log_settings!(self)
    }

    /// Every setting as it is in force, in the table's order, secrets redacted.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }
}

/// Reads and checks all settings. `environment` is the process's, or a test's own: see [`process_environment`].
///
/// Reads the settings file and the files of peppers.
///
/// # Errors
/// Every problem there is, not only the first; none holds a secret.
pub fn load(flags: &Flags, environment: impl IntoIterator<Item = (String, String)>) -> Result<Settings, Problems> {
    let environment: HashMap<String, String> = environment.into_iter().collect();
    let mut problems = Vec::new();
    let merged = layers::merge(flags, &environment, &mut problems);
    let mut reader = Reader { merged: &merged, environment: &environment, problems, effective: Vec::new() };
    let settings = Settings::read(&mut reader);
    let mut problems = reader.problems;
    if let Some(settings) = &settings {
        check_together(settings, &mut problems);
    }
    match (settings, Problems::of(problems)) {
        (_, Some(problems)) => Err(problems),
        (settings, None) => Ok(settings.expect("a setting that cannot be read leaves a problem")),
    }
}

/// What a command needs that only changes the database: `latchkey migrate`.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// As [`Settings::database_url`].
    pub database_url: DatabaseUrl,
    /// As [`Settings::log_filter`].
    pub log_filter: LogFilter,
    /// As [`Settings::log_format`].
    pub log_format: LogFormat,
    /// As [`Settings::log_buffer_bytes_max`].
    pub log_buffer_bytes_max: usize,
    /// As [`Settings::log_repeats_per_second_max`].
    pub log_repeats_per_second_max: u32,
    /// As [`Settings::log_calls_per_second_max`].
    pub log_calls_per_second_max: u32,
}

impl DatabaseSettings {
    /// How to log.
    pub fn log(&self) -> LogSettings<'_> {
        log_settings!(self)
    }
}

/// As [`load`], for a command that needs the database only: other settings are checked for their names alone.
///
/// # Errors
/// As [`load`].
pub fn load_database(
    flags: &Flags,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<DatabaseSettings, Problems> {
    let environment: HashMap<String, String> = environment.into_iter().collect();
    let mut problems = Vec::new();
    let merged = layers::merge(flags, &environment, &mut problems);
    let mut reader = Reader { merged: &merged, environment: &environment, problems, effective: Vec::new() };
    let database_url = reader.read("database_url");
    let log_filter = reader.read("log_filter");
    let log_format = reader.read("log_format");
    let log_buffer_bytes_max = reader.read("log_buffer_bytes_max");
    let log_repeats_per_second_max = reader.read("log_repeats_per_second_max");
    let log_calls_per_second_max = reader.read("log_calls_per_second_max");
    let settings = (|| {
        Some(DatabaseSettings {
            database_url: database_url?,
            log_filter: log_filter?,
            log_format: log_format?,
            log_buffer_bytes_max: log_buffer_bytes_max?,
            log_repeats_per_second_max: log_repeats_per_second_max?,
            log_calls_per_second_max: log_calls_per_second_max?,
        })
    })();
    match (settings, Problems::of(reader.problems)) {
        (Some(settings), None) => Ok(settings),
        (_, problems) => Err(problems.expect("a setting that cannot be read leaves a problem")),
    }
}

/// The process's environment, less what is not Unicode: no setting's value could be.
pub fn process_environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The settings as a Markdown table, as the README has it.
pub fn markdown() -> String {
    let mut lines = vec!["| setting | default | what it is |".to_owned(), "|---|---|---|".to_owned()];
    lines.extend(SETTINGS.iter().map(|setting| {
        let default = match setting.fallback {
            Fallback::Value(text) => format!("`{text}`"),
            Fallback::Required | Fallback::Chosen { .. } => setting.default_shown().to_owned(),
        };
        format!("| `{}` | {default} | {} |", setting.key, setting.doc_with_range())
    }));
    lines.join("\n")
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// What no setting alone can be judged on.
fn check_together(settings: &Settings, problems: &mut Vec<Problem>) {
    if settings.account_watches_max >= settings.watches_max {
        problems.push(Problem {
            setting: "account_watches_max".to_owned(),
            source: None,
            message: format!(
                "{} is not less than watches_max ({}): none would be kept for callers that hold system.events",
                settings.account_watches_max, settings.watches_max
            ),
        });
    }
    if settings.poll_interval_ms >= settings.lease_ms {
        problems.push(Problem {
            setting: "poll_interval_ms".to_owned(),
            source: None,
            message: format!(
                "{} is not less than lease_ms ({}): a quiet replica would lose its lease between polls",
                settings.poll_interval_ms, settings.lease_ms
            ),
        });
    }
}

/// Turns merged texts into values, collecting problems.
struct Reader<'a> {
    merged: &'a Merged,
    environment: &'a HashMap<String, String>,
    problems: Vec<Problem>,
    effective: Vec<Effective>,
}

impl Reader<'_> {
    fn read<T: Parse>(&mut self, key: &'static str) -> Option<T> {
        let setting = find(key).expect("the table that names the key describes it");
        let Some((text, source)) = self.merged.text(key) else {
            self.report(setting, None, missing(setting));
            return None;
        };
        let parsed = text.map_err(|problem| vec![problem]).and_then(|text| T::parse(&text, setting, self.environment));
        match parsed {
            Ok(value) => {
                self.effective.push(Effective { key, value: value.shown(), source });
                Some(value)
            }
            Err(messages) => {
                for message in messages {
                    self.report(setting, Some(source.clone()), message);
                }
                None
            }
        }
    }

    fn report(&mut self, setting: &Setting, source: Option<String>, message: String) {
        self.problems.push(Problem { setting: setting.key.to_owned(), source, message });
    }
}

fn missing(setting: &Setting) -> String {
    format!(
        "is required: set `{}` in the file, {} in the environment, or --{} {}",
        setting.key,
        setting.variable(),
        setting.flag(),
        setting.value_name
    )
}

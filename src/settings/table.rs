//! The table of all settings, the only place that names one: the struct, the flags, `--help`, `check-config` and the
//! README are made from it.

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::OnceLock;

use super::reader::{Effective, SettingReader};
use super::setting::Fallback::{Chosen, Required, Value};
use super::setting::Setting;
use super::values::{DatabaseUrl, LogFilter, LogFormat, LogSettings, Peppers};
use crate::domain::token::Prefix;

/// Generates from one table: the struct, the descriptors, and the code that reads one into the other.
macro_rules! settings {
    ($(
        $key:ident: $type:ty, $value_name:literal $([$min:literal, $max:expr])?, $fallback:expr, $(secret $secret:literal,)? $doc:literal;
    )*) => {
        /// Holds the checked value of every setting. Names end in their unit.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $(
                #[doc = $doc]
                pub $key: $type,
            )*
            effective: Vec<Effective>,
        }

        /// Lists every setting, in the order of the documentation.
        pub(super) static SETTINGS: &[Setting] = &[$(
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
            /// Reads every setting; `None` if any has a problem.
            pub(super) fn read(reader: &mut SettingReader<'_>) -> Option<Self> {
                // All are read before the first `?`, so that every problem is found.
                $(let $key = reader.read::<$type>(named(stringify!($key)));)*
                Some(Self { $($key: $key?,)* effective: reader.take_effective() })
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
        "IP address and port to serve gRPC on; port 0 picks any free port";
    database_url: DatabaseUrl, "URL", Required, secret true,
        "URL of the PostgreSQL primary, `postgres://user:password@host:5432/name`";
    database_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("8"),
        "Maximum number of database connections for mutations, lists and the log: half for mutations and half for reads, at least one each. With the next five settings and four more connections (lease, barrier, notifications), a server uses at most 24 by default";
    narrowing_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Maximum number of database connections for calls that only take authority away (delete, disable, revoke, suspend, deactivate); they never wait for calls of any other kind";
    caller_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Maximum number of database connections for looking up the users that services act for";
    verify_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("4"),
        "Maximum number of database connections for verifications that miss the cache";
    watch_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Maximum number of database connections for reading on behalf of open watches (WatchEvents); an account uses at most one at a time";
    upkeep_pool_size_max: usize, "CONNECTIONS" [1, 1_000], Value("2"),
        "Maximum number of database connections for housekeeping: recording last use, recording uses of ended tokens, erasing what is past its retention";
    mutations_per_account_max: usize, "CALLS" [1, 1_000], Value("1"),
        "Maximum number of mutations of one account running in the database at once, and as many again that only take authority away; the rest wait in the process. One account never takes all connections of a kind that has at least two";
    mutations_per_caller_max: usize, "CALLS" [1, 1_000], Value("2"),
        "The same per caller (a key, or the user it acts for); for keys of account `system`, the only limit";
    reads_per_account_max: usize, "CALLS" [1, 1_000], Value("2"),
        "Maximum number of reads of one account running in the database at once; the rest wait in the process. One account never takes all read connections if there are at least two";
    reads_per_caller_max: usize, "CALLS" [1, 1_000], Value("2"),
        "The same per caller (a key, or the user it acts for); for keys of account `system`, the only limit";
    waiting_calls_max: usize, "CALLS" [0, 1_000_000], Value("8192"),
        "Maximum number of calls of each kind waiting for their turn at the database; further calls fail with RESOURCE_EXHAUSTED";
    waiting_calls_per_account_max: usize, "CALLS" [0, 1_000_000], Value("512"),
        "The same per account, except for account `system`";
    waiting_calls_per_caller_max: usize, "CALLS" [0, 1_000_000], Value("256"),
        "The same per caller (a key, or the user it acts for)";
    watches_max: usize, "WATCHES" [1, 1_000_000], Value("1000"),
        "Maximum number of open watches (WatchEvents); further ones fail with RESOURCE_EXHAUSTED";
    account_watches_max: usize, "WATCHES" [1, 1_000_000], Value("900"),
        "How many of `watches_max` all accounts together may use; the rest is reserved for callers that hold `system.events`";
    watches_per_account_max: usize, "WATCHES" [1, 1_000_000], Value("50"),
        "Maximum number of open watches per account, except for callers that hold `system.events`";
    watches_per_caller_max: usize, "WATCHES" [1, 1_000_000], Value("50"),
        "The same per caller (a key, or the user it acts for)";
    allow_privileged_database_role: bool, "true|false", Value("false"),
        "Whether to serve with a database role that could change or delete events: a superuser, an owner, or a role with such privileges";
    database_timeout_ms: u64, "MS" [1, 600_000], Value("3000"),
        "Timeout for connecting to the database and for each statement";
    peppers: Peppers, "LIST", Required,
        "Secrets that key the stored digests: a list of `id=file:/path` or `id=env:VARIABLE`, each holding 64 hex digits. All of them verify; new tokens use the first one that every replica has";
    token_prefix: Prefix, "PREFIX", Value("lk"),
        "Prefix of newly minted tokens: 2 to 12 characters of a-z and 0-9";
    cache_keys_max: usize, "KEYS" [1, 100_000_000], Value("1000000"),
        "Maximum number of tokens in the cache, about 250 bytes each, allocated as it fills";
    cache_shared_bytes_max: usize, "BYTES" [1_048_576, 1_099_511_627_776], Value("268435456"),
        "Maximum bytes of data that cached tokens share (accounts, teams, permission sets and prepared answers), briefly exceeded by up to half; beyond it, tokens with long team lists are evicted first";
    negative_entries_max: usize, "ENTRIES" [0, 100_000_000], Value("100000"),
        "Maximum number of digests cached as unknown";
    ended_entries_max: usize, "ENTRIES" [0, 100_000_000], Value("100000"),
        "Maximum number of tokens cached that had already ended (or whose key was disabled, deleted or expired) when first read; kept apart from the cache, so that they never evict good tokens";
    misses_in_flight_max: usize, "MISSES" [1, 1_000_000], Value("1024"),
        "Maximum number of cache misses waiting for the database at once; further ones fail with RESOURCE_EXHAUSTED";
    unknown_loads_per_second_max: u32, "LOADS" [1, 1_000_000], Value("500"),
        "Maximum number of tokens per second that are looked up in the database and turn out to be unknown or ended; beyond it, requests for tokens that are not cached as good fail with RESOURCE_EXHAUSTED";
    unknown_loads_burst_max: usize, "LOADS" [1, 1_000_000], Value("2000"),
        "How many of those may come in one burst; never less than `misses_in_flight_max`";
    ended_loads_per_second_max: u32, "LOADS" [1, 1_000_000], Value("50"),
        "How many lookups per second of tokens that turn out to have ended are exempt from that limit: clients left behind by a rotation are not a flood";
    lease_ms: u64, "MS" [1_000, 600_000], Value("10000"),
        "How long a replica may answer from its cache without hearing from the database, and therefore the longest that a revocation waits for a lost replica";
    stale_max_ms: u64, "MS" [0, 3_600_000], Value("0"),
        "How long after its lease has ended a replica may still answer from its cache while the database is unreachable, marking each answer `stale`. A revocation waits that much longer for a lost replica, which may answer VALID for what was revoked until then. A caller without a deadline gets an incomplete answer one second after the lease has ended, with that replica pending, and waits for the rest with AwaitPropagation";
    poll_interval_ms: u64, "MS" [10, 600_000], Value("1000"),
        "How often the log is polled when no notification arrives; must be less than `lease_ms`";
    api_keys_per_account_max: u64, "KEYS" [1, 10_000_000], Value("5000"),
        "Maximum number of keys per account, not counting deleted ones";
    api_keys_per_team_max: u64, "KEYS" [0, 10_000_000], Value("0"),
        "Maximum number of keys scoped to one team, not counting deleted ones; 0 for no limit";
    deleted_api_keys_per_account_max: u64, "KEYS" [1, 10_000_000], Value("100000"),
        "Maximum number of deleted keys on record per account; at the limit, no key can be created until some are erased, `ended_token_retention_days` after their deletion";
    tokens_per_api_key_max: u64, "TOKENS" [3, 1_000_000], Value("10000"),
        "Maximum number of tokens on record per key, including ended ones; at the limit, the key cannot be rotated until some are erased, `ended_token_retention_days` after their end";
    ended_token_retention_days: u64, "DAYS" [1, 36_500], Value("400"),
        "How long an ended token is distinguished from an unknown one, and how long a deleted key stays on record";
    late_events_per_account_hour_max: u32, "EVENTS" [1, 1_000_000], Value("100"),
        "Maximum number of events per hour and replica that record the use of rotated tokens of one account; the rest are only counted in a metric";
    late_events_per_hour_max: u32, "EVENTS" [1, 1_000_000], Value("1000"),
        "Maximum number of such events per hour and replica across all accounts";
    usage_flush_interval_ms: u64, "MS" [100, 30_000], Value("15000"),
        "How often token usage is written to the database, and therefore how far `last_used_time` may lag behind";
    list_scan_rows_max: u64, "ROWS" [100, 1_000_000], Value("10000"),
        "Maximum number of rows examined for one page of a list; a page that reaches it ends there, possibly empty, and its page token continues after the last row examined";
    chain_events_max: u64, "EVENTS" [100, 100_000], Value("10000"),
        "Maximum number of events verified by one VerifyEventChain call; continue from `next_start_number`";
    serving_threads: usize, "THREADS" [1, 1_024], Chosen { how: "one per processor", choose: processors },
        "Number of threads that serve calls; a connection stays on one of them, and new connections go to the thread with the fewest";
    request_bytes_max: usize, "BYTES" [1_024, 1_073_741_824], Value("4194304"),
        "Largest request message accepted";
    request_message_timeout_ms: u64, "MS" [100, 600_000], Value("10000"),
        "Timeout for a request message to arrive completely once it has begun; in a unary call, also for a message that has not begun";
    requests_memory_bytes_max: usize, "BYTES" [1_048_576, 1_099_511_627_776], Value("67108864"),
        "Maximum bytes of large or incomplete request messages in memory at once, of which one account may use a quarter; further ones fail with RESOURCE_EXHAUSTED";
    open_calls_max: usize, "CALLS" [1, 1_000_000], Value("1000"),
        "Maximum number of open calls of each method that needs no caller (health, reflection, RevokeToken); further ones fail with RESOURCE_EXHAUSTED";
    stream_in_flight_max: usize, "MESSAGES" [1, 1_000_000], Value("256"),
        "Maximum number of unanswered messages on one verification stream";
    connection_age_max_s: u64, "SECONDS" [1, 31_536_000], Value("3600"),
        "Age at which a connection is asked to close, so that clients spread over new replicas";
    connection_age_grace_s: u64, "SECONDS" [1, 86_400], Value("30"),
        "Time that a connection's open calls then get before the connection is cut";
    connection_handshake_ms: u64, "MS" [100, 60_000], Value("5000"),
        "Timeout for a new connection to send the HTTP/2 preface, and for each request's headers from their first byte to their last";
    connection_idle_max_s: u64, "SECONDS" [1, 31_536_000], Value("300"),
        "How long a connection may have no open call before it is asked to close";
    connections_max: usize, "CONNECTIONS" [1, 1_000_000], Value("10000"),
        "Maximum number of open connections; lowered if the limit on open files requires it, so that the database and the log always have theirs. When all are taken, a connection that has never made a call is closed in favour of a new one";
    connections_per_peer_max: usize, "CONNECTIONS" [0, 1_000_000], Value("0"),
        "Maximum number of open connections from one address, or one IPv6 /64 network; 0 for a quarter of all, but at least 128";
    unread_bytes_max: usize, "BYTES" [4_194_304, 1_099_511_627_776], Value("134217728"),
        "Maximum bytes of large answers (lists, the catalogue) held in memory until clients have read them, of which one peer may use a quarter; calls that find no room wait a few seconds before they are refused";
    unread_bytes_per_connection_max: usize, "BYTES" [4_194_304, 1_099_511_627_776], Value("16777216"),
        "The same per connection";
    unread_answer_max_s: u64, "SECONDS" [1, 86_400], Value("30"),
        "How long a client may leave an answer unread before its connection is cut";
    drain_timeout_s: u64, "SECONDS" [0, 86_400], Value("20"),
        "Time that running calls get to finish when the server stops";
    log_format: LogFormat, "FORMAT",
        Chosen { how: "pretty if standard error is a terminal, else json", choose: LogFormat::for_this_process },
        "Format of log lines: pretty or json";
    log_filter: LogFilter, "FILTER", Value("info"),
        "Which events are logged, for example `info,latchkey=debug`";
    log_buffer_bytes_max: usize, "BYTES" [65_536, 1_073_741_824], Value("1048576"),
        "Maximum bytes of log lines waiting to be written when standard error is read too slowly; further lines are dropped and counted, so that calls never wait for the log";
    log_repeats_per_second_max: u32, "LINES" [0, 1_000_000], Value("5"),
        "Maximum number of warnings and errors per second that one place in the code logs with the same message; the rest are folded into one line that counts them; 0 folds none";
    log_calls_per_second_max: u32, "LINES" [0, 1_000_000], Value("200"),
        "Maximum number of log lines per second about completed calls (verifications and health checks have none at `info`), in addition to one line per method and one per method's server-side failures; the rest are counted in one line; 0 for no limit";
}

/// Lists the variables that start with `LATCHKEY_` but are not settings, each with its purpose. `*` stands for any
/// ending.
pub(super) static OTHER_VARIABLES: &[(&str, &str)] = &[
    ("LATCHKEY_CONFIG", "the settings file, as `--config`"),
    ("LATCHKEY_ADDRESS", "the server that client commands call"),
    ("LATCHKEY_TOKEN", "the token that client commands present"),
    ("LATCHKEY_POSTGRES_BIN", "the folder of the PostgreSQL programs that `latchkey dev` starts"),
    ("LATCHKEY_TEST_*", "for the tests"),
    ("LATCHKEY_SIM_*", "for the simulation"),
    ("LATCHKEY_BENCH_*", "for the benchmarks"),
];

/// Finds a setting by its key.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// Returns a setting that is known to be in the table.
///
/// # Panics
/// If there is no such setting.
pub(super) fn named(key: &str) -> &'static Setting {
    find(key).unwrap_or_else(|| panic!("there is no setting {key}"))
}

/// Counts the processors that this process may use, in digits: 1 if the system does not say.
fn processors() -> &'static str {
    static PROCESSORS: OnceLock<String> = OnceLock::new();
    PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZero::get).min(1_024).to_string())
}

// === impl Settings ===

impl Settings {
    /// Returns the settings of the log.
    pub fn log(&self) -> LogSettings {
        LogSettings {
            format: self.log_format,
            filter: self.log_filter.clone(),
            buffer_bytes_max: self.log_buffer_bytes_max,
            repeats_per_second_max: self.log_repeats_per_second_max,
            calls_per_second_max: self.log_calls_per_second_max,
        }
    }

    /// Lists every setting as it is in effect, in the table's order, secrets redacted.
    pub fn effective(&self) -> &[Effective] {
        &self.effective
    }
}

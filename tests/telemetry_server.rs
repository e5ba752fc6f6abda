//! What a real server exports: spans of real RPCs below their callers', metrics of the rules, and no secret in any of it.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/otlp_collector.rs"]
mod otlp_collector;
mod support;

use std::time::Duration;

use futures_util::future::join_all;
use latchkey::proto::{GetIdentityRequest, ListEventsRequest, token_service_client::TokenServiceClient};
use otlp_collector::{OtlpCollector, points, texts};
use support::{
    Caller,
    calls::requests,
    database, ground, logs,
    process::{Process, Signal, eventually, latchkey},
    server::{connect, pepper},
    world::key,
};
use tokio::time::Instant;
use tonic::{Code, Request};

const LIMIT: Duration = Duration::from_secs(20);
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT_ID: &str = "b7ad6b7169203331";

fn traced<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("traceparent", format!("00-{TRACE_ID}-{PARENT_ID}-01").parse().unwrap());
    request
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_exports_its_calls_and_counts_and_no_secret() {
    logs::start();
    let collector = OtlpCollector::start().await;
    let database = database::fresh().await;
    let on = |arguments: &[&str]| {
        let start = latchkey(arguments.iter().copied()).env("LATCHKEY_DATABASE_URL", &database.app_url);
        start.env("LATCHKEY_PEPPERS", "test=env:LATCHKEY_TEST_PEPPER").env("LATCHKEY_TEST_PEPPER", pepper())
    };
    let operator = on(&["bootstrap"]).secret_stdout().run(LIMIT).success();
    let serve = on(&["serve", "--listen-address", "127.0.0.1:0"]);
    let mut process = serve.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).spawn();
    let channel = connect(process.address(LIMIT)).await;
    let caller = Caller { channel, token: operator.clone(), on_behalf_of: None };

    let api_key = key("traced", &["system.verify"]);
    let create = requests::create_key("system", &api_key);
    let minted = caller.keys().create_api_key(traced(create)).await.unwrap().into_inner().token;
    for token in [minted.as_str(), minted.as_str(), "nonsense"] {
        let requirement = requests::requirement("system", "system.verify", &[]);
        let request = requests::verify_token(token, Some(requirement));
        caller.tokens().verify_token(traced(request)).await.unwrap();
    }
    // The totals are copied once a second; the rest leaves when the server stops.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    process.signal(Signal::TERM);
    let ended = process.wait(LIMIT);
    let logged = ended.stderr.clone();
    ended.success();

    let spans = collector.spans();
    for method in ["CreateApiKey", "VerifyToken"] {
        let span =
            spans.iter().find(|span| span.name.ends_with(method)).unwrap_or_else(|| panic!("no span of {method}"));
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE_ID, PARENT_ID));
        assert_eq!(texts(&span.attributes).get("rpc.response.status_code").map(String::as_str), Some("OK"));
    }
    assert_eq!(collector.resource().get("service.name").map(String::as_str), Some("latchkey"));
    let metrics = collector.metrics();
    for name in [
        "latchkey.verifications",
        "latchkey.cache.lookups",
        "latchkey.mutation.duration",
        "latchkey.revision.applied",
        "rpc.server.call.duration",
    ] {
        assert!(metrics.contains_key(name), "no metric {name} among {:?}", metrics.keys());
    }
    let count = |name: &str, label: &str, value: &str| -> u64 {
        let of_value = |(texts, _): &(std::collections::BTreeMap<String, String>, u64)| {
            texts.get(label).is_some_and(|text| text == value)
        };
        points(&metrics[name]).into_iter().find(of_value).map_or(0, |(_, count)| count)
    };
    assert_eq!(count("latchkey.mutation.duration", "latchkey.mutation.name", "create_api_key"), 1);
    assert_eq!(count("latchkey.verifications", "latchkey.outcome", "MALFORMED"), 1);
    let password = database.app_url.split(':').nth(2).and_then(|rest| rest.split('@').next()).unwrap();
    let exported = collector.everything();
    for secret in [operator.as_str(), minted.as_str(), pepper(), password] {
        assert!(!holds(&exported, secret) && !logged.contains(secret), "a secret was exported or logged");
    }
}

/// More lines than a pipe and the smallest buffer take.
const CALLS: usize = 2_000;
const SMALLEST_BUFFER: &str = "65536";

/// A server whose standard error no process reads, at an address that it need not say.
async fn unread(database: &database::Database, collector: &OtlpCollector) -> (Process, Caller) {
    let token = ground::on(&database.app_url, &["bootstrap"]).secret_stdout().run(LIMIT).success();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let start = ground::on(&database.app_url, &["serve", "--listen-address", &free.to_string()]);
    let start = start.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint());
    let process = start.env("LATCHKEY_LOG_BUFFER_BYTES_MAX", SMALLEST_BUFFER).unread_stderr().spawn();
    eventually("it listens", LIMIT, || std::net::TcpStream::connect(free).is_ok());
    (process, Caller { channel: connect(free).await, token, on_behalf_of: None })
}

/// Calls that are logged with a line each, and more than one: the filter is as loud as can be.
async fn call(caller: &Caller, calls: usize) {
    for _ in 0..calls {
        let call = async { caller.tokens().get_identity(GetIdentityRequest {}).await.unwrap() };
        tokio::time::timeout(LIMIT, call).await.expect("a log that no process reads holds no call up");
    }
}

fn left_out(collector: &OtlpCollector, reason: &str) -> u64 {
    let of_reason = |(texts, _): &(std::collections::BTreeMap<String, String>, u64)| {
        texts.get("latchkey.log.reason").is_some_and(|text| text == reason)
    };
    points(&collector.metrics()["latchkey.log.lines.left_out"]).into_iter().find(of_reason).map_or(0, |(_, n)| n)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_log_no_process_reads_keeps_answering_and_stops_in_time() {
    let (collector, database) = (OtlpCollector::start().await, database::fresh().await);
    let (process, caller) = unread(&database, &collector).await;
    call(&caller, CALLS).await;
    process.signal(Signal::TERM);
    process.wait(LIMIT).success();
    assert!(left_out(&collector, "buffer_full") > 0, "what was dropped is counted");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_of_a_log_is_said_when_it_is_read_again() {
    let (collector, database) = (OtlpCollector::start().await, database::fresh().await);
    let (mut process, caller) = unread(&database, &collector).await;
    call(&caller, CALLS).await;
    process.read_stderr();
    let line = process.logged("log lines were dropped: they were not read fast enough", LIMIT);
    assert!(line["left_out"].as_u64().unwrap() > 0 && line["level"] == "WARN", "{line}");
    call(&caller, 1).await;
    process.signal(Signal::TERM);
    let ended = process.wait(LIMIT);
    let lines = ended.stderr.lines().map(serde_json::from_str::<serde_json::Value>);
    assert!(lines.into_iter().all(|line| line.is_ok()), "every line is whole");
    assert!(!ended.stderr.contains(&caller.token) && !ended.stderr.contains(pepper()), "a secret was logged");
    ended.success();
}

/// Refused calls, which need no credentials.
const REFUSED: usize = 20_000;
const AT_ONCE: usize = 50;
const LINES_PER_SECOND_MAX: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_refused_calls_leaves_few_lines_says_how_many_more_and_hides_no_other_call() {
    let (collector, database) = (OtlpCollector::start().await, database::fresh().await);
    let token = ground::on(&database.app_url, &["bootstrap"]).secret_stdout().run(LIMIT).success();
    let start = ground::on(&database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]);
    let start = start.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint()).env("OTEL_TRACES_EXPORTER", "none");
    let start = start.env("LATCHKEY_LOG_FILTER", "info");
    let start = start.env("LATCHKEY_LOG_CALLS_PER_SECOND_MAX", LINES_PER_SECOND_MAX.to_string());
    let mut process = start.spawn();
    let address = process.address(LIMIT);

    let began = Instant::now();
    // Each on a connection of its own: the server closes one on which it has refused very many.
    join_all((0..AT_ONCE).map(|_| async {
        let mut stranger = TokenServiceClient::new(connect(address).await);
        for _ in 0..REFUSED / AT_ONCE {
            let refused = stranger.get_identity(GetIdentityRequest {}).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{refused:?}");
        }
    }))
    .await;
    let caller = Caller { channel: connect(address).await, token, on_behalf_of: None };
    caller.events().list_events(ListEventsRequest::default()).await.unwrap();
    // Of the seconds that it took, the first and the last may have been short ones.
    let seconds = began.elapsed().as_secs() as usize + 2;

    process.signal(Signal::TERM);
    let ended = process.wait(LIMIT);
    let lines: Vec<serde_json::Value> = ended.stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ends = lines.iter().filter(|line| line["message"] == "close");
    let of = |method| ends.clone().filter(|line| line["span"]["rpc.method"] == method).count();
    let logged = of("latchkey.v1.TokenService/GetIdentity");
    assert!((1..=(LINES_PER_SECOND_MAX + 1) * seconds).contains(&logged), "{logged} lines in {seconds} s");
    assert_eq!(of("latchkey.v1.EventService/ListEvents"), 1, "a call of another method has its line");
    let reports = lines.iter().filter(|line| line["message"] == "lines of calls that ended were left out");
    let said: Vec<u64> = reports.map(|line| line["left_out"].as_u64().unwrap()).collect();
    assert!(said.len() <= seconds + 1, "{} reports in {seconds} s", said.len());
    let left_out_total = (REFUSED - logged) as u64;
    assert_eq!((said.iter().sum::<u64>(), left_out(&collector, "calls")), (left_out_total, left_out_total));
    ended.success();
}

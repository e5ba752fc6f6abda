//! Telemetry through the public door: a tonic service in the layer, a collector, and what arrives there.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/otlp_collector.rs"]
mod otlp_collector;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use latchkey::settings::LogFormat;
use latchkey::telemetry::{
    self, CacheLookup, DroppedRecord, GrpcLayer, LeftOut, LogOptions, MethodTable, Metrics, Otlp,
};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, status};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::{Layer, ServiceExt};
use tracing::instrument::WithSubscriber;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use self::otlp_collector::{OtlpCollector, points, texts};

const SECRET: &str = "lk_0123456789abcdefSECRET";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT_ID: &str = "b7ad6b7169203331";
const CHECK: &str = "grpc.health.v1.Health/Check";
const WATCH: &str = "grpc.health.v1.Health/Watch";

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Everything is logged that can be, to memory.
fn log_all(captured: &Captured) -> LogOptions {
    let captured = captured.clone();
    LogOptions::captured(LogFormat::Json, "trace", BoxMakeWriter::new(move || captured.clone()))
}

/// The health service behind the layer.
async fn serve(metrics: &Arc<Metrics>) -> Channel {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let methods = MethodTable::from_descriptor_sets(&[tonic_health::pb::FILE_DESCRIPTOR_SET]).unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder()
        .layer(GrpcLayer::new(Arc::new(methods), Arc::clone(metrics)))
        .add_service(health);
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

/// A request with secrets wherever a header may hold them.
fn request(service: &str) -> Request<HealthCheckRequest> {
    let mut request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let headers = request.metadata_mut();
    headers.insert("authorization", format!("Bearer {SECRET}").parse().unwrap());
    headers.insert("traceparent", format!("00-{TRACE_ID}-{PARENT_ID}-01").parse().unwrap());
    headers.insert("tracestate", format!("vendor={SECRET}").parse().unwrap());
    headers.insert("x-other", SECRET.parse().unwrap());
    request
}

/// A call to a method that no service serves, with a secret in its path.
async fn call_unserved(channel: &Channel) -> Code {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
    let path = format!("/no.Such/{SECRET}").parse().unwrap();
    client.unary(request(""), path, codec).await.unwrap_err().code()
}

async fn until(mut condition: impl FnMut() -> bool) {
    for _ in 0..500 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come about");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn find<'a>(spans: &'a [Span], name: &str, status: &str) -> (&'a Span, BTreeMap<String, String>) {
    let found = spans.iter().map(|span| (span, texts(&span.attributes)));
    let mut found = found.filter(|(span, texts)| span.name == name && texts["rpc.response.status_code"] == status);
    found.next().unwrap_or_else(|| panic!("no span {name} {status} in {spans:#?}"))
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn spans_and_metrics_arrive_and_no_header_with_them() {
    let collector = OtlpCollector::start().await;
    let (captured, metrics) = (Captured::default(), Arc::new(Metrics::new()));
    let guard = telemetry::init(log_all(&captured), &Otlp::to(collector.endpoint()), &metrics).unwrap();
    let channel = serve(&metrics).await;
    let mut client = HealthClient::new(channel.clone());

    client.check(request("")).await.unwrap();
    assert_eq!(client.check(request("no such service")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(call_unserved(&channel).await, Code::Unimplemented);
    let mut watch = client.watch(request("")).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    assert_eq!(metrics.rpcs_unfinished(), 0);
    drop(watch);
    until(|| metrics.rpcs_unfinished() == 1).await;

    tracing::info!("all RPCs are done");
    metrics.verification_total("VALID", 1);
    metrics.cache_lookup_total(CacheLookup::Hit, 1);
    metrics.mutation("create_api_key", true, 2, Duration::from_millis(3));
    metrics.applied_revision(1, 42);
    metrics.dropped_total(DroppedRecord::Usage, 5);
    guard.shutdown().await;

    let spans = collector.spans();
    assert_eq!(spans.len(), 4, "the four RPCs served and nothing of the export itself: {spans:#?}");
    let (check, attributes) = find(&spans, CHECK, "OK");
    assert_eq!((hex(&check.trace_id), hex(&check.parent_span_id)), (TRACE_ID.to_owned(), PARENT_ID.to_owned()));
    assert_eq!(check.kind, SpanKind::Server as i32);
    assert_eq!(attributes["rpc.system.name"], "grpc");
    assert_eq!(attributes["rpc.service"], "grpc.health.v1.Health");
    assert_eq!(attributes["rpc.method"], CHECK);
    let (refused, attributes) = find(&spans, CHECK, "NOT_FOUND");
    assert_ne!(refused.status.clone().unwrap_or_default().code, status::StatusCode::Error as i32);
    assert!(!attributes.contains_key("error.type"));
    let (unserved, attributes) = find(&spans, "_OTHER", "UNIMPLEMENTED");
    assert_eq!(unserved.status.as_ref().unwrap().code, status::StatusCode::Error as i32);
    assert_eq!(attributes["error.type"], "UNIMPLEMENTED");
    find(&spans, WATCH, "CANCELLED");
    assert_eq!(collector.resource()["service.name"], "latchkey");
    assert_eq!(collector.resource()["service.version"], env!("CARGO_PKG_VERSION"));

    assert_metrics(&collector);

    let logs = captured.0.lock().unwrap().clone();
    assert!(!contains(&logs, SECRET), "{}", String::from_utf8_lossy(&logs));
    assert!(!contains(&collector.everything(), SECRET));
    // The search can find what is there.
    assert!(contains(&collector.everything(), CHECK) && contains(&logs, "all RPCs are done"));
}

/// A service whose handler opens a span of ours and one of a library's.
async fn handler_with_spans(_: http::Request<String>) -> Result<http::Response<String>, std::convert::Infallible> {
    let ours = tracing::info_span!(target: "latchkey::store", "transaction");
    let library = ours.in_scope(|| tracing::info_span!(target: "tokio_postgres", "query", sql = SECRET));
    tokio::task::yield_now().await;
    tracing::warn!("half way");
    drop(library);
    drop(ours);
    Ok(http::Response::builder().header("grpc-status", "0").body(String::new()).unwrap())
}

/// Calls that handler once through the layer, exports to `endpoint`, and returns what was logged.
async fn call_once(endpoint: &str, traceparent: Option<&str>) -> String {
    let (captured, metrics) = (Captured::default(), Arc::new(Metrics::new()));
    let mut log = log_all(&captured);
    log.filter = "info".to_owned();
    let (dispatch, guard) = telemetry::build(log, &Otlp::to(endpoint), &metrics).unwrap();
    let methods = Arc::new(MethodTable::new(["a.B/C"]));
    let layered = GrpcLayer::new(methods, metrics).layer(tower::service_fn(handler_with_spans));
    let mut request = http::Request::builder().uri("/a.B/C");
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let call = layered.oneshot(request.body(String::new()).unwrap());
    let response = call.with_subscriber(dispatch).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    guard.shutdown().await;
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn spans_inside_an_rpc_are_its_children_and_libraries_spans_stay_here() {
    let collector = OtlpCollector::start().await;
    let logged = call_once(collector.endpoint(), None).await;
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["transaction", "a.B/C"]);
    assert_eq!(spans[0].parent_span_id, spans[1].span_id);
    assert_eq!(spans[0].trace_id, spans[1].trace_id);
    assert!(spans[1].parent_span_id.is_empty(), "no traceparent, no parent");
    let lines: Vec<serde_json::Value> = logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["message"], "half way");
    assert_eq!(lines[0]["span"]["rpc.method"], "a.B/C");
    assert!(lines[1..].iter().all(|line| line["message"] == "close"), "{logged}");
}

#[tokio::test]
async fn a_call_whose_line_is_left_out_is_traced_all_the_same() {
    const CALLS: usize = 200;
    let collector = OtlpCollector::start().await;
    let (captured, metrics) = (Captured::default(), Arc::new(Metrics::new()));
    let log = LogOptions { filter: "info".to_owned(), calls_per_second_max: 1, ..log_all(&captured) };
    let (dispatch, guard) = telemetry::build(log, &Otlp::to(collector.endpoint()), &metrics).unwrap();
    let layer = GrpcLayer::new(Arc::new(MethodTable::new(["a.B/C"])), metrics.clone());
    let calls = async {
        for _ in 0..CALLS {
            let request = http::Request::builder().uri("/a.B/C");
            let request = request.header("traceparent", format!("00-{TRACE_ID}-{PARENT_ID}-01"));
            let service = layer.layer(tower::service_fn(handler_with_spans));
            service.oneshot(request.body(String::new()).unwrap()).await.unwrap();
        }
    };
    calls.with_subscriber(dispatch).await;
    guard.shutdown().await;
    let spans = collector.spans();
    let calls: Vec<&Span> = spans.iter().filter(|span| span.name == "a.B/C").collect();
    assert_eq!(calls.len(), CALLS);
    for span in &calls {
        assert_eq!((hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()), (TRACE_ID, PARENT_ID));
        assert_eq!(texts(&span.attributes)["rpc.response.status_code"], "OK");
    }
    let inner = spans.iter().filter(|span| span.name == "transaction");
    assert!(inner.clone().all(|span| calls.iter().any(|call| call.span_id == span.parent_span_id)));
    assert_eq!(inner.count(), CALLS);
    let left_out = metrics.log_lines_left_out_count(LeftOut::Calls);
    let logged = captured.0.lock().unwrap().clone();
    let lines = String::from_utf8(logged).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ends = lines.filter(|line| line["message"] == "close" && line["span"]["rpc.method"] == "a.B/C").count();
    assert!(ends >= 2 && left_out > 0 && ends as u64 + left_out == CALLS as u64, "{ends} lines, {left_out} left out");
}

#[tokio::test]
async fn a_caller_who_does_not_sample_is_heeded() {
    let collector = OtlpCollector::start().await;
    call_once(collector.endpoint(), Some(&format!("00-{TRACE_ID}-{PARENT_ID}-00"))).await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn a_traceparent_that_is_none_begins_a_new_trace() {
    let collector = OtlpCollector::start().await;
    call_once(collector.endpoint(), Some(SECRET)).await;
    assert_eq!(collector.spans().len(), 2);
    assert!(!contains(&collector.everything(), SECRET));
}

#[tokio::test]
async fn a_collector_that_is_gone_changes_nothing() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let call = call_once(&endpoint, None);
    tokio::time::timeout(2 * telemetry::SHUTDOWN_TIMEOUT, call).await.expect("served, and stopped in time");
}

fn assert_metrics(collector: &OtlpCollector) {
    let metrics = collector.metrics();
    let value = |name: &str, label: &str, wanted: &str| {
        let found = points(metrics.get(name).unwrap_or_else(|| panic!("no metric {name}")));
        let mut found =
            found.into_iter().filter(|(texts, _)| texts.get(label).map(String::as_str).unwrap_or("") == wanted);
        found.next().unwrap_or_else(|| panic!("{name} has no {label}={wanted}")).1
    };
    assert_eq!(value("latchkey.verifications", "latchkey.outcome", "VALID"), 1);
    assert_eq!(value("latchkey.verifications", "latchkey.outcome", "ROTATED"), 0);
    assert_eq!(value("latchkey.cache.lookups", "latchkey.cache.result", "hit"), 1);
    assert_eq!(value("latchkey.mutation.duration", "latchkey.mutation.name", "create_api_key"), 1);
    assert_eq!(value("latchkey.mutation.retries", "", ""), 2);
    assert_eq!(value("latchkey.revision.applied", "", ""), 42);
    assert_eq!(value("latchkey.records.dropped", "latchkey.record.kind", "usage"), 5);
    assert_eq!(value("latchkey.rpc.unfinished", "rpc.method", WATCH), 1);
    assert_eq!(value("rpc.server.call.duration", "rpc.response.status_code", "NOT_FOUND"), 1);
    assert_eq!(value("rpc.server.call.duration", "rpc.method", "_OTHER"), 1);
}

//! An OTLP collector inside the test, which keeps what it is sent.
//!
//! Include it with `#[path = "support/otlp_collector.rs"] mod otlp_collector;`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A running collector. It stops when dropped.
pub struct OtlpCollector {
    endpoint: String,
    received: Received,
    server: JoinHandle<()>,
}

#[derive(Clone, Default)]
struct Received {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

impl OtlpCollector {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let received = Received::default();
        let router = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(received.clone()))
            .add_service(MetricsServiceServer::new(received.clone()));
        let serving = router.serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { endpoint, received, server }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` would be.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        let requests = self.received.traces.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The attributes of the resource that the spans belong to.
    pub fn resource(&self) -> BTreeMap<String, String> {
        let requests = self.received.traces.lock().unwrap();
        let resource = requests.iter().flat_map(|request| &request.resource_spans).next();
        resource
            .and_then(|resource| resource.resource.as_ref())
            .map(|found| texts(&found.attributes))
            .unwrap_or_default()
    }

    /// The latest export of each metric, by name.
    pub fn metrics(&self) -> BTreeMap<String, Metric> {
        let requests = self.received.metrics.lock().unwrap();
        let resources = requests.iter().flat_map(|request| &request.resource_metrics);
        let metrics = resources.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
        metrics.map(|metric| (metric.name.clone(), metric.clone())).collect()
    }

    /// Everything received, encoded: for assertions about what must appear nowhere.
    pub fn everything(&self) -> Vec<u8> {
        let traces = self.received.traces.lock().unwrap();
        let metrics = self.received.metrics.lock().unwrap();
        let traces = traces.iter().map(Message::encode_to_vec);
        traces.chain(metrics.iter().map(Message::encode_to_vec)).flatten().collect()
    }
}

impl Drop for OtlpCollector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Attributes as texts.
pub fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|pair| (pair.key.clone(), text(pair.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => format!("{other:?}"),
    }
}

/// The points of a sum, gauge or histogram: attributes, and the value or the number of measurements.
pub fn points(metric: &Metric) -> Vec<(BTreeMap<String, String>, u64)> {
    let number = |points: &[opentelemetry_proto::tonic::metrics::v1::NumberDataPoint]| {
        let value = |value: &Option<number_data_point::Value>| match value {
            Some(number_data_point::Value::AsInt(value)) => u64::try_from(*value).unwrap(),
            other => panic!("not a count: {other:?}"),
        };
        points.iter().map(|point| (texts(&point.attributes), value(&point.value))).collect()
    };
    match metric.data.as_ref().unwrap() {
        metric::Data::Sum(sum) => number(&sum.data_points),
        metric::Data::Gauge(gauge) => number(&gauge.data_points),
        metric::Data::Histogram(histogram) => {
            histogram.data_points.iter().map(|point| (texts(&point.attributes), point.count)).collect()
        }
        other => panic!("not made here: {other:?}"),
    }
}

#[tonic::async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Received {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

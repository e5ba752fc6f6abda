//! Latency at a fixed rate: requests are sent when they are due, whatever became of those before, and each one's
//! latency counts from when it was due. A server that stands still for a moment so pays for all who wait.

use std::time::{Duration, Instant};

use latchkey::proto::{VerifyTokenRequest, VerifyTokenResponse};
use tokio::runtime::Handle;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    metadata::{Ascii, MetadataValue},
    transport::Channel,
};
use tonic_prost::ProstCodec;

/// One server, over some connections.
pub struct Client {
    pub channels: Vec<Channel>,
    pub path: &'static str,
    pub authorization: MetadataValue<Ascii>,
    pub question: VerifyTokenRequest,
}

impl Client {
    /// Latencies of as many requests as the rate has in a span.
    pub async fn latencies(&self, rate: f64, span: Duration) -> Vec<Duration> {
        let count = (rate * span.as_secs_f64()) as u32;
        let sending: Vec<_> = tokio::task::block_in_place(|| {
            let started = Instant::now();
            (0..count)
                .map(|number| {
                    let due = started + Duration::from_secs_f64(f64::from(number) / rate);
                    // The runtime's timer knows only milliseconds.
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    Handle::current().spawn(self.answered(number, due))
                })
                .collect()
        });
        let mut latencies = Vec::with_capacity(sending.len());
        for sent in sending {
            latencies.push(sent.await.unwrap());
        }
        latencies
    }

    /// How long after it was due the answer was there.
    fn answered(&self, number: u32, due: Instant) -> impl Future<Output = Duration> + Send + use<> {
        let channel = self.channels[number as usize % self.channels.len()].clone();
        let mut request = Request::new(self.question.clone());
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let path = PathAndQuery::from_static(self.path);
        async move {
            let mut client = Grpc::new(channel);
            client.ready().await.unwrap();
            // An empty message is an empty answer.
            let codec = ProstCodec::<VerifyTokenRequest, VerifyTokenResponse>::default();
            client.unary(request, path, codec).await.unwrap();
            due.elapsed()
        }
    }
}

/// Prints their distribution.
pub fn print(name: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let [p50, p90, p99, p999] = [500, 900, 990, 999].map(|per_mille| {
        let place = (latencies.len() * per_mille).div_ceil(1_000).max(1) - 1;
        latencies[place].as_secs_f64() * 1_000.0
    });
    println!("{name:<34} p50 {p50:>6.2}  p90 {p90:>6.2}  p99 {p99:>6.2}  p99.9 {p999:>6.2} ms");
}

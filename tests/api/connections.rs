//! How long a connection lives, and that its end is not its callers'.

mod authority;
mod descriptors;
mod drain;
mod limits;
mod resets;
mod unread;

use std::time::Duration;

use latchkey::settings::Flags;
use tokio::time::{Instant, sleep, timeout};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::support::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_cut_when_its_grace_is_over_and_its_callers_come_back() {
    let limits = |flags: Flags| {
        flags.with("connection_age_max_s", "2").with("connection_age_grace_s", "1").with("serving_threads", "1")
    };
    let server = Server::start_with(limits).await;
    let mut health = HealthClient::new(server.channel.clone());
    let opened = Instant::now();
    let mut watch = health.watch(HealthCheckRequest::default()).await.expect("open to all").into_inner();
    let cut = async { while let Ok(Some(_)) = watch.message().await {} };
    timeout(Duration::from_secs(20), cut).await.expect("a watch never ends by itself, but its connection does");
    let lived = opened.elapsed();
    assert!(lived < Duration::from_secs(10), "{lived:?}");
    // The first may still have been on its way to the old one.
    let mut tries = 0;
    while health.check(HealthCheckRequest::default()).await.is_err() {
        tries += 1;
        assert!(tries < 10, "no server answers");
        sleep(Duration::from_millis(100)).await;
    }
}

//! A drain waits for calls, and for nothing else.

use std::time::Duration;

use latchkey::proto::GetIdentityRequest;
use tokio::time::Instant;

use crate::support::{
    Server,
    raw::{End, PREFACE, Raw, SETTINGS, frame, message},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_a_call_do_not_delay_the_end() {
    let server = Server::start_with(|flags| flags.with("drain_timeout_s", "60")).await;
    let address = server.running.address();
    let mut held = vec![];
    for number in 0..100 {
        let mut raw = Raw::silent(address).await;
        match number % 4 {
            0 => {}
            1 => raw.send(b"PRI * HT").await,
            // Its client answers neither PING nor GOAWAY.
            2 => raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await,
            _ => {
                raw.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
                let path = "/latchkey.v1.TokenService/GetIdentity";
                let (id, call) = raw.call(path, &server.operator.token, &message(&GetIdentityRequest {}));
                raw.send(&call).await;
                assert!(matches!(raw.end(id).await, End::Message(_)));
            }
        }
        held.push(raw);
    }
    let began = Instant::now();
    server.running.stop().await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    for raw in &mut held {
        raw.closed().await;
    }
}

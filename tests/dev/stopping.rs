//! However and whenever `latchkey dev` is stopped: in bounded time, and nothing is left running.

use std::time::Duration;

use latchkey::proto::{StreamVerifyTokensRequest, VerifyTokenRequest};
use tokio_stream::StreamExt;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{
    Dev, START_LIMIT, STOP_LIMIT, dev, eventually_nothing_left,
    support::{
        process::{Signal, processes_naming, scratch},
        server::connect,
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_at_any_moment_of_its_start_ends_it_cleanly() {
    let scratch = scratch();
    for (delay_ms, signal) in [
        (0, Signal::TERM),
        (50, Signal::INT),
        (150, Signal::TERM),
        (300, Signal::INT),
        (600, Signal::TERM),
        (900, Signal::INT),
        (1_200, Signal::TERM),
        (1_600, Signal::INT),
    ] {
        // Each a first start, with its initdb.
        let data_dir = scratch.path().join(format!("after-{delay_ms}"));
        let process = dev(&data_dir, 0).spawn();
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        process.signal(signal);
        let ended = process.wait(STOP_LIMIT);
        // Before it hears signals, one ends it as it ends any program.
        let heard = ended.status.success() || delay_ms < 50;
        assert!(heard, "after {delay_ms} ms: {}\n{}", ended.status, ended.stderr);
        let left = processes_naming(&data_dir);
        assert!(left.is_empty(), "after {delay_ms} ms: {left:#?}");
        if delay_ms == 300 {
            let dev = Dev::start(&data_dir).await;
            dev.process.signal(Signal::TERM);
            dev.assert_stops(&data_dir);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_streams_and_idle_connections_do_not_keep_it_running() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let dev = Dev::start(&data_dir).await;
    let _idle = connect(dev.address).await;
    let _silent = tokio::net::TcpStream::connect(dev.address).await.expect("it accepts");
    let watching = HealthClient::new(dev.operator.channel.clone()).watch(HealthCheckRequest::default()).await;
    let mut watching = watching.expect("a watch").into_inner();
    assert_eq!(watching.next().await.expect("open").expect("a status").status(), ServingStatus::Serving);
    // A stream that its client never ends.
    let (questions, receiver) = tokio::sync::mpsc::channel(1);
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    questions.send(StreamVerifyTokensRequest { correlation_id: 7, ..Default::default() }).await.expect("open");
    let answers = dev.operator.tokens().stream_verify_tokens(receiver).await.expect("a stream");
    let mut answers = answers.into_inner();
    assert_eq!(answers.next().await.expect("open").expect("an answer").correlation_id, 7);
    // Calls that keep coming.
    let mut tokens = dev.operator.tokens();
    let calls = tokio::spawn(async move {
        while tokens.verify_token(VerifyTokenRequest { token: "none".into(), ..Default::default() }).await.is_ok() {}
    });

    dev.process.signal(Signal::INT);
    let last = watching.next().await.expect("told before the end").expect("a status");
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert!(watching.next().await.is_none_or(|ended| ended.is_err()), "a watch ends with the server");
    dev.assert_stops(&data_dir);
    calls.await.expect("no panic");
    assert!(answers.next().await.is_none_or(|ended| ended.is_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_leaves_nothing_running_and_the_next_start_works() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let mut first = Dev::start(&data_dir).await;
    let first_token = first.operator.token.clone();
    first.process.kill();
    eventually_nothing_left(&data_dir);
    // Killed while it starts, too: whatever it had minted by then is not forgotten.
    for delay_ms in [200, 500, 800] {
        let mut killed = dev(&data_dir, 0).spawn();
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        killed.kill();
    }
    let last = Dev::start(&data_dir).await;
    let request = VerifyTokenRequest { token: first_token, ..Default::default() };
    let answer = last.operator.tokens().verify_token(request).await.expect("an answer").into_inner();
    assert_eq!(answer.verification.expect("one").outcome(), latchkey::proto::VerificationOutcome::Deleted);
    let request =
        latchkey::proto::ListApiKeysRequest { account_id: "system".into(), page_size: 1_000, ..Default::default() };
    let keys = last.operator.keys().list_api_keys(request).await.expect("a list").into_inner().api_keys;
    assert!(keys.len() <= 2, "live keys of earlier runs were not deleted: {keys:#?}");
    // No call waited for the leases of the killed servers, which are known to be gone.
    assert!(!last.process.stderr().contains("stopped renewing"), "{}", last.process.stderr());
    last.process.signal(Signal::TERM);
    last.assert_stops(&data_dir);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_exits_by_itself_is_reported_and_ends_it() {
    let scratch = scratch();
    let data_dir = scratch.path().join("data");
    let dev = Dev::start(&data_dir).await;
    let pid_file = std::fs::read_to_string(data_dir.join("postgres/data/postmaster.pid")).expect("it runs");
    let pid = pid_file.lines().next().and_then(|line| line.parse().ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a process id"), Signal::KILL).expect("our PostgreSQL");
    let stderr = dev.process.wait(START_LIMIT).failure();
    assert!(stderr.contains("PostgreSQL exited") && stderr.contains(data_dir.to_str().expect("Unicode")), "{stderr}");
    eventually_nothing_left(&data_dir);
}

//! StreamVerifyTokens: many messages in flight, each with an answer of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use latchkey::proto::{
    ApiKey, ErrorReason, Revision, StreamVerifyTokensRequest, StreamVerifyTokensResponse, TokenCheck,
    VerificationOutcome as Outcome, api_key::Expiry,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::support::{Caller, Server, World, calls::*, world::*};

/// A stream that is open: what is sent, and what comes back.
struct Open {
    send: mpsc::Sender<StreamVerifyTokensRequest>,
    answers: Streaming<StreamVerifyTokensResponse>,
}

impl Open {
    async fn by(caller: &Caller) -> Result<Self, Status> {
        let (send, messages) = mpsc::channel(1_000);
        let answers = caller.tokens().stream_verify_tokens(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { send, answers })
    }

    async fn ask(&self, message: StreamVerifyTokensRequest) {
        self.send.send(message).await.expect("the stream is open");
    }

    /// The next answer, an end with its reason, or `None` after a clean end; within five seconds.
    async fn next(&mut self) -> Result<Option<StreamVerifyTokensResponse>, Status> {
        tokio::time::timeout(Duration::from_secs(5), self.answers.message()).await.expect("not within five seconds")
    }

    /// Asks about one token and takes the answer.
    async fn outcome(&mut self, token: &str) -> Outcome {
        self.ask(about(0, token)).await;
        self.next().await.expect("open").expect("an answer").results[0].outcome()
    }
}

fn about(correlation_id: u64, token: &str) -> StreamVerifyTokensRequest {
    let checks = vec![TokenCheck { token: token.into(), requirement: None }];
    StreamVerifyTokensRequest { correlation_id, checks, min_revision: None }
}

/// A message that waits for a revision which does not come: a second.
fn slow(correlation_id: u64, token: &str) -> StreamVerifyTokensRequest {
    let future = Revision { epoch: 1, number: 1_000_000 };
    StreamVerifyTokensRequest { min_revision: Some(future), ..about(correlation_id, token) }
}

async fn token(world: &World) -> String {
    create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap().token
}

/// Another key that holds `system.verify`, to take it away.
async fn verifier(world: &World, expiry: Option<Expiry>) -> (String, Caller) {
    let content = ApiKey { expiry, ..key("verifier", &["system.verify"]) };
    let minted = create(&world.server.operator, "system", &content).await.unwrap();
    (minted.api_key.unwrap().key_id, world.server.caller(&minted.token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_has_an_answer_of_its_own_with_its_correlation_id() {
    let world = World::start().await;
    let good = token(&world).await;
    let mut stream = Open::by(&world.verifier).await.unwrap();
    for id in [7, u64::MAX, 0, 7] {
        let mut message = about(id, &good);
        message.checks.push(TokenCheck { token: "nonsense".into(), requirement: None });
        stream.ask(message).await;
    }
    let mut ids = Vec::new();
    for _ in 0..4 {
        let answer = stream.next().await.unwrap().unwrap();
        let outcomes: Vec<_> = answer.results.iter().map(|result| result.outcome()).collect();
        assert_eq!((outcomes.as_slice(), answer.error), (&[Outcome::Valid, Outcome::Malformed][..], None));
        ids.push(answer.correlation_id);
    }
    ids.sort_unstable();
    assert_eq!(ids, [0, 7, 7, u64::MAX]);
    // Half-closed by the client: all is answered, then it ends.
    stream.ask(about(9, &good)).await;
    let Open { send, mut answers } = stream;
    drop(send);
    assert_eq!(answers.message().await.unwrap().unwrap().correlation_id, 9);
    assert!(answers.message().await.expect("a clean end").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_message_is_an_error_in_its_own_answer_and_the_stream_goes_on() {
    let world = World::start().await;
    let good = token(&world).await;
    let mut stream = Open::by(&world.verifier).await.unwrap();
    let with = |requirement| {
        let mut message = about(1, &good);
        message.checks.push(TokenCheck { token: good.clone(), requirement: Some(requirement) });
        message
    };
    let many = vec![TokenCheck { token: good.clone(), requirement: None }; 1_001];
    let bad = [
        (with(requirement(ACME, "no.such", &[])), "checks[1].requirement.permission"),
        (with(requirement("", "incidents.view", &[])), "checks[1].requirement.account_id"),
        (StreamVerifyTokensRequest { checks: vec![], ..about(1, &good) }, "checks"),
        (StreamVerifyTokensRequest { checks: many, ..about(1, &good) }, "checks"),
        (
            StreamVerifyTokensRequest { min_revision: Some(Revision { epoch: -1, number: 0 }), ..about(1, &good) },
            "min_revision",
        ),
        (
            StreamVerifyTokensRequest { min_revision: Some(Revision { epoch: 0, number: 42 }), ..about(1, &good) },
            "min_revision",
        ),
    ];
    for (message, field) in bad {
        stream.ask(message).await;
        let answer = stream.next().await.unwrap().unwrap();
        let error = answer.error.clone().expect("an error");
        assert_eq!((answer.correlation_id, answer.results.len()), (1, 0));
        assert_eq!((error.code, error.reason()), (Code::InvalidArgument.into(), ErrorReason::InvalidField));
        assert!(error.field.starts_with(field), "{error:?}");
        assert!(!error.message.contains(&good[5..]));
        assert_eq!(stream.outcome(&good).await, Outcome::Valid, "the stream goes on");
    }
    stream.ask(slow(2, &good)).await;
    let error = stream.next().await.unwrap().unwrap().error.expect("an error");
    assert_eq!((error.code, error.reason()), (Code::Unavailable.into(), ErrorReason::RevisionNotReached));
    assert_eq!(stream.outcome(&good).await, Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_are_in_flight_and_a_slow_one_holds_up_no_other() {
    let world = World::start().await;
    let good = token(&world).await;
    let mut stream = Open::by(&world.verifier).await.unwrap();
    stream.ask(slow(0, &good)).await;
    let ids: BTreeSet<_> = (1..=600).collect();
    for id in &ids {
        stream.ask(about(*id, &good)).await;
    }
    let mut answered = BTreeSet::new();
    while answered.len() < ids.len() {
        let answer = stream.next().await.unwrap().unwrap();
        assert!(answer.error.is_none(), "the slow one comes last: {answer:?}");
        assert!(answered.insert(answer.correlation_id), "answered twice");
    }
    assert_eq!(answered, ids);
    let last = stream.next().await.unwrap().unwrap();
    assert!(last.correlation_id == 0 && last.error.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beyond_the_bound_in_flight_no_more_is_read_and_nothing_is_lost() {
    let world = World::on(Server::start_with(|flags| flags.with("stream_in_flight_max", "2")).await).await;
    let good = token(&world).await;
    let mut stream = Open::by(&world.verifier).await.unwrap();
    for id in 0..100 {
        stream.ask(if id < 2 { slow(id, &good) } else { about(id, &good) }).await;
    }
    let mut failed = BTreeMap::new();
    for n in 0..100 {
        let answer = stream.next().await.unwrap().unwrap();
        assert!(n > 0 || answer.error.is_some(), "the third was read while two were unanswered");
        failed.insert(answer.correlation_id, answer.error.is_some());
    }
    assert_eq!(failed.len(), 100);
    assert!(failed.iter().all(|(id, failed)| *failed == (*id < 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_ends_when_its_callers_authority_does_also_when_idle() {
    let world = World::start().await;
    let operator = &world.server.operator;
    let good = token(&world).await;
    let edit = |id: &str| ApiKey { key_id: id.into(), ..key("k", &["system.events"]) };
    for asking in [false, true] {
        for how in ["disabled", "deleted", "edited", "rotated", "revoked"] {
            let (id, caller) = verifier(&world, None).await;
            let mut stream = Open::by(&caller).await.unwrap();
            assert_eq!(stream.outcome(&good).await, Outcome::Valid);
            match how {
                "disabled" => drop(disable(operator, "system", &id).await.unwrap()),
                "deleted" => drop(delete(operator, "system", &id).await.unwrap()),
                "edited" => drop(update(operator, "system", edit(&id), &["account_permissions"]).await.unwrap()),
                "rotated" => drop(rotate(operator, "system", &id, Some(seconds(0))).await.unwrap()),
                _ => drop(revoke(&caller).await.unwrap()),
            }
            if asking {
                // The send may fail: the stream may have ended already.
                let _ = stream.send.send(about(1, &good)).await;
            }
            let status = stream.next().await.map(|answer| answer.map(|_| ())).expect_err(how);
            let expected = if how == "edited" {
                (Code::PermissionDenied, "PERMISSION_MISSING")
            } else {
                (Code::Unauthenticated, "BAD_CREDENTIALS")
            };
            assert_refused(Err::<(), _>(status), expected.0, expected.1, "");
            Open::by(&caller).await.map(|_| ()).expect_err("nor is another opened");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_ends_when_its_caller_expires() {
    let world = World::start().await;
    let good = token(&world).await;
    let (_, caller) = verifier(&world, Some(Expiry::Ttl(millis(700)))).await;
    let (mut idle, mut asking) = (Open::by(&caller).await.unwrap(), Open::by(&caller).await.unwrap());
    assert_eq!(asking.outcome(&good).await, Outcome::Valid);
    tokio::time::sleep(Duration::from_millis(750)).await;
    // The send may fail: the stream may have ended already.
    let _ = asking.send.send(about(1, &good)).await;
    for stream in [&mut idle, &mut asking] {
        let status = stream.next().await.map(|_| ()).expect_err("expired");
        assert_refused(Err::<(), _>(status), Code::Unauthenticated, "BAD_CREDENTIALS", "EXPIRED");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_stream_outlives_what_does_not_end_its_callers_authority() {
    let world = World::start().await;
    let operator = &world.server.operator;
    let good = token(&world).await;
    let (id, caller) = verifier(&world, None).await;
    let mut stream = Open::by(&caller).await.unwrap();
    assert_eq!(stream.outcome(&good).await, Outcome::Valid);
    update(operator, "system", ApiKey { key_id: id.clone(), ..key("renamed", &[]) }, &["name"]).await.unwrap();
    rotate(operator, "system", &id, None).await.expect("with grace");
    disable(
        &world.user("owner"),
        ACME,
        &create(&world.user("owner"), ACME, &key("k", &[])).await.unwrap().api_key.unwrap().key_id,
    )
    .await
    .unwrap();
    change_permission(&world, "heartbeats.ping", |permission| permission.retired = true).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(stream.outcome(&good).await, Outcome::Valid);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_verify_opens_no_stream() {
    let world = World::start().await;
    let refused = Open::by(&world.auditor).await.map(|_| ());
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.verify");
    let refused = Open::by(&world.server.caller("nonsense")).await.map(|_| ());
    assert_refused(refused, Code::Unauthenticated, "BAD_CREDENTIALS", "MALFORMED");
    let refused = Open::by(&world.verifier.for_user(ACME, "owner")).await.map(|_| ());
    assert_refused(refused, Code::InvalidArgument, "INVALID_METADATA", "latchkey-on-behalf-of");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_message_sent_after_a_mutations_answer_sees_it() {
    let world = World::start().await;
    let owner = world.user("owner");
    let minted = create(&owner, ACME, &key("k", &["incidents.view"])).await.unwrap();
    let id = minted.api_key.unwrap().key_id;
    let mut stream = Open::by(&world.verifier).await.unwrap();
    for round in 0..20 {
        assert_eq!(stream.outcome(&minted.token).await, Outcome::Valid, "{round}");
        disable(&owner, ACME, &id).await.unwrap();
        assert_eq!(stream.outcome(&minted.token).await, Outcome::Disabled, "{round}");
        enable(&owner, ACME, &id).await.unwrap();
    }
    delete(&owner, ACME, &id).await.unwrap();
    assert_eq!(stream.outcome(&minted.token).await, Outcome::Deleted);
}

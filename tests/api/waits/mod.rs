//! V1: which calls wait for the other replicas, how long, and what they then say.

mod deadlines;
mod every_call;
mod everywhere;
mod lost;

use std::time::Duration;

use latchkey::proto::{DeleteApiKeyRequest, DisableApiKeyRequest, Propagation};
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::support::{
    Caller, World, sql,
    world::{ACME, create, key},
};

/// Longer than any test waits.
const FOR_EVER_MS: u32 = 600_000;

/// What a call answered, and when.
#[derive(Debug)]
struct Done {
    propagation: Propagation,
    elapsed: Duration,
}

/// How a call is made.
#[derive(Clone, Copy, Default)]
struct How {
    skip: bool,
    timeout: Option<Duration>,
}

impl How {
    const fn within(millis: u64) -> Self {
        Self { skip: false, timeout: Some(Duration::from_millis(millis)) }
    }

    fn request<T>(self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }
}

/// Makes a call whose response tells its propagation.
macro_rules! timed {
    ($client:expr, $method:ident, $how:expr, $message:expr) => {{
        let request = $how.request($message);
        let started = Instant::now();
        let response = $client.$method(request).await.expect("answered in time").into_inner();
        Done { propagation: response.propagation.expect("a propagation"), elapsed: started.elapsed() }
    }};
}
use timed;

/// A replica that was killed: its row stays, and nothing renews it.
async fn add_dead_replica(world: &World, lease_ms: u32, stale_max_ms: u32) {
    let insert = format!(
        "INSERT INTO replicas (incarnation, lease_ms, stale_max_ms, pepper_ids, name) \
         VALUES (gen_random_uuid(), {lease_ms}, {stale_max_ms}, ARRAY['test'], 'dead')"
    );
    sql::run(&world.server.database, &insert).await;
}

async fn dead_replicas(world: &World) -> usize {
    sql::lines(&world.server.database, "SELECT name AS line FROM replicas WHERE name = 'dead'").await.len()
}

/// A key of `acme` that holds nothing; its id.
async fn any_key(world: &World) -> String {
    let minted = create(&world.user("owner"), ACME, &key("k", &[])).await.expect("minted");
    minted.api_key.expect("a key").key_id
}

async fn disable(caller: &Caller, key_id: &str, how: How) -> Result<Done, Status> {
    let message = DisableApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.into(),
        skip_propagation_wait: how.skip,
        ..Default::default()
    };
    let started = Instant::now();
    let response = caller.keys().disable_api_key(how.request(message)).await?.into_inner();
    Ok(Done { propagation: response.propagation.expect("a propagation"), elapsed: started.elapsed() })
}

async fn delete(caller: &Caller, key_id: &str, how: How) -> Result<Done, Status> {
    let message = DeleteApiKeyRequest {
        account_id: ACME.into(),
        key_id: key_id.into(),
        skip_propagation_wait: how.skip,
        ..Default::default()
    };
    let started = Instant::now();
    let response = caller.keys().delete_api_key(how.request(message)).await?.into_inner();
    Ok(Done { propagation: response.propagation.expect("a propagation"), elapsed: started.elapsed() })
}

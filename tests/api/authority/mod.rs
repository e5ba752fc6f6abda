//! M1-M9: who may do what to a key, through every call that changes one.

mod confinement;
mod dormant;
mod managing;
mod order;
mod races;
mod selves;

use latchkey::proto::{ApiKey, TeamScope};
use tonic::Status;

use crate::{
    calls::*,
    support::{Caller, World, world::*},
};

/// Every call that changes a key, in an order in which all of them can succeed.
async fn every_change(caller: &Caller, key_id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    vec![
        ("update", rename(caller, key_id).await.map(drop)),
        ("rotate", rotate(caller, key_id).await.map(drop)),
        ("disable", disable(caller, key_id).await.map(drop)),
        ("enable", enable(caller, key_id).await.map(drop)),
        ("delete", delete(caller, key_id).await.map(drop)),
    ]
}

async fn all_succeed(caller: &Caller, key_id: &str) {
    for (call, result) in every_change(caller, key_id).await {
        result.unwrap_or_else(|status| panic!("{call}: {status:?}"));
    }
}

/// A key of `acme` that the owner made.
async fn owned(world: &World, key: &ApiKey) -> Minted {
    mint(&world.user("owner"), key).await.expect("the owner holds everything")
}

/// A key of `acme` as a caller.
async fn as_caller(world: &World, key: &ApiKey) -> Caller {
    world.server.caller(&owned(world, key).await.token)
}

fn scope(teams: &[&str], permissions: &[&str]) -> ApiKey {
    let scope = TeamScope { team_ids: strings(teams), permissions: strings(permissions) };
    ApiKey { team_scope: Some(scope), ..Default::default() }
}

//! P1-P5: permissions and their catalogue.

use crate::support::{World, world::*};
use latchkey::proto::VerificationOutcome as Outcome;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_an_account_level_permission_holds_for_every_team_and_a_team_scoped_one_for_its_teams() {
    let world = World::start().await;
    let minted = create(
        &world.user("admin"),
        ACME,
        &team_key("k", &["incidents.create"], &["red", "green"], &["schedules.edit"]),
    )
    .await
    .expect("an admin holds all of it");
    assert_eq!(world.outcome(&minted.token, "incidents.create", &[]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "incidents.create", &["blue"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &["red"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.view", &["green"]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &["blue"]).await, Outcome::PermissionDenied);
    assert_eq!(world.outcome(&minted.token, "schedules.edit", &[]).await, Outcome::PermissionDenied);
}

//! K1, K2: what shapes a key's authority has.

use latchkey::proto::{ApiKey, TeamScope, VerificationOutcome as Outcome};
use tonic::Code;

use crate::support::{World, calls::*, world::*};

fn scope(teams: &[&str], permissions: &[&str]) -> Option<TeamScope> {
    Some(TeamScope { team_ids: strings(teams), permissions: strings(permissions) })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_a_key_has_account_permissions_or_team_scoped_ones_or_both_or_none() {
    let world = World::start().await;
    let owner = world.user("owner");
    let shapes = [
        (key("account", &["incidents.view"]), true, false),
        (team_key("team", &[], &["red"], &["schedules.edit"]), false, true),
        (team_key("both", &["incidents.view"], &["red"], &["schedules.edit"]), true, true),
        (key("none", &[]), false, false),
    ];
    let yes = |held: bool| if held { Outcome::Valid } else { Outcome::PermissionDenied };
    for (shape, on_account, on_team) in shapes {
        let minted = create(&owner, ACME, &shape).await.expect(&shape.name);
        assert_eq!(world.outcome(&minted.token, "incidents.view", &["red"]).await, yes(on_account), "{}", shape.name);
        assert_eq!(world.outcome(&minted.token, "schedules.edit", &["red"]).await, yes(on_team), "{}", shape.name);
        assert_eq!(world.outcome(&minted.token, "schedules.edit", &[]).await, Outcome::PermissionDenied);
        let stored = get(&owner, ACME, &minted.api_key.unwrap().key_id).await.unwrap();
        assert_eq!(stored.account_permissions, shape.account_permissions);
        assert_eq!(stored.team_scope, shape.team_scope);
        assert_eq!(stored.account_id, ACME);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k1_a_key_belongs_to_one_account_that_exists() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    let key_id = minted.api_key.unwrap().key_id;
    assert_refused(get(&world.server.operator, OTHER, &key_id).await, Code::NotFound, "NOT_FOUND", "");
    let refused = create(&world.server.operator, "no-such", &key("k", &[])).await;
    assert_refused(refused, Code::NotFound, "NOT_FOUND", "");
    // A team of the same name in another account is another team.
    let foreign = team_key("k", &[], &["green"], &["secrets.use"]);
    let refused = create(&world.product.for_user(OTHER, "owner"), OTHER, &foreign).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.team_ids");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_a_team_scope_has_teams_and_permissions_or_is_absent() {
    let world = World::start().await;
    let owner = world.user("owner");
    for (teams, permissions, field) in [
        (&[][..], &["schedules.edit"][..], "api_key.team_scope.team_ids"),
        (&["red"], &[], "api_key.team_scope.permissions"),
        (&[], &[], "api_key.team_scope.team_ids"),
        (&["red", "red"], &["schedules.edit"], "api_key.team_scope.team_ids[1]"),
        (&["red"], &["schedules.edit", "schedules.edit"], "api_key.team_scope.permissions[1]"),
        (&["red", "no-such"], &["schedules.edit"], "api_key.team_scope.team_ids"),
        (&["red", "a/b"], &["schedules.edit"], "api_key.team_scope.team_ids[1]"),
    ] {
        let refused = create(&owner, ACME, &team_key("k", &[], teams, permissions)).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", field);
    }
    let granted = team_key("k", &[], &["blue", "green"], &["catalog.edit", "schedules.edit"]);
    let minted = create(&owner, ACME, &granted).await.expect("several teams, one set");
    for team in ["blue", "green"] {
        for permission in ["catalog.edit", "schedules.edit"] {
            assert_eq!(world.outcome(&minted.token, permission, &[team]).await, Outcome::Valid);
        }
    }
    assert_eq!(minted.api_key.unwrap().team_scope, granted.team_scope);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_a_partial_edit_leaves_both_lists_or_neither() {
    let world = World::start().await;
    let owner = world.user("owner");
    let bare = create(&owner, ACME, &key("bare", &[])).await.unwrap().api_key.unwrap().key_id;
    let edit = async |key_id: &str, team_scope: Option<TeamScope>, paths: &[&str]| {
        let key = ApiKey { key_id: key_id.into(), team_scope, ..Default::default() };
        update(&owner, ACME, key, paths).await.map(|response| response.api_key.unwrap().team_scope)
    };
    const TEAMS: &str = "team_scope.team_ids";
    const NAMES: &str = "team_scope.permissions";

    // A key without a scope gets both lists or none.
    let refused = edit(&bare, scope(&["red"], &["schedules.edit"]), &[TEAMS]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
    let refused = edit(&bare, scope(&["red"], &["schedules.edit"]), &[NAMES]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.team_ids");
    let both = edit(&bare, scope(&["red"], &["schedules.edit"]), &[TEAMS, NAMES]).await.unwrap();
    assert_eq!(both, scope(&["red"], &["schedules.edit"]));

    // One list is replaced, the other stays.
    let scoped = bare;
    let teams = edit(&scoped, scope(&["blue", "green"], &[]), &[TEAMS]).await.unwrap();
    assert_eq!(teams, scope(&["blue", "green"], &["schedules.edit"]));
    let names = edit(&scoped, scope(&[], &["catalog.edit"]), &[NAMES]).await.unwrap();
    assert_eq!(names, scope(&["blue", "green"], &["catalog.edit"]));

    // Clearing one of them alone is no way to a scope of nothing.
    let refused = edit(&scoped, None, &[TEAMS]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.team_ids");
    let refused = edit(&scoped, None, &[NAMES]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
    let refused = edit(&scoped, scope(&["red"], &[]), &["team_scope"]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
    let refused = edit(&scoped, scope(&[], &["catalog.edit"]), &[]).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.team_ids");
    let stored = get(&owner, ACME, &scoped).await.unwrap().team_scope;
    assert_eq!(stored, scope(&["blue", "green"], &["catalog.edit"]), "what was refused changed nothing");

    assert_eq!(edit(&scoped, None, &[TEAMS, NAMES]).await.unwrap(), None);
    edit(&scoped, scope(&["red"], &["catalog.edit"]), &["team_scope"]).await.unwrap();
    assert_eq!(edit(&scoped, None, &["team_scope"]).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k2_without_a_mask_every_populated_field_is_replaced_and_with_a_star_every_field() {
    let world = World::start().await;
    let owner = world.user("owner");
    let full = ApiKey {
        comment: "why".into(),
        metadata: [("a".to_owned(), "1".to_owned())].into(),
        ..team_key("full", &["incidents.view"], &["red"], &["schedules.edit"])
    };
    let stored = create(&owner, ACME, &full).await.unwrap().api_key.unwrap();
    let renamed = ApiKey { key_id: stored.key_id.clone(), name: "renamed".into(), ..Default::default() };
    let after = update(&owner, ACME, renamed.clone(), &[]).await.unwrap().api_key.unwrap();
    let expected = ApiKey { name: "renamed".into(), ..stored.clone() };
    let comparable = |key: &ApiKey| ApiKey { etag: String::new(), update_time: None, ..key.clone() };
    assert_eq!(comparable(&after), comparable(&expected), "what is not populated stays");

    let after = update(&owner, ACME, renamed, &["*"]).await.unwrap().api_key.unwrap();
    let cleared = ApiKey {
        comment: String::new(),
        metadata: Default::default(),
        account_permissions: vec![],
        team_scope: None,
        ..expected
    };
    assert_eq!(comparable(&after), comparable(&cleared), "what is named and not populated is cleared");
    for path in ["nonsense", "key_id", "state", "token_hint", "creator", "team_scope.nonsense", ""] {
        let key = ApiKey { key_id: stored.key_id.clone(), ..Default::default() };
        let refused = update(&owner, ACME, key, &["name", path]).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "update_mask.paths[1]");
    }
}

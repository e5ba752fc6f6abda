//! P1: one catalogue, changed by operators, never shrinking.

use latchkey::proto::{
    ApplyCatalogueRequest, Catalogue, Permission, Role, RoleKind, UpsertRoleRequest, VerificationOutcome as Outcome,
};
use tonic::Code;

use crate::support::{Server, World, calls::*, world::*};

fn permission(name: &str) -> Permission {
    Permission { name: name.into(), team_scopable: true, ..Default::default() }
}

fn with(mut catalogue: Catalogue, more: impl IntoIterator<Item = Permission>) -> Catalogue {
    catalogue.permissions.extend(more);
    catalogue
}

async fn validate(world: &World, catalogue: Catalogue) -> Result<(), tonic::Status> {
    let request = ApplyCatalogueRequest { catalogue: Some(catalogue), validate_only: true, ..Default::default() };
    world.server.operator.directory().apply_catalogue(request).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_names_are_dotted_lower_case_words_of_at_most_64_bytes() {
    let world = World::start().await;
    let catalogue = catalogue(&world).await;
    let next = format!("catalogue.permissions[{}].name", catalogue.permissions.len());
    for good in ["a", "a1", "a_", "a.b_c.d9", "systems.view", &"a".repeat(64)] {
        validate(&world, with(catalogue.clone(), [permission(good)])).await.expect(good);
    }
    let too_long = "a".repeat(65);
    for bad in
        ["", "A", "1a", "_a", "a..b", ".a", "a.", "a.1", "a-b", "a b", "a\n", "é", "system", "system.x", &too_long]
    {
        let refused = validate(&world, with(catalogue.clone(), [permission(bad)])).await;
        assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", &next);
    }
    let refused = validate(&world, with(catalogue.clone(), [permission("incidents.view")])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", &next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_catalogue_has_at_most_256_permissions_retired_ones_included() {
    let world = World::start().await;
    let now = catalogue(&world).await;
    let room = 256 - now.permissions.len();
    let fill = |n: usize| (0..n).map(|i| Permission { retired: i % 2 == 0, ..permission(&format!("extra.n{i}")) });
    let refused = apply(&world.server.operator, with(now.clone(), fill(room + 1))).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "catalogue.permissions");
    let full = apply(&world.server.operator, with(now, fill(room))).await.expect("256 fit").catalogue.unwrap();
    assert_eq!(full.permissions.len(), 256);
    let refused = apply(&world.server.operator, with(full, [permission("one.more")])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "catalogue.permissions");
    // The last bit of the set is as good as the first.
    let last = format!("extra.n{}", room - 1 - (room - 1) % 2 - 1);
    let minted = create(&world.user("owner"), ACME, &key("last", &[&last])).await.expect("the owner holds everything");
    assert_eq!(world.outcome(&minted.token, &last, &[]).await, Outcome::Valid);
    assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_permission_is_retired_and_never_left_out() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["billing.manage", "incidents.view"])).await.unwrap();
    assert_eq!(world.outcome(&minted.token, "billing.manage", &[]).await, Outcome::Valid);

    let mut without = catalogue(&world).await;
    without.permissions.retain(|permission| permission.name != "billing.manage");
    without.default_roles.iter_mut().for_each(|role| role.permissions.retain(|name| name != "billing.manage"));
    assert_refused(
        apply(&world.server.operator, without.clone()).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        "billing.manage",
    );

    let retired = Permission { name: "billing.manage".into(), retired: true, ..Default::default() };
    apply(&world.server.operator, with(without, [retired])).await.expect("retiring is the way");
    // It grants nothing, though the key still names it; asking for it is no mistake of the asker's.
    assert_eq!(world.outcome(&minted.token, "billing.manage", &[]).await, Outcome::PermissionDenied);
    let answer = world.verify(&minted.token, None).await;
    assert_eq!((answer.outcome(), answer.account_permissions), (Outcome::Valid, strings(&["incidents.view"])));
    let key_id = minted.api_key.unwrap().key_id;
    let stored = get(&world.user("owner"), ACME, &key_id).await.unwrap();
    assert_eq!(stored.account_permissions, strings(&["billing.manage", "incidents.view"]));
    // It cannot be granted any more, but an edit of something else may keep it.
    let refused = create(&world.user("owner"), ACME, &key("k2", &["billing.manage"])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.account_permissions");
    let renamed = latchkey::proto::ApiKey { name: "renamed".into(), ..stored };
    update(&world.user("owner"), ACME, renamed, &["name", "account_permissions"]).await.expect("it had it before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_a_permission_keeps_its_place_whatever_comes_retires_or_moves() {
    let world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.view"])).await.unwrap();
    let before = catalogue(&world).await;
    let names = |catalogue: &Catalogue| -> Vec<String> {
        catalogue.permissions.iter().map(|permission| permission.name.clone()).collect()
    };
    let mut next = before.clone();
    next.permissions.reverse();
    next.permissions.insert(0, permission("brand.new"));
    next.permissions.iter_mut().filter(|p| p.name == "heartbeats.ping").for_each(|p| p.retired = true);
    apply(&world.server.operator, next).await.expect("applied");
    // The catalogue's order is that of the bits: the old ones kept theirs, the retired one's was not taken.
    let after = catalogue(&world).await;
    let expected = [names(&before), strings(&["brand.new"])].concat();
    assert_eq!(names(&after), expected);
    assert_eq!(world.verify(&minted.token, None).await.account_permissions, strings(&["incidents.view"]));
    assert_eq!(world.outcome(&minted.token, "brand.new", &[]).await, Outcome::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_losing_team_scopable_is_refused_while_a_key_holds_it_on_a_team() {
    let world = World::start().await;
    let owner = world.user("owner");
    let on_team = create(&owner, ACME, &team_key("k", &[], &["red"], &["heartbeats.ping"])).await.unwrap();
    let on_account = create(&owner, ACME, &key("k", &["heartbeats.ping"])).await.unwrap();
    let lose = || change_permission(&world, "heartbeats.ping", |permission| permission.team_scopable = false);
    assert_refused(lose().await, Code::FailedPrecondition, "IN_USE", "heartbeats.ping");
    // Disabled is not gone: it can be enabled again.
    let key_id = on_team.api_key.unwrap().key_id;
    disable(&owner, ACME, &key_id).await.unwrap();
    assert_refused(lose().await, Code::FailedPrecondition, "IN_USE", "heartbeats.ping");
    // A deleted key is gone; one that holds it account-wide is no obstacle.
    delete(&owner, ACME, &key_id).await.unwrap();
    lose().await.expect("no user holds it on a team");
    assert_eq!(world.outcome(&on_account.token, "heartbeats.ping", &["red"]).await, Outcome::Valid);
    let refused = create(&owner, ACME, &team_key("k", &[], &["red"], &["heartbeats.ping"])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "api_key.team_scope.permissions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_losing_team_scopable_is_refused_while_a_team_role_holds_it() {
    let world = World::start().await;
    let role = |permissions: &[&str]| UpsertRoleRequest {
        account_id: OTHER.into(),
        role: Some(Role {
            role_id: "pinger".into(),
            kind: RoleKind::Team.into(),
            permissions: strings(permissions),
            ..Default::default()
        }),
        validate_only: false,
        ..Default::default()
    };
    let lose = || change_permission(&world, "heartbeats.ping", |permission| permission.team_scopable = false);
    world.directory.directory().upsert_role(role(&["heartbeats.ping", "secrets.use"])).await.unwrap();
    assert_refused(lose().await, Code::FailedPrecondition, "IN_USE", "heartbeats.ping");
    world.directory.directory().upsert_role(role(&["secrets.use"])).await.unwrap();
    lose().await.expect("no role has it");
    // Nor may a default role of kind team have one that is not team-scopable.
    let mut next = catalogue(&world).await;
    let member = next.default_roles.iter_mut().find(|role| role.role_id == "member").unwrap();
    member.permissions.push("heartbeats.ping".into());
    let refused = apply(&world.server.operator, next).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "catalogue.default_roles");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_keys_store_names_as_granted_and_closure_is_taken_at_evaluation() {
    let world = World::start().await;
    let owner = world.user("owner");
    let granted = team_key("k", &["status_pages.publish"], &["red"], &["secrets.use"]);
    let minted = create(&owner, ACME, &granted).await.unwrap();
    let key_id = minted.api_key.unwrap().key_id;
    let outcomes = async || {
        let account = world.outcome(&minted.token, "postmortems.manage", &[]).await;
        (account, world.outcome(&minted.token, "heartbeats.ping", &["red"]).await)
    };
    assert_eq!(outcomes().await, (Outcome::PermissionDenied, Outcome::PermissionDenied));
    for round in 0..3 {
        change_permission(&world, "status_pages.publish", |p| p.implies = strings(&["postmortems.manage"]))
            .await
            .unwrap();
        change_permission(&world, "secrets.use", |p| p.implies = strings(&["heartbeats.ping"])).await.unwrap();
        assert_eq!(outcomes().await, (Outcome::Valid, Outcome::Valid), "round {round}");
        let stored = get(&owner, ACME, &key_id).await.unwrap();
        assert_eq!(stored.account_permissions, granted.account_permissions);
        assert_eq!(stored.team_scope, granted.team_scope);
        change_permission(&world, "status_pages.publish", |p| p.implies.clear()).await.unwrap();
        change_permission(&world, "secrets.use", |p| p.implies.clear()).await.unwrap();
        assert_eq!(outcomes().await, (Outcome::PermissionDenied, Outcome::PermissionDenied), "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_applying_needs_system_operate() {
    let world = World::start().await;
    let next = with(catalogue(&world).await, [permission("brand.new")]);
    for caller in [&world.directory, &world.verifier, &world.auditor, &world.product] {
        let refused = apply(caller, next.clone()).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.operate");
    }
    let manager = create(&world.user("owner"), ACME, &key("k", &["api_keys.manage"])).await.unwrap();
    let refused = apply(&world.server.caller(&manager.token), next.clone()).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.operate");
    let refused = apply(&world.user("owner"), next.clone()).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_METADATA", "latchkey-on-behalf-of");
    apply(&world.server.operator, next).await.expect("an operator may");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_an_etag_guards_the_catalogue_and_an_unchanged_apply_appends_nothing() {
    let world = World::start().await;
    let (old, head_before) = (catalogue(&world).await, head(&world).await);
    let same = apply(&world.server.operator, old.clone()).await.expect("its own etag").catalogue.unwrap();
    assert_eq!(same, old);
    let unguarded = Catalogue { etag: String::new(), ..old.clone() };
    apply(&world.server.operator, unguarded.clone()).await.expect("unconditional");
    assert_eq!(head(&world).await, head_before, "nothing changed");

    let new = apply(&world.server.operator, with(old.clone(), [permission("one.more")])).await.unwrap();
    assert_eq!(head(&world).await, head_before + 1, "one change, one event");
    let new = new.catalogue.unwrap();
    assert_ne!(new.etag, old.etag);
    assert_eq!(catalogue(&world).await.etag, new.etag);
    let outdated = Catalogue { etag: old.etag, ..new.clone() };
    let refused = apply(&world.server.operator, with(outdated.clone(), [permission("two.more")])).await;
    assert_refused(refused, Code::Aborted, "STALE_ETAG", "");
    // The retry of what succeeded changes nothing, and is no conflict.
    assert_eq!(apply(&world.server.operator, outdated).await.expect("unchanged").catalogue, Some(new.clone()));
    assert_eq!(head(&world).await, head_before + 1);
    apply(&world.server.operator, with(new, [permission("two.more")])).await.expect("its own etag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_validate_only_judges_and_changes_nothing() {
    let world = World::start().await;
    let (old, head_before) = (catalogue(&world).await, head(&world).await);
    validate(&world, with(old.clone(), [permission("one.more")])).await.expect("it would do");
    let refused = validate(&world, with(old.clone(), [permission("One.More")])).await;
    assert_refused(refused, Code::InvalidArgument, "INVALID_FIELD", "catalogue.permissions");
    let request = ApplyCatalogueRequest { catalogue: Some(old.clone()), validate_only: true, ..Default::default() };
    let refused = world.directory.directory().apply_catalogue(request).await;
    assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING", "system.operate");
    assert_eq!((catalogue(&world).await, head(&world).await), (old, head_before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p1_starting_a_server_does_not_change_the_catalogue() {
    let mut world = World::start().await;
    let minted = create(&world.user("owner"), ACME, &key("k", &["incidents.edit"])).await.unwrap();
    let before = catalogue(&world).await;
    let database = world.server.database.clone();
    let again = Server::start_on(database, |flags| flags).await;
    world.directory.channel = again.channel.clone();
    world.verifier.channel = again.channel.clone();
    assert_eq!(catalogue(&world).await, before);
    assert_eq!(world.outcome(&minted.token, "incidents.view", &[]).await, Outcome::Valid);
}

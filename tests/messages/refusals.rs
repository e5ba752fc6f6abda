//! What callers are refused with, by what they did: a table for each family.

use latchkey::proto::{
    ApiKey, DeleteAccountRequest, DeleteRoleRequest, GetAccountRequest, GetIdentityRequest, GetRoleRequest,
    GetTeamRequest, GetUserRequest, ListApiKeysRequest, Permission, Revision, Role, RoleKind, UpsertRoleRequest,
    UserState, VerifyTokenRequest,
};
use tonic::{Request, Status};

use crate::{
    assert_text,
    support::{
        Caller, Server, World,
        calls::{
            self,
            acme::{delete, disable, enable, get, living, mint, mint_in, rotate, unknown_token, until, update},
            requests,
        },
        world::{ACME, OTHER, key, team_key},
    },
    table,
};

/// Refusals as they come, each with what was done.
#[derive(Default)]
struct Refusals(Vec<(String, Status)>);

impl Refusals {
    #[track_caller]
    fn add<T>(&mut self, what: &str, result: Result<T, Status>) {
        // Not `expect_err`: answers with a token have no `Debug`.
        let Err(status) = result else { panic!("must be refused: {what}") };
        self.0.push((what.to_owned(), status));
    }

    fn check(self, name: &str) {
        assert_text(name, &table(self.0));
    }
}

async fn identity(caller: &Caller) -> Result<(), Status> {
    caller.tokens().get_identity(GetIdentityRequest {}).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_bad_input() {
    let (world, mut refusals) = (World::start().await, Refusals::default());
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &[])).await.expect("a key");
    let named = |name: &str| key(name, &[]);
    let bad = ApiKey { comment: "\0".into(), ..team_key(" ", &["NO"], &["a b"], &["incidents.view"]) };
    refusals.add("many fields of a key", mint(&owner, &bad).await);
    refusals.add("a key without a name", mint(&owner, &named("")).await);
    refusals.add("a name that is too long", mint(&owner, &named(&"x".repeat(1_000))).await);
    refusals.add("a permission that is not in the catalogue", mint(&owner, &key("k", &["no.such"])).await);
    refusals.add("a permission twice", mint(&owner, &key("k", &["billing.manage", "billing.manage"])).await);
    refusals.add("a permission not for teams", mint(&owner, &team_key("k", &[], &["red"], &["billing.manage"])).await);
    refusals.add("a team that is not there", mint(&owner, &team_key("k", &[], &["nope"], &["secrets.use"])).await);
    refusals.add("a team scope without teams", mint(&owner, &team_key("k", &[], &[], &["secrets.use"])).await);
    refusals.add("a team scope without permissions", mint(&owner, &team_key("k", &[], &["red"], &[])).await);
    refusals.add("an expiry that has passed", mint(&owner, &until(named("k"), 1)).await);
    refusals.add("a time to live that is none", mint(&owner, &living(named("k"), 0)).await);
    refusals.add(
        "no key",
        owner
            .keys()
            .create_api_key(latchkey::proto::CreateApiKeyRequest { account_id: ACME.into(), ..Default::default() })
            .await,
    );
    refusals.add("a malformed account", mint_in(&owner, "A B", &named("k")).await);
    refusals.add("a malformed key id", get(&owner, "nonsense").await);
    refusals.add("an unknown path of a mask", update(&owner, made.id(), &["nonsense"], named("k")).await);
    refusals.add("a path that cannot be set", update(&owner, made.id(), &["state"], named("k")).await);
    let grace = calls::rotate(&owner, ACME, made.id(), Some(calls::seconds(-1))).await;
    refusals.add("a grace that is negative", grace.map(drop));
    let page = |page_size, page_token: &str| {
        let (account_id, page_token) = (ACME.into(), page_token.into());
        ListApiKeysRequest { account_id, page_size, page_token, ..Default::default() }
    };
    refusals.add("a page of a negative size", calls::list(&owner, page(-1, "")).await);
    refusals.add("a page token of somewhere else", calls::list(&owner, page(1, "nonsense")).await);
    let ask = async |requirement| world.verifier.tokens().verify_token(requirement).await;
    let required = |account: &str, permission: &str, teams: &[&str]| {
        requests::verify_token(&made.token, Some(requests::requirement(account, permission, teams)))
    };
    refusals.add("a requirement of no account", ask(required("", "billing.manage", &[])).await);
    refusals.add("a requirement of an unknown permission", ask(required(ACME, "no.such", &[])).await);
    refusals.add("a requirement on a malformed team", ask(required(ACME, "secrets.use", &["a b"])).await);
    refusals.add("a batch of nothing", world.verifier.tokens().verify_tokens(requests::verify_tokens(vec![])).await);
    let role = Role { role_id: "A B".into(), display_name: String::new(), ..Default::default() };
    let request = UpsertRoleRequest { account_id: ACME.into(), role: Some(role), ..Default::default() };
    refusals.add("a malformed role", world.directory.directory().upsert_role(request).await);
    let mut catalogue = calls::catalogue(&world).await;
    let implies = vec!["no.such".into(), "system.operate".into()];
    catalogue.permissions.push(Permission { name: "NO".into(), implies, ..Default::default() });
    refusals.add("a malformed catalogue", calls::apply(&world.server.operator, catalogue).await);
    let mut twice = Request::new(GetIdentityRequest {});
    twice.metadata_mut().append("latchkey-on-behalf-of", "nonsense".parse().expect("ASCII"));
    refusals.add("a malformed user to act for", world.product.tokens().get_identity(twice).await);
    refusals.check("refusals_bad_input");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_want_of_credentials() {
    let (world, mut refusals) = (World::start().await, Refusals::default());
    let owner = world.user("owner");
    let anonymous = latchkey::proto::token_service_client::TokenServiceClient::new(world.server.channel.clone())
        .get_identity(GetIdentityRequest {})
        .await;
    refusals.add("none", anonymous);
    let off = mint(&owner, &key("k", &[])).await.expect("a key");
    disable(&owner, off.id()).await.expect("off");
    let gone = mint(&owner, &key("k", &[])).await.expect("a key");
    delete(&owner, gone.id()).await.expect("gone");
    for (what, token) in [
        ("no token at all", "nonsense"),
        ("a token that nobody minted", &unknown_token()),
        ("a disabled key", &off.token),
        ("a deleted key", &gone.token),
    ] {
        refusals.add(what, identity(&world.server.caller(token)).await);
    }
    refusals.add("a user that is not there", identity(&world.user("nobody")).await);
    refusals.add("a user that is deactivated", identity(&world.user("gone")).await);
    refusals.add("a user, without impersonation", identity(&world.verifier.for_user(ACME, "owner")).await);
    let live = mint(&owner, &key("k", &[])).await.expect("a key");
    let for_user = owner.tokens().verify_token(requests::verify_token(&live.token, None)).await;
    refusals.add("a user, where none is taken", for_user);
    calls::suspend(&world, ACME).await;
    refusals.add("a suspended account's key", identity(&world.server.caller(&live.token)).await);
    refusals.add("a suspended account's user", identity(&owner).await);
    refusals.check("refusals_credentials");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_want_of_authority() {
    let (world, mut refusals) = (World::start().await, Refusals::default());
    let (owner, admin) = (world.user("owner"), world.user("admin"));
    refusals.add("a permission that is not held", mint(&admin, &key("k", &["secrets.use"])).await);
    let on_team = team_key("k", &[], &["blue"], &["secrets.use"]);
    refusals.add("one that is not held on a team", mint(&admin, &on_team).await);
    let elsewhere = team_key("k", &[], &["blue"], &["secrets.use"]);
    refusals.add("a team that is not managed", mint(&world.user("red_manager"), &elsewhere).await);
    refusals.add("a user that manages nothing", mint(&world.user("standard"), &key("k", &[])).await);
    let manager = mint(&owner, &key("m", &["api_keys.manage"])).await.expect("a key");
    let manages = world.server.caller(&manager.token);
    refusals.add("a key that hands management on", mint(&manages, &key("k", &["api_keys.manage"])).await);
    let renamed = ApiKey { name: "new".into(), ..Default::default() };
    refusals.add("a key that edits itself", update(&manages, manager.id(), &["name"], renamed).await);
    refusals.add("a verification without `system.verify`", {
        let request = requests::verify_token(&manager.token, None);
        manages.tokens().verify_token(request).await
    });
    refusals.add("the directory, by an account's key", {
        manages.directory().upsert_account(requests::upsert_account("new", "New")).await
    });
    refusals.add("the catalogue, without `system.operate`", {
        calls::apply(&world.directory, calls::catalogue(&world).await).await
    });
    refusals.add("a write to the directory of `system`", {
        world.directory.directory().upsert_team(requests::upsert_team("system", requests::team("t", "T"))).await
    });
    refusals.add("a key of `system`, by an account's owner", mint_in(&owner, "system", &key("k", &[])).await);
    refusals.check("refusals_authority");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_a_state_that_does_not_allow_it() {
    let few = |flags: latchkey::settings::Flags| flags.with("api_keys_per_account_max", "6");
    let (world, mut refusals) = (World::on(Server::start_with(few).await).await, Refusals::default());
    let owner = world.user("owner");
    let made = mint(&owner, &key("k", &[])).await.expect("a key");
    let stale = ApiKey { etag: "1-1".into(), ..key("newer", &[]) };
    refusals.add("a stale etag", update(&owner, made.id(), &["name"], stale).await);
    disable(&owner, made.id()).await.expect("off");
    refusals.add("a rotation of a disabled key", rotate(&owner, made.id()).await);
    delete(&owner, made.id()).await.expect("gone");
    refusals.add("a change of a deleted key", enable(&owner, made.id()).await);
    let mut directory = world.directory.directory();
    let role = |id: &str| DeleteRoleRequest { account_id: ACME.into(), role_id: id.into(), ..Default::default() };
    refusals.add("a role that users have", directory.delete_role(role("owner")).await);
    let kind = RoleKind::Custom.into();
    let role = Role { role_id: "owner".into(), display_name: "Owner".into(), kind, ..Default::default() };
    let request = UpsertRoleRequest { account_id: ACME.into(), role: Some(role), ..Default::default() };
    refusals.add("another kind for a role", directory.upsert_role(request).await);
    world.make_user(ACME, "extra", "standard", &[], UserState::Active).await;
    for _ in 0..6 {
        mint(&owner, &team_key("k", &[], &["red"], &["secrets.use"])).await.expect("a key");
    }
    refusals.add("a quota of keys", mint(&owner, &key("k", &[])).await);
    let mut catalogue = calls::catalogue(&world).await;
    let on_teams = catalogue.permissions.iter_mut().find(|permission| permission.name == "secrets.use");
    on_teams.expect("it is there").team_scopable = false;
    let changed = calls::apply(&world.server.operator, catalogue).await;
    refusals.add("a permission that is held on teams, and for teams no more", changed);
    let mut catalogue = calls::catalogue(&world).await;
    catalogue.permissions.retain(|permission| permission.name != "billing.manage");
    refusals.add("a permission taken out of the catalogue", calls::apply(&world.server.operator, catalogue).await);
    let gone = DeleteAccountRequest { account_id: OTHER.into(), ..Default::default() };
    directory.delete_account(gone).await.expect("gone");
    refusals.add("the id of a deleted account", directory.upsert_account(requests::upsert_account(OTHER, "O")).await);
    refusals.check("refusals_state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn for_what_is_not_found() {
    let (world, mut refusals) = (World::start().await, Refusals::default());
    let id = || "nowhere".to_owned();
    let mut directory = world.directory.directory();
    refusals.add("a key", get(&world.user("owner"), "key_01h2xcejqtf2nbrexx3vqjhp41").await);
    refusals.add("an account", directory.get_account(GetAccountRequest { account_id: id() }).await);
    let request = GetTeamRequest { account_id: ACME.into(), team_id: id() };
    refusals.add("a team", directory.get_team(request).await);
    let request = GetRoleRequest { account_id: ACME.into(), role_id: id() };
    refusals.add("a role", directory.get_role(request).await);
    let request = GetUserRequest { account_id: ACME.into(), user_id: id() };
    refusals.add("a user", directory.get_user(request).await);
    refusals.add("another account, by an owner", mint_in(&world.user("owner"), OTHER, &key("k", &[])).await);
    refusals.add("a revision that has not come", {
        let min_revision = Some(Revision { epoch: 1, number: 1_000_000 });
        let request = VerifyTokenRequest { min_revision, ..requests::verify_token(&world.product.token, None) };
        world.verifier.tokens().verify_token(request).await
    });
    refusals.check("refusals_not_found");
}

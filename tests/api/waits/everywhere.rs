//! V1 on three replicas: complete, and then refused on each of them.

use latchkey::proto::{
    DeleteRoleRequest, DeleteTeamRequest, GetRoleRequest, Requirement, RevokeTokenRequest, Role, RoleKind,
    RotateApiKeyRequest, SuspendAccountRequest, UpsertRoleRequest, VerificationOutcome as Outcome, VerifyTokenRequest,
};
use tonic::Code;

use super::*;
use crate::support::{
    Server,
    calls::{change_permission, requirement, seconds},
    database::Database,
    world::team_key,
};

/// The world's server and two more on the same database.
struct Three {
    world: World,
    more: [Server; 2],
}

impl Three {
    async fn start() -> Self {
        let world = World::start().await;
        let again = || {
            let Database { name, app_url, owner_url } = &world.server.database;
            Database { name: name.clone(), app_url: app_url.clone(), owner_url: owner_url.clone() }
        };
        let more = [Server::start_on(again(), |flags| flags).await, Server::start_on(again(), |flags| flags).await];
        Self { world, more }
    }

    /// The same caller at each replica.
    fn each(&self, caller: &Caller) -> Vec<Caller> {
        let servers = std::iter::once(&self.world.server).chain(&self.more);
        servers.map(|server| Caller { channel: server.channel.clone(), ..caller.clone() }).collect()
    }

    /// What every replica answers.
    async fn assert_all(&self, token: &str, requirement: Option<&Requirement>, expected: Outcome) {
        for verifier in self.each(&self.world.verifier) {
            let requirement = requirement.cloned();
            let request = VerifyTokenRequest { token: token.into(), requirement, min_revision: None };
            let response = verifier.tokens().verify_token(request).await.expect("an answer").into_inner();
            assert_eq!(response.verification.expect("a verification").outcome(), expected);
        }
    }

    async fn mint(&self, permissions: &[&str]) -> (String, String) {
        let minted = create(&self.world.user("owner"), ACME, &key("k", permissions)).await.expect("minted");
        self.assert_all(&minted.token, None, Outcome::Valid).await;
        (minted.api_key.expect("a key").key_id, minted.token)
    }

    async fn rotate(&self, key_id: &str, grace: i64) -> String {
        let message = RotateApiKeyRequest {
            account_id: ACME.into(),
            key_id: key_id.into(),
            grace_period: Some(seconds(grace)),
            ..Default::default()
        };
        let rotated = self.world.user("owner").keys().rotate_api_key(message).await.expect("rotated").into_inner();
        assert!(rotated.propagation.expect("a propagation").complete);
        rotated.token
    }

    async fn revoke(&self, token: &str) {
        for itself in self.each(&self.world.server.caller(token)).iter().rev() {
            let done = timed!(itself.tokens(), revoke_token, How::default(), RevokeTokenRequest::default());
            assert_eq!((done.propagation.complete, done.propagation.pending_replicas), (true, 0));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_token_that_revoked_itself_is_refused_everywhere_and_may_say_so_again() {
    let three = Three::start().await;
    let (_, token) = three.mint(&[]).await;
    three.revoke(&token).await;
    three.assert_all(&token, None, Outcome::Deleted).await;
    let (key_id, retiring) = three.mint(&[]).await;
    let current = three.rotate(&key_id, 600).await;
    three.assert_all(&retiring, None, Outcome::Valid).await;
    three.revoke(&retiring).await;
    three.assert_all(&retiring, None, Outcome::Rotated).await;
    three.assert_all(&current, None, Outcome::Valid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_what_a_rotation_ends_is_refused_everywhere() {
    let three = Three::start().await;
    let (key_id, first) = three.mint(&[]).await;
    let second = three.rotate(&key_id, 600).await;
    three.assert_all(&first, None, Outcome::Valid).await;
    three.assert_all(&second, None, Outcome::Valid).await;
    let third = three.rotate(&key_id, 600).await;
    three.assert_all(&first, None, Outcome::Rotated).await;
    three.assert_all(&second, None, Outcome::Valid).await;
    let fourth = three.rotate(&key_id, 0).await;
    for ended in [&first, &second, &third] {
        three.assert_all(ended, None, Outcome::Rotated).await;
    }
    three.assert_all(&fourth, None, Outcome::Valid).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_what_the_catalogue_a_team_or_a_suspension_takes_is_refused_everywhere() {
    let three = Three::start().await;
    let world = &three.world;
    let (_, editor) = three.mint(&["incidents.edit"]).await;
    let views = requirement(ACME, "incidents.view", &[]);
    three.assert_all(&editor, Some(&views), Outcome::Valid).await;
    let applied = change_permission(world, "incidents.edit", |permission| permission.implies.clear()).await;
    assert!(applied.expect("applied").propagation.expect("a propagation").complete);
    three.assert_all(&editor, Some(&views), Outcome::PermissionDenied).await;

    let on_red = team_key("k", &[], &["red"], &["secrets.use"]);
    let red = create(&world.user("owner"), ACME, &on_red).await.expect("minted").token;
    let uses = requirement(ACME, "secrets.use", &["red"]);
    three.assert_all(&red, Some(&uses), Outcome::Valid).await;
    let message = DeleteTeamRequest { account_id: ACME.into(), team_id: "red".into(), ..Default::default() };
    assert!(timed!(world.directory.directory(), delete_team, How::default(), message).propagation.complete);
    three.assert_all(&red, Some(&uses), Outcome::PermissionDenied).await;

    let message = SuspendAccountRequest { account_id: ACME.into(), ..Default::default() };
    for _ in 0..2 {
        let done = timed!(world.directory.directory(), suspend_account, How::default(), message.clone());
        assert!(done.propagation.complete);
        three.assert_all(&editor, None, Outcome::AccountSuspended).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn v1_a_deleted_role_is_gone_everywhere() {
    let three = Three::start().await;
    let directory = &three.world.directory;
    let role = Role { role_id: "r".into(), kind: RoleKind::Custom.into(), ..Default::default() };
    let message = UpsertRoleRequest { account_id: ACME.into(), role: Some(role), ..Default::default() };
    directory.directory().upsert_role(message).await.expect("a role");
    let message = DeleteRoleRequest { account_id: ACME.into(), role_id: "r".into(), ..Default::default() };
    assert!(timed!(directory.directory(), delete_role, How::default(), message).propagation.complete);
    for reader in three.each(directory) {
        let message = GetRoleRequest { account_id: ACME.into(), role_id: "r".into() };
        let read = reader.directory().get_role(message).await;
        assert_eq!(read.map(drop).map_err(|status| status.code()), Err(Code::NotFound));
    }
}

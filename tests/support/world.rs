//! A small world: the example catalogue, account `acme` with teams `red`, `green` and `blue`, users of every kind,
//! account `other` with a team and an owner, and the keys of services.

use latchkey::proto::{
    ApiKey, CreateApiKeyResponse, Requirement, TeamRole, TeamScope, TokenVerification, User, UserState,
    VerificationOutcome,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Caller, Server, calls::requests};

pub const ACME: &str = "acme";
pub const OTHER: &str = "other";
/// What a server serves, in order of name.
pub const SERVICES: [&str; 7] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "latchkey.v1.ApiKeyService",
    "latchkey.v1.DirectoryService",
    "latchkey.v1.EventService",
    "latchkey.v1.TokenService",
];
pub const TEAMS: [&str; 3] = ["red", "green", "blue"];

/// The server with its world. Users of `acme`: `owner`, `admin`, `standard` (no managing), `red_manager`,
/// `red_green_manager`, `gone` (deactivated). User of `other`: `owner`.
pub struct World {
    pub server: Server,
    /// Holds `system.impersonate` and nothing else: acts for users.
    pub product: Caller,
    /// Holds `system.verify` and nothing else.
    pub verifier: Caller,
    /// Holds `system.directory` and nothing else.
    pub directory: Caller,
    /// Holds `system.events` and nothing else.
    pub auditor: Caller,
}

impl World {
    pub async fn start() -> Self {
        Self::on(Server::start().await).await
    }

    pub async fn on(server: Server) -> Self {
        apply_example_catalogue(&server.operator).await;
        let service = async |permission: &str| {
            let minted =
                create(&server.operator, "system", &key(permission, &[permission])).await.expect("a service's key");
            server.caller(&minted.token)
        };
        let directory = service("system.directory").await;
        let (product, verifier) = (service("system.impersonate").await, service("system.verify").await);
        let auditor = service("system.events").await;
        let world = Self { product, verifier, directory, auditor, server };
        world.make_account(ACME, &TEAMS).await;
        world.make_account(OTHER, &["red"]).await;
        for (user, role, teams) in [
            ("owner", "owner", &[][..]),
            ("admin", "admin", &[]),
            ("standard", "standard", &[]),
            ("red_manager", "standard", &["red"]),
            ("red_green_manager", "standard", &["red", "green"]),
            ("gone", "owner", &[]),
        ] {
            let state = if user == "gone" { UserState::Deactivated } else { UserState::Active };
            world.make_user(ACME, user, role, teams, state).await;
        }
        world.make_user(OTHER, "owner", "owner", &[], UserState::Active).await;
        world
    }

    async fn make_account(&self, account: &str, teams: &[&str]) {
        let request = requests::upsert_account(account, &account.to_uppercase());
        self.directory.directory().upsert_account(request).await.expect("an account");
        let request = requests::upsert_teams(account, teams.iter().map(|team| requests::team(team, team)));
        self.directory.directory().batch_upsert_teams(request).await.expect("teams");
    }

    /// A user with a base role, and role `manager` on some teams.
    pub async fn make_user(&self, account: &str, user: &str, role: &str, manages: &[&str], state: UserState) {
        let team_role = |team: &&str| TeamRole { team_id: (*team).into(), role_id: "manager".into() };
        let user = User {
            user_id: user.into(),
            display_name: user.into(),
            state: state.into(),
            base_role_id: role.into(),
            team_roles: manages.iter().map(team_role).collect(),
            ..Default::default()
        };
        let request = requests::upsert_user(account, user);
        self.directory.directory().upsert_user(request).await.expect("a user");
    }

    /// A user of `acme`, through the product.
    pub fn user(&self, user: &str) -> Caller {
        self.product.for_user(ACME, user)
    }

    /// Verifies a token for a permission in `acme`, on teams if there are any.
    pub async fn outcome(&self, token: &str, permission: &str, teams: &[&str]) -> VerificationOutcome {
        let requirement = requests::requirement(ACME, permission, teams);
        self.verify(token, Some(requirement)).await.outcome()
    }

    /// Verifies a token.
    pub async fn verify(&self, token: &str, requirement: Option<Requirement>) -> TokenVerification {
        let request = requests::verify_token(token, requirement);
        let response = self.verifier.tokens().verify_token(request).await.expect("an answer");
        response.into_inner().verification.expect("a verification")
    }
}

/// A key to mint, with account-level permissions.
pub fn key(name: &str, account_permissions: &[&str]) -> ApiKey {
    ApiKey { name: name.into(), account_permissions: strings(account_permissions), ..Default::default() }
}

/// The same with a team scope.
pub fn team_key(name: &str, account_permissions: &[&str], teams: &[&str], permissions: &[&str]) -> ApiKey {
    let scope = TeamScope { team_ids: strings(teams), permissions: strings(permissions) };
    ApiKey { team_scope: Some(scope), ..key(name, account_permissions) }
}

pub fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

/// Mints a key.
pub async fn create(caller: &Caller, account: &str, api_key: &ApiKey) -> Result<CreateApiKeyResponse, Status> {
    Ok(caller.keys().create_api_key(requests::create_key(account, api_key)).await?.into_inner())
}

/// Asserts a refusal: its code, its reason, and that its message or a field names something.
#[track_caller]
pub fn assert_refused<T>(result: Result<T, Status>, code: Code, reason: &str, names: &str) {
    // Not `expect_err`: answers with a token have no `Debug`.
    let Err(status) = result else { panic!("must be refused with {reason}, naming `{names}`") };
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every error carries ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (reason, "latchkey"), "{status:?}");
    let fields = details.bad_request().map(|bad| &bad.field_violations[..]).unwrap_or_default();
    let named = status.message().contains(names)
        || fields.iter().any(|violation| violation.field.contains(names))
        || info.metadata.values().any(|value| value.contains(names));
    assert!(named, "`{names}` is not named in {status:?} {fields:?}");
}

/// Applies the catalogue that `latchkey dev` starts with.
pub async fn apply_example_catalogue(operator: &Caller) {
    let file: toml::Table = include_str!("../../deploy/catalogue.toml").parse().expect("TOML");
    let list = |name: &str| file[name].as_array().expect(name).iter().map(|item| item.as_table().expect("a table"));
    let text = |table: &toml::Table, key: &str| table.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let flag = |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_bool).unwrap_or_default();
    let names = |table: &toml::Table, key: &str| -> Vec<String> {
        let array = table.get(key).and_then(|value| value.as_array()).cloned().unwrap_or_default();
        array.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    };
    let permissions = list("permissions").map(|table| latchkey::proto::Permission {
        name: text(table, "name"),
        description: text(table, "description"),
        team_scopable: flag(table, "team_scopable"),
        implies: names(table, "implies"),
        retired: false,
    });
    let kind = |table: &toml::Table| match text(table, "kind").as_str() {
        "base" => latchkey::proto::RoleKind::Base,
        "custom" => latchkey::proto::RoleKind::Custom,
        _ => latchkey::proto::RoleKind::Team,
    };
    let default_roles = list("default_roles").map(|table| latchkey::proto::Role {
        role_id: text(table, "role_id"),
        display_name: text(table, "display_name"),
        kind: kind(table).into(),
        permissions: names(table, "permissions"),
        all_permissions: flag(table, "all_permissions"),
        ..Default::default()
    });
    let catalogue = latchkey::proto::Catalogue {
        permissions: permissions.collect(),
        default_roles: default_roles.collect(),
        ..Default::default()
    };
    operator
        .directory()
        .apply_catalogue(requests::apply_catalogue(catalogue))
        .await
        .expect("the example catalogue is good");
}

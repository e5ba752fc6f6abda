//! Clients that change things until the server is gone, and remember what they were answered.
//!
//! They do not wait for replicas: one that was killed is waited for until its lease ends, which is longer than a round.

use std::sync::{Arc, Mutex};

use latchkey::proto::{self, *};
use tonic::{Code, Status};

use crate::support::{
    Caller,
    calls::requests,
    random::Random,
    world::{key, strings, team_key},
};

pub const ACCOUNT: &str = "acme";
pub const SIDE_ACCOUNT: &str = "side";
const TEAMS: [&str; 4] = ["red", "green", "blue", "grey"];
const ACCOUNT_PERMISSIONS: [&str; 4] = ["incidents.view", "incidents.create", "settings.view", "billing.manage"];
const TEAM_PERMISSIONS: [&str; 4] = ["schedules.edit", "schedules.view", "workflows.edit", "catalog.view"];
const YEAR_2100: i64 = 4_102_444_800;

/// What an answer said the state was at a revision.
pub enum Seen {
    Key(Box<ApiKey>),
    Team(Team),
    Role(Role),
    User(User),
    Account(Account),
    Gone(&'static str, String),
}

/// One answer.
pub struct Ack {
    pub number: i64,
    pub account: &'static str,
    pub seen: Vec<Seen>,
}

/// A token that was handed out, and the event that minted it.
pub struct Minted {
    pub key_id: String,
    pub number: i64,
    pub token: String,
}

/// What all clients know, over all restarts.
#[derive(Default)]
pub struct Known {
    pub keys: Vec<String>,
    pub acks: Vec<Ack>,
    pub minted: Vec<Minted>,
    /// Calls of this round whose outcome no client learned, each with the most events that it may have appended.
    pub unknown: Vec<(&'static str, usize)>,
    next_name: u64,
}

/// One client.
pub struct Client {
    pub caller: Caller,
    pub random: Random,
    pub known: Arc<Mutex<Known>>,
}

type Answer = Result<(Option<Propagation>, Vec<Seen>, Option<Minted>), Status>;

impl Client {
    /// Calls until the server does not answer any more.
    pub async fn run(mut self) {
        loop {
            let (name, account, events_max, answer) = self.call().await;
            let mut known = self.known.lock().expect("no panic");
            match answer {
                Ok((propagation, seen, minted)) => {
                    let revision = propagation.and_then(|propagation| propagation.revision).expect("a revision");
                    known.acks.push(Ack { number: revision.number, account, seen });
                    if let Some(minted) = minted {
                        known.keys.push(minted.key_id.clone());
                        known.minted.push(minted);
                    }
                }
                // Another client was faster: nothing was changed.
                Err(status) if refused(status.code()) => {}
                Err(_gone) => {
                    known.unknown.push((name, events_max));
                    return;
                }
            }
        }
    }

    fn name(&self) -> String {
        let mut known = self.known.lock().expect("no panic");
        known.next_name += 1;
        format!("n{}", known.next_name)
    }

    /// A key that a client has been answered, mostly one of the last.
    fn some_key(&mut self) -> Option<String> {
        let known = self.known.lock().expect("no panic");
        let count = known.keys.len();
        let back = if self.random.below(4) == 0 { count } else { count.min(12) };
        (count > 0).then(|| known.keys[count - 1 - self.random.below(back)].clone())
    }

    fn content(&mut self) -> ApiKey {
        let account_permissions = self.random.some(&ACCOUNT_PERMISSIONS);
        let (teams, permissions) = (self.random.some(&TEAMS), self.random.some(&TEAM_PERMISSIONS));
        let mut content = match teams.is_empty() || permissions.is_empty() {
            true => key(&self.name(), &account_permissions),
            false => team_key(&self.name(), &account_permissions, &teams, &permissions),
        };
        if self.random.below(3) == 0 {
            let seconds = YEAR_2100 + i64::try_from(self.random.below(1_000)).expect("small");
            content.expiry = Some(api_key::Expiry::ExpireTime(prost_types::Timestamp { seconds, nanos: 1_000 }));
        }
        content
    }

    async fn call(&mut self) -> (&'static str, &'static str, usize, Answer) {
        let key = self.some_key();
        match (self.random.below(100), key) {
            (0..25, _) | (_, None) => ("create", ACCOUNT, 1, self.create().await),
            (25..40, Some(key)) => ("update", ACCOUNT, 1, self.update(key).await),
            (40..52, Some(key)) => ("rotate", ACCOUNT, 1, self.rotate(key).await),
            (52..74, Some(key)) => ("change of state", ACCOUNT, 1, self.change_state(key).await),
            (74..80, _) => ("upsert of a user", ACCOUNT, 1, self.upsert_user().await),
            (80..84, _) => ("upsert of teams", ACCOUNT, 3, self.upsert_teams().await),
            (84..87, _) => ("deletion of a team", ACCOUNT, 1, self.delete_team().await),
            (87..90, _) => ("deletion of a user", ACCOUNT, 1, self.delete_user().await),
            (90..94, _) => ("upsert of a role", ACCOUNT, 1, self.upsert_role().await),
            (94..97, _) => ("upsert of an account", SIDE_ACCOUNT, 1, self.upsert_account().await),
            _ => ("suspension", SIDE_ACCOUNT, 1, self.suspend().await),
        }
    }

    async fn create(&mut self) -> Answer {
        let request = requests::create_key(ACCOUNT, &self.content());
        let CreateApiKeyResponse { api_key, token, propagation } =
            self.caller.keys().create_api_key(request).await?.into_inner();
        Ok(seen_minted(api_key, token, propagation))
    }

    async fn rotate(&mut self, key_id: String) -> Answer {
        let at_once = self.random.below(2) == 0;
        let grace_period = at_once.then(prost_types::Duration::default);
        let request =
            RotateApiKeyRequest { skip_propagation_wait: true, ..requests::rotate_key(ACCOUNT, &key_id, grace_period) };
        let RotateApiKeyResponse { api_key, token, propagation } =
            self.caller.keys().rotate_api_key(request).await?.into_inner();
        Ok(seen_minted(api_key, token, propagation))
    }

    async fn update(&mut self, key_id: String) -> Answer {
        let changed = ApiKey { key_id, ..self.content() };
        let paths = ["name", "account_permissions", "team_scope", "expire_time"];
        let request =
            UpdateApiKeyRequest { skip_propagation_wait: true, ..requests::update_key(ACCOUNT, changed, &paths) };
        let UpdateApiKeyResponse { api_key, propagation } =
            self.caller.keys().update_api_key(request).await?.into_inner();
        Ok(seen(propagation, api_key.map(Box::new).map(Seen::Key)))
    }

    async fn change_state(&mut self, key_id: String) -> Answer {
        let (account, key_id) = (ACCOUNT, key_id.as_str());
        let mut keys = self.caller.keys();
        let (api_key, propagation) = match self.random.below(5) {
            0 | 1 => {
                let request =
                    DisableApiKeyRequest { skip_propagation_wait: true, ..requests::disable_key(account, key_id) };
                let answer = keys.disable_api_key(request).await?.into_inner();
                (answer.api_key, answer.propagation)
            }
            2 | 3 => {
                let request =
                    EnableApiKeyRequest { skip_propagation_wait: true, ..requests::enable_key(account, key_id) };
                let answer = keys.enable_api_key(request).await?.into_inner();
                (answer.api_key, answer.propagation)
            }
            _ => {
                let request =
                    DeleteApiKeyRequest { skip_propagation_wait: true, ..requests::delete_key(account, key_id) };
                let answer = keys.delete_api_key(request).await?.into_inner();
                (answer.api_key, answer.propagation)
            }
        };
        Ok(seen(propagation, api_key.map(Box::new).map(Seen::Key)))
    }

    async fn upsert_user(&mut self) -> Answer {
        let team_roles = self.random.some(&TEAMS).into_iter();
        let team_roles = team_roles.map(|team| TeamRole { team_id: team.into(), role_id: "manager".into() });
        let user = User {
            user_id: self.random.one(&["u1", "u2", "u3", "u4"]).into(),
            display_name: self.name(),
            state: if self.random.below(3) == 0 { UserState::Deactivated } else { UserState::Active }.into(),
            base_role_id: self.random.one(&["standard", "admin", "owner"]).into(),
            team_roles: team_roles.collect(),
            ..Default::default()
        };
        let request = UpsertUserRequest { skip_propagation_wait: true, ..requests::upsert_user(ACCOUNT, user) };
        let answer = self.caller.directory().upsert_user(request).await?.into_inner();
        Ok(seen(answer.propagation, answer.user.map(Seen::User)))
    }

    /// Three at once: all or none.
    async fn upsert_teams(&mut self) -> Answer {
        let name = format!("batch {}", self.name());
        let first = self.random.below(4);
        let team = |i: usize| requests::team(TEAMS[(first + i) % TEAMS.len()], &name);
        let request = BatchUpsertTeamsRequest {
            skip_propagation_wait: true,
            ..requests::upsert_teams(ACCOUNT, (0..3).map(team))
        };
        let answer = self.caller.directory().batch_upsert_teams(request).await?.into_inner();
        Ok(seen(answer.propagation, answer.teams.into_iter().map(Seen::Team)))
    }

    async fn delete_team(&mut self) -> Answer {
        let team_id = self.random.one(&TEAMS).to_owned();
        let request = DeleteTeamRequest { skip_propagation_wait: true, ..requests::delete_team(ACCOUNT, &team_id) };
        let answer = self.caller.directory().delete_team(request).await?.into_inner();
        Ok(seen(answer.propagation, [Seen::Gone("team", team_id)]))
    }

    async fn delete_user(&mut self) -> Answer {
        let user_id = self.random.one(&["u1", "u2", "u3", "u4"]).to_owned();
        let request = DeleteUserRequest {
            account_id: ACCOUNT.into(),
            user_id: user_id.clone(),
            skip_propagation_wait: true,
            ..Default::default()
        };
        let answer = self.caller.directory().delete_user(request).await?.into_inner();
        Ok(seen(answer.propagation, [Seen::Gone("user", user_id)]))
    }

    async fn upsert_role(&mut self) -> Answer {
        let role = Role {
            role_id: self.random.one(&["extra", "spare"]).into(),
            display_name: self.name(),
            kind: RoleKind::Custom.into(),
            permissions: strings(&self.random.some(&ACCOUNT_PERMISSIONS)),
            ..Default::default()
        };
        let request = UpsertRoleRequest {
            account_id: ACCOUNT.into(),
            role: Some(role),
            skip_propagation_wait: true,
            ..Default::default()
        };
        let answer = self.caller.directory().upsert_role(request).await?.into_inner();
        Ok(seen(answer.propagation, answer.role.map(Seen::Role)))
    }

    async fn upsert_account(&mut self) -> Answer {
        let request = UpsertAccountRequest {
            skip_propagation_wait: true,
            ..requests::upsert_account(SIDE_ACCOUNT, &self.name())
        };
        let answer = self.caller.directory().upsert_account(request).await?.into_inner();
        Ok(seen(answer.propagation, answer.account.map(Seen::Account)))
    }

    async fn suspend(&mut self) -> Answer {
        let mut directory = self.caller.directory();
        let (account, propagation) = if self.random.below(2) == 0 {
            let request =
                SuspendAccountRequest { skip_propagation_wait: true, ..requests::suspend_account(SIDE_ACCOUNT) };
            let answer = directory.suspend_account(request).await?.into_inner();
            (answer.account, answer.propagation)
        } else {
            let request =
                ResumeAccountRequest { skip_propagation_wait: true, ..requests::resume_account(SIDE_ACCOUNT) };
            let answer = directory.resume_account(request).await?.into_inner();
            (answer.account, answer.propagation)
        };
        Ok(seen(propagation, account.map(Seen::Account)))
    }
}

fn refused(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::FailedPrecondition | Code::InvalidArgument | Code::ResourceExhausted)
}

fn seen(
    propagation: Option<Propagation>,
    objects: impl IntoIterator<Item = Seen>,
) -> (Option<Propagation>, Vec<Seen>, Option<Minted>) {
    (propagation, objects.into_iter().collect(), None)
}

fn seen_minted(
    api_key: Option<ApiKey>,
    token: String,
    propagation: Option<proto::Propagation>,
) -> (Option<Propagation>, Vec<Seen>, Option<Minted>) {
    let api_key = api_key.expect("a key");
    let number = propagation.as_ref().and_then(|propagation| propagation.revision).expect("a revision").number;
    let minted = Minted { key_id: api_key.key_id.clone(), number, token };
    (propagation, vec![Seen::Key(Box::new(api_key))], Some(minted))
}

//! A store of so many keys with a server of its own, and the calls that are made of it.

use std::time::{Duration, Instant};

use latchkey::proto::{
    ApiKey, GetApiKeyRequest, ListApiKeysRequest, TokenCheck, VerificationOutcome as Outcome, VerifyTokenRequest,
    VerifyTokensRequest,
};

use crate::{
    big::{Big, Callers},
    keys::{ACCOUNT_PERMISSIONS, Keys, TEAM_PERMISSIONS, key_id, token},
    support::{
        Caller,
        database::Database,
        ground::{Ground, START_LIMIT, on},
        process::Process,
        server::connect,
        world::{apply_example_catalogue, create, team_key},
    },
};

pub const LOGS: &str = "warn,latchkey=info";
/// What a page has when nothing else is asked for.
pub const PAGE: usize = 50;

pub struct Side {
    pub database: Database,
    /// The operator's token.
    pub operator: String,
    pub server: Process,
    pub caller: Caller,
    /// When the server said that it serves.
    pub serving: Instant,
    keys: Keys,
    /// For calls of the big account.
    callers: Option<Callers>,
    /// Calls of each kind so far.
    made: [u64; Call::ALL.len()],
}

/// What is left of a side whose server ended.
pub struct Ended {
    pub database: Database,
    pub operator: String,
}

#[derive(Clone, Copy)]
pub enum Call {
    List,
    Get,
    Create,
    VerifyMiss,
    ListDeep,
    ListFiltered,
    ListManaged,
    ListUsers,
    ListEvents,
    Identity,
    IdentityOnBehalf,
    Edit,
    Rotate,
    Disable,
}

/// A migrated database with an operator, the example catalogue and so many keys. The operator's token.
pub async fn fill(ground: &Ground, database: &Database, keys: Keys, big: Big) -> String {
    // First: it registers the pepper.
    let operator = on(&database.app_url, &["bootstrap"]).secret_stdout().run(START_LIMIT).success();
    let mut side = Side::start(database.clone(), &operator, keys).await;
    apply_example_catalogue(&side.caller).await;
    side.server.kill();
    let superuser_url = ground.postgres.superuser_url(&database.name);
    big.load(&superuser_url, keys.count, keys.accounts).await;
    keys.load(&superuser_url).await;
    operator
}

/// Verifies these keys in one call.
pub async fn verify_batch(caller: Caller, numbers: Vec<u64>) {
    let checks: Vec<_> = numbers
        .into_iter()
        .map(|number| TokenCheck { token: token(number).reveal().to_owned(), requirement: None })
        .collect();
    let request = VerifyTokensRequest { checks, ..Default::default() };
    let answer = caller.tokens().verify_tokens(request).await.unwrap().into_inner();
    assert!(answer.results.iter().all(|result| result.outcome() == Outcome::Valid));
}

// === impl Call ===

impl Call {
    pub const ALL: [Self; 14] = [
        Self::List,
        Self::Get,
        Self::Create,
        Self::VerifyMiss,
        Self::ListDeep,
        Self::ListFiltered,
        Self::ListManaged,
        Self::ListUsers,
        Self::ListEvents,
        Self::Identity,
        Self::IdentityOnBehalf,
        Self::Edit,
        Self::Rotate,
        Self::Disable,
    ];

    /// Of one account that is as large as the store allows, rather than of any.
    pub fn is_of_big(self) -> bool {
        !matches!(self, Self::List | Self::Get | Self::Create | Self::VerifyMiss)
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get => "get",
            Self::Create => "create",
            Self::VerifyMiss => "verify_miss",
            Self::ListDeep => "list_deep",
            Self::ListFiltered => "list_filtered",
            Self::ListManaged => "list_managed",
            Self::ListUsers => "list_users",
            Self::ListEvents => "list_events",
            Self::Identity => "identity",
            Self::IdentityOnBehalf => "identity_on_behalf",
            Self::Edit => "edit",
            Self::Rotate => "rotate",
            Self::Disable => "disable",
        }
    }
}

// === impl Side ===

impl Side {
    pub async fn start(database: Database, operator: &str, keys: Keys) -> Self {
        Self::start_with(database, operator, keys, &[]).await
    }

    /// With some settings that are not the default.
    pub async fn start_with(database: Database, operator: &str, keys: Keys, settings: &[(&str, String)]) -> Self {
        let mut start = on(&database.app_url, &["serve", "--listen-address", "127.0.0.1:0"]);
        for (name, value) in settings {
            start = start.env(name, value.clone());
        }
        let mut server = start.env("LATCHKEY_LOG_FILTER", LOGS).spawn();
        let address = server.address(START_LIMIT);
        let serving = Instant::now();
        let caller = Caller { channel: connect(address).await, token: operator.to_owned(), on_behalf_of: None };
        Self {
            database,
            operator: operator.to_owned(),
            server,
            caller,
            serving,
            keys,
            callers: None,
            made: Default::default(),
        }
    }

    /// Makes it ready for calls of the big account.
    pub async fn with_big(self, big: Big) -> Self {
        let callers = Some(Callers::new(&self.caller, big).await);
        Self { callers, ..self }
    }

    /// Makes so many calls of a kind, one after the other, none with what an earlier one asked for: their spans.
    pub async fn calls(&mut self, call: Call, count: usize) -> Vec<Duration> {
        let mut spans = Vec::with_capacity(count);
        for _ in 0..count {
            let made = self.made[call as usize];
            let number = self.keys.scattered(made);
            self.made[call as usize] += 1;
            let big = || self.callers.as_ref().expect("a side for calls of the big account");
            spans.push(match call {
                Call::List => self.list(number).await,
                Call::Get => self.get(number).await,
                Call::Create => self.create(number).await,
                Call::VerifyMiss => self.verify_miss(number).await,
                Call::ListDeep => big().list_deep().await,
                Call::ListFiltered => big().list_filtered().await,
                Call::ListManaged => big().list_managed(made).await,
                Call::ListUsers => big().list_users().await,
                Call::ListEvents => big().list_events().await,
                Call::Identity => big().identity().await,
                Call::IdentityOnBehalf => big().identity_on_behalf(made).await,
                Call::Edit => big().edit(made).await,
                Call::Rotate => big().rotate(made).await,
                Call::Disable => big().disable(made).await,
            });
        }
        spans
    }

    /// What it has.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// Lists each account once.
    pub async fn list_all(&self) -> Vec<Duration> {
        let mut spans = Vec::new();
        for number in 0..self.keys.accounts {
            spans.push(self.list(number).await);
        }
        spans
    }

    /// The first page of an account's keys.
    async fn list(&self, number: u64) -> Duration {
        let request = ListApiKeysRequest { account_id: self.keys.account(number), ..Default::default() };
        let mut client = self.caller.keys();
        let sent = Instant::now();
        let page = client.list_api_keys(request).await.unwrap().into_inner();
        let span = sent.elapsed();
        assert_eq!(page.api_keys.len(), PAGE);
        span
    }

    async fn get(&self, number: u64) -> Duration {
        let request = GetApiKeyRequest { account_id: self.keys.account(number), key_id: key_id(number) };
        let mut client = self.caller.keys();
        let sent = Instant::now();
        client.get_api_key(request).await.unwrap();
        sent.elapsed()
    }

    async fn create(&self, number: u64) -> Duration {
        let account = self.keys.account(number);
        let sent = Instant::now();
        create(&self.caller, &account, &new_key()).await.unwrap();
        sent.elapsed()
    }

    /// Of a key that the server has not been asked for.
    async fn verify_miss(&self, number: u64) -> Duration {
        let request = VerifyTokenRequest { token: token(number).reveal().to_owned(), ..Default::default() };
        let mut client = self.caller.tokens();
        let sent = Instant::now();
        let answer = client.verify_token(request).await.unwrap().into_inner();
        let span = sent.elapsed();
        assert_eq!(answer.verification.unwrap().outcome(), Outcome::Valid);
        span
    }
}

/// Like those that were loaded.
pub fn new_key() -> ApiKey {
    team_key("created", &ACCOUNT_PERMISSIONS, &["team-0", "team-1"], &TEAM_PERMISSIONS)
}

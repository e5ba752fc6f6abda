//! A real server on a real socket and a database of its own, and callers that come in by the public door.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use latchkey::{
    app::types::{ApiKeyDraft, Expiry},
    domain::permissions::grants::Grants,
    proto::{
        api_key_service_client::ApiKeyServiceClient, directory_service_client::DirectoryServiceClient,
        event_service_client::EventServiceClient, token_service_client::TokenServiceClient,
    },
    server::{self, RunningServer},
    settings::{self, Flags, Settings},
    telemetry::Metrics,
};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use super::{
    database::{self, Database},
    logs, random,
};

const PEPPER_VARIABLE: &str = "LATCHKEY_TEST_PEPPER";
const SECOND_PEPPER_VARIABLE: &str = "LATCHKEY_TEST_SECOND_PEPPER";
/// The setting `peppers` of a server that has a newer one beside the tests'.
pub const TWO_PEPPERS: &str = "new=env:LATCHKEY_TEST_SECOND_PEPPER,test=env:LATCHKEY_TEST_PEPPER";

/// A server of a test's own; it stops with the test's runtime.
pub struct Server {
    pub running: RunningServer,
    pub database: Database,
    pub channel: Channel,
    /// Holds `system.operate`.
    pub operator: Caller,
}

/// A caller: a bearer token, perhaps for a user.
#[derive(Clone)]
pub struct Caller {
    pub channel: Channel,
    pub token: String,
    pub on_behalf_of: Option<String>,
}

pub type Service = InterceptedService<Channel, Headers>;

/// Adds a caller's metadata to each request.
#[derive(Clone)]
pub struct Headers {
    authorization: MetadataValue<Ascii>,
    on_behalf_of: Option<MetadataValue<Ascii>>,
}

impl Server {
    /// Starts a server with the settings of the tests.
    pub async fn start() -> Self {
        Self::start_with(|flags| flags).await
    }

    /// Starts a server with some settings changed.
    pub async fn start_with(change: impl FnOnce(Flags) -> Flags) -> Self {
        Self::start_on(database::fresh().await, change).await
    }

    /// Starts a server on a database that is there already.
    pub async fn start_on(database: Database, change: impl FnOnce(Flags) -> Flags) -> Self {
        logs::start();
        let settings = settings(&database.app_url, change);
        let running = server::start(&settings, Arc::new(Metrics::new())).await.expect("the server starts");
        let channel = connect(running.address()).await;
        let draft = ApiKeyDraft {
            name: "operator".into(),
            comment: String::new(),
            metadata: Default::default(),
            grants: Grants { account_permissions: ["system.operate".to_owned()].into(), team_scope: None },
            expiry: Expiry::Never,
        };
        let minted = running.app().bootstrap(draft).await.expect("bootstrap mints");
        let token = minted.token.expect("a minted key has a token").reveal().to_owned();
        let operator = Caller { channel: channel.clone(), token, on_behalf_of: None };
        Self { running, database, channel, operator }
    }

    /// A caller with a bearer token.
    pub fn caller(&self, token: &str) -> Caller {
        Caller { channel: self.channel.clone(), token: token.to_owned(), on_behalf_of: None }
    }
}

/// The settings of the tests: port 0, few connections, one pepper a process.
pub fn settings(database_url: &str, change: impl FnOnce(Flags) -> Flags) -> Settings {
    let flags = Flags::default()
        .with("listen_address", "127.0.0.1:0")
        .with("database_url", database_url)
        .with("database_pool_size_max", "4")
        .with("verify_pool_size_max", "2")
        .with("poll_interval_ms", "200")
        .with("peppers", format!("test=env:{PEPPER_VARIABLE}"));
    // A second one, for tests that name it: the same digits the other way round.
    let second = pepper().chars().rev().collect();
    let environment = [(PEPPER_VARIABLE.to_owned(), pepper().to_owned()), (SECOND_PEPPER_VARIABLE.to_owned(), second)];
    settings::load(&change(flags), environment).expect("the settings of the tests are good")
}

/// The process's pepper, 64 hex digits.
pub fn pepper() -> &'static str {
    static PEPPER: OnceLock<String> = OnceLock::new();
    PEPPER.get_or_init(|| {
        let bytes = random::fresh_bytes::<32>();
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        logs::keep_secret("pepper", &text);
        text
    })
}

/// The metadata `authorization` of a caller.
pub fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

pub async fn connect(address: SocketAddr) -> Channel {
    Channel::from_shared(format!("http://{address}")).expect("a URL").connect().await.expect("the server accepts")
}

impl Caller {
    /// The same caller, for a user of an account (A6).
    pub fn for_user(&self, account: &str, user: &str) -> Self {
        Self { on_behalf_of: Some(format!("{account}/users/{user}")), ..self.clone() }
    }

    pub fn keys(&self) -> ApiKeyServiceClient<Service> {
        ApiKeyServiceClient::with_interceptor(self.channel.clone(), self.headers())
    }

    pub fn tokens(&self) -> TokenServiceClient<Service> {
        TokenServiceClient::with_interceptor(self.channel.clone(), self.headers())
    }

    pub fn directory(&self) -> DirectoryServiceClient<Service> {
        DirectoryServiceClient::with_interceptor(self.channel.clone(), self.headers())
    }

    pub fn events(&self) -> EventServiceClient<Service> {
        EventServiceClient::with_interceptor(self.channel.clone(), self.headers())
    }

    fn headers(&self) -> Headers {
        let value = |text: String| text.parse().expect("ASCII");
        let authorization = value(bearer(&self.token));
        Headers { authorization, on_behalf_of: self.on_behalf_of.clone().map(value) }
    }
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.authorization.clone());
        if let Some(user) = &self.on_behalf_of {
            request.metadata_mut().insert("latchkey-on-behalf-of", user.clone());
        }
        Ok(request)
    }
}

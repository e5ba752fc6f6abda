//! Opens the database: connects, checks the schema, the role and the peppers.

use std::{sync::Arc, time::Duration};

use tokio::runtime::Handle;

use super::{
    limits::{app_limits, lane_sizes, verify_limits},
    replica_name::identity,
    role,
};
use crate::{
    app::{App, mint::Minter},
    domain::token::Pepper,
    entropy::OsEntropy,
    server::{error::StartError, observe},
    settings::Settings,
    store::{PostgresStore, StoreOptions, migrate::SchemaStatus, replica::peppers::PepperError},
    telemetry::Metrics,
    verify::{Follower, Verifier, clock::BootClock},
};

/// An opened database: the use-cases on it, and what must run beside them.
pub struct OpenedDatabase {
    /// The use-cases.
    pub app: App,
    pub(super) store: PostgresStore,
    pub(super) verifier: Arc<Verifier>,
    pub(super) follower: Follower,
}

/// Opens the database: connects, checks the schema and the peppers.
///
/// # Errors
/// [`StartError`].
pub async fn open(settings: &Settings) -> Result<OpenedDatabase, StartError> {
    open_for(Purpose::Command, settings, Arc::new(Metrics::new())).await
}

/// What a database is opened for.
pub(super) enum Purpose {
    /// An operator's command, with the database's own credentials and whatever role they name.
    Command,
    /// A server, whose bulk reads are driven on this runtime.
    Serving(Handle),
}

pub(super) async fn open_for(
    purpose: Purpose,
    settings: &Settings,
    metrics: Arc<Metrics>,
) -> Result<OpenedDatabase, StartError> {
    let (is_server, bulk) = match purpose {
        Purpose::Command => (false, Handle::current()),
        Purpose::Serving(bulk) => (true, bulk),
    };
    let options = StoreOptions {
        url: settings.database_url.expose().to_owned(),
        sizes: lane_sizes(settings),
        timeout: Duration::from_millis(settings.database_timeout_ms),
        pepper_ids: settings.peppers.all().iter().map(|pepper| pepper.id.clone()).collect(),
        runtime: Handle::current(),
        bulk,
    };
    let unusable = |source| StartError::Database { address: settings.database_url.redacted(), source };
    let store = PostgresStore::connect(options).map_err(unusable)?;
    check_schema(store.schema_status().await.map_err(unusable)?)?;
    if is_server {
        role::check(&store.powers().await.map_err(unusable)?, settings)?;
    }
    store.record_identity().await.map_err(unusable)?;
    let live = live_peppers(settings);
    // Checked before the peppers are registered: a server that does not start leaves nothing behind.
    let missing = store.missing_peppers().await.map_err(unusable)?;
    if !missing.is_empty() {
        return Err(StartError::Pepper(format!(
            "live tokens need peppers that are not configured: {}; add them to the setting `peppers`",
            missing.join(", ")
        )));
    }
    store.register_peppers(&live).await.map_err(|error| match error {
        PepperError::Store(error) => unusable(error),
        differs @ PepperError::Differs(_) => StartError::Pepper(format!(
            "{differs}: give it the secret that it had, or give the new secret an id of its own"
        )),
    })?;
    let limits = verify_limits(settings);
    let primary = Arc::new(store.clone());
    let (verifier, follower) = Verifier::new(primary, Arc::new(BootClock), live.clone(), limits, identity());
    let verifier = Arc::new(verifier);
    let minter = Minter::new(settings.token_prefix.clone(), live, Box::new(OsEntropy));
    let observer = Arc::new(observe::Mutations(metrics));
    let app = App::new(Arc::new(store.clone()), verifier.clone(), minter, app_limits(settings), observer);
    Ok(OpenedDatabase { app, store, verifier, follower })
}

fn check_schema(status: SchemaStatus) -> Result<(), StartError> {
    let message = match status {
        SchemaStatus::Current => return Ok(()),
        SchemaStatus::Behind(names) => {
            format!("the schema is behind ({}): run `latchkey migrate`", names.join(", "))
        }
        SchemaStatus::Unknown(names) => {
            format!("the schema is of a later release ({}): run that release", names.join(", "))
        }
    };
    Err(StartError::Schema(message))
}

fn live_peppers(settings: &Settings) -> Vec<Pepper> {
    settings.peppers.all().iter().map(|pepper| Pepper::new(pepper.id.clone(), &pepper.secret)).collect()
}

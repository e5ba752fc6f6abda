//! `latchkey dev`: the whole of Latchkey on a private real PostgreSQL, ready to be tried.

mod demo;
mod folder;
mod welcome;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Failure, bootstrap::operator_key, start_telemetry, stop_signal};
use crate::{
    app::{App, Error, types::Expiry},
    domain::{Error as RuleError, ObjectKind, token::PlainToken},
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    server::{self, Running},
    settings::{self, Flags, Settings},
    store::migrate,
    telemetry::Metrics,
};

const KEY_NAME: &str = "latchkey dev";

#[derive(clap::Args)]
#[command(
    after_help = "A second run on the same folder keeps the data. Each run mints a new system token and deletes the key of the \
                        last one. PostgreSQL's own programs (14 to 18) must be on the machine."
)]
pub(super) struct Args {
    /// Where the data lives; made if it is missing.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port on 127.0.0.1; 0 takes any free one.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// Print one line of JSON on standard output when ready, instead of the tour.
    #[arg(long)]
    json: bool,
}

/// All that `latchkey dev` started, in the order of stopping.
struct Started {
    server: Running,
    postgres: PrivatePostgres,
    token: PlainToken,
    database_url: String,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let data_dir = args.data_dir.clone().map_or_else(folder::default, Ok)?;
    let data_dir = std::path::absolute(data_dir)?;
    let settings = dev_settings(args.port, &data_dir, "postgres://not-started-yet/")?;
    let (telemetry, metrics) = start_telemetry(settings.log_format, &settings.log_filter)?;
    let result = until_stopped(&args, &data_dir, metrics).await;
    telemetry.shutdown().await;
    result
}

async fn until_stopped(args: &Args, data_dir: &Path, metrics: Arc<Metrics>) -> Result<(), Failure> {
    let stop = stop_signal();
    tokio::pin!(stop);
    let started = tokio::select! {
        started = start(args, data_dir, metrics) => started?,
        stopped = &mut stop => return Ok(stopped?),
    };
    let address = started.server.address();
    if args.json {
        welcome::json(address, &started.token, &started.database_url)?;
    } else {
        welcome::tour(address, &started.token, data_dir)?;
    }
    stop.await?;
    if !args.json {
        eprintln!("\nstopping the server and PostgreSQL; the data stays in {}", data_dir.display());
    }
    started.server.stop().await;
    started.postgres.stop().await?;
    Ok(())
}

async fn start(args: &Args, data_dir: &Path, metrics: Arc<Metrics>) -> Result<Started, Failure> {
    let postgres = PrivatePostgres::start(Options::durable(data_dir)).await?;
    postgres.create_roles_and_database().await?;
    migrate::migrate(&postgres.owner_url(DATABASE)?, APP_ROLE, |_| {}).await?;
    let database_url = postgres.app_url(DATABASE)?;
    let settings = dev_settings(args.port, data_dir, &database_url)?;
    let server = server::start(&settings, metrics).await?;
    let app = server.app();
    let token = fresh_token(app, data_dir).await?;
    demo::seed(app, &token).await?;
    Ok(Started { server, postgres, token, database_url })
}

/// The settings of a server on the private PostgreSQL. What the environment says of a server in earnest
/// (its database, its peppers) is not for this one.
fn dev_settings(port: u16, data_dir: &Path, database_url: &str) -> Result<Settings, Failure> {
    let kept = |name: &str| name.starts_with("LATCHKEY_LOG_") || name == "LATCHKEY_POSTGRES_BIN";
    let environment = settings::process_environment().filter(|(name, _)| !name.starts_with("LATCHKEY_") || kept(name));
    let flags = Flags::default()
        .with("listen_address", format!("127.0.0.1:{port}"))
        .with("peppers", folder::pepper_setting(data_dir)?)
        .with("database_url", database_url);
    Ok(settings::load(&flags, environment)?)
}

/// Mints this run's operator key, then deletes the last run's (K4: a token cannot be shown twice).
async fn fresh_token(app: &App, data_dir: &Path) -> Result<PlainToken, Failure> {
    let minted = app.bootstrap(operator_key(KEY_NAME.to_owned(), Expiry::Never)).await?;
    let last = folder::remember_key(data_dir, minted.key.key_id)?;
    if let Some(last) = last {
        match app.delete_bootstrapped(last).await {
            Ok(()) | Err(Error::Rule(RuleError::NotFound(ObjectKind::ApiKey))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    minted.token.ok_or_else(|| "no token was minted".into())
}

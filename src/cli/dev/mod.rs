//! `latchkey dev`: the whole of Latchkey on a private real PostgreSQL, ready to be tried.

mod demo;
mod folder;
mod welcome;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    database::bootstrap::operator_key,
    failure::Failure,
    process::{StopSignals, with_telemetry},
};
use crate::{
    app::{App, AppError, types::Expiry},
    domain::{Error as RuleError, ObjectKind, token::PlainToken},
    private_postgres::{APP_ROLE, DATABASE, Options, PrivatePostgres},
    server::{self, RunningServer, StartError},
    settings::{self, Flags, Settings},
    store::migrate,
    telemetry::Metrics,
};

const KEY_NAME: &str = "latchkey dev";
/// Short, because a person waits at the terminal for it to stop.
const DRAIN_TIMEOUT_S: &str = "2";
/// How often to check that PostgreSQL still runs.
const ALIVE_PERIOD: Duration = Duration::from_millis(500);

#[derive(clap::Args)]
#[command(
    after_help = "A second run on the same folder keeps the data. Each run mints a new system token and deletes the key of the \
                  previous run. The PostgreSQL server programs (14 to 18) must be installed."
)]
pub(super) struct DevArgs {
    /// Where the data lives; created if missing.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Port on 127.0.0.1; 0 picks any free port.
    #[arg(long, default_value_t = 50051)]
    port: u16,
    /// Print one line of JSON to standard output when ready, instead of the tour.
    #[arg(long)]
    json: bool,
}

/// Holds all that `latchkey dev` started.
struct Started {
    server: RunningServer,
    postgres: PrivatePostgres,
    token: PlainToken,
    database_url: String,
}

pub(super) async fn run(args: DevArgs) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let data_dir = args.data_dir.clone().map_or_else(folder::default, Ok)?;
    let data_dir = std::path::absolute(data_dir)?;
    // The other settings need the data folder, which is not ours before PostgreSQL has taken its lock.
    let logs = settings::load_database(&Flags::default().with("database_url", "postgres://later/"), environment())?;
    with_telemetry(logs.log(), async |metrics| until_stopped(&args, &data_dir, metrics, &mut signals).await).await
}

async fn until_stopped(
    args: &DevArgs,
    data_dir: &Path,
    metrics: Arc<Metrics>,
    signals: &mut StopSignals,
) -> Result<(), Failure> {
    check_port(args.port)?;
    let mut started = tokio::select! {
        // Dropping `start` stops what it has started so far.
        () = signals.next() => return Ok(()),
        started = start(args, data_dir, metrics) => started?,
    };
    let result = match welcome(args, data_dir, &started) {
        Err(failure) => Err(failure),
        Ok(()) => tokio::select! {
            () = signals.next() => Ok(()),
            ended = started.server.ended() => Err(ended.into()),
            () = postgres_ended(&mut started.postgres) => Err(format!(
                "PostgreSQL exited unexpectedly; its log is in {}",
                started.postgres.data_dir().join("postgres").display()
            ).into()),
        },
    };
    if !args.json {
        eprintln!("\nstopping the server and PostgreSQL; the data remains in {}", data_dir.display());
    }
    let Started { server, postgres, .. } = started;
    let stopped = signals.or_cut_off(async {
        server.stop().await;
        postgres.stop().await
    });
    stopped.await??;
    result
}

fn welcome(args: &DevArgs, data_dir: &Path, started: &Started) -> Result<(), Failure> {
    let Started { server, token, database_url, .. } = started;
    if args.json {
        welcome::json(server.address(), token, database_url)
    } else {
        welcome::tour(server.address(), token, data_dir)
    }
}

/// Refuses a port that is taken before a cluster is made for nothing. The port may still be lost later.
fn check_port(port: u16) -> Result<(), StartError> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).map(drop).map_err(|source| StartError::Listen { address, source })
}

/// Waits until PostgreSQL has exited by itself.
async fn postgres_ended(postgres: &mut PrivatePostgres) {
    let mut ticks = tokio::time::interval(ALIVE_PERIOD);
    while !postgres.ended() {
        ticks.tick().await;
    }
}

async fn start(args: &DevArgs, data_dir: &Path, metrics: Arc<Metrics>) -> Result<Started, Failure> {
    let postgres = PrivatePostgres::start(Options::durable(data_dir)).await?;
    postgres.create_roles_and_database().await?;
    migrate::migrate(&postgres.owner_url(DATABASE)?, APP_ROLE, |_| {}).await?;
    let database_url = postgres.app_url(DATABASE)?;
    let settings = dev_settings(args.port, data_dir, &database_url)?;
    let server = server::start_private(&settings, metrics).await?;
    let app = server.app();
    let token = fresh_token(app, data_dir).await?;
    demo::seed(app, &token).await?;
    Ok(Started { server, postgres, token, database_url })
}

/// Builds the settings of the server on the private PostgreSQL.
fn dev_settings(port: u16, data_dir: &Path, database_url: &str) -> Result<Settings, Failure> {
    let flags = Flags::default()
        .with("listen_address", format!("127.0.0.1:{port}"))
        .with("peppers", folder::pepper_setting(data_dir)?)
        .with("drain_timeout_s", DRAIN_TIMEOUT_S)
        .with("database_url", database_url);
    Ok(settings::load(&flags, environment())?)
}

/// Reads the environment without the settings of a production server (its database, its peppers), which must not reach
/// this one.
fn environment() -> impl Iterator<Item = (String, String)> {
    let kept = |name: &str| name.starts_with("LATCHKEY_LOG_") || name == "LATCHKEY_POSTGRES_BIN";
    settings::process_environment().filter(move |(name, _)| !name.starts_with("LATCHKEY_") || kept(name))
}

/// Mints this run's operator key, then deletes those of earlier runs, whose tokens cannot be shown again (K4).
async fn fresh_token(app: &App, data_dir: &Path) -> Result<PlainToken, Failure> {
    let minted = app.bootstrap(operator_key(KEY_NAME.to_owned(), Expiry::Never)).await?;
    for earlier in folder::add_key(data_dir, minted.key.key_id)? {
        match app.delete_bootstrapped(earlier).await {
            Ok(()) | Err(AppError::Rule(RuleError::NotFound(ObjectKind::ApiKey))) => {}
            Err(error) => return Err(error.into()),
        }
    }
    folder::keep_only_key(data_dir, minted.key.key_id)?;
    minted.token.ok_or_else(|| "no token was minted".into())
}

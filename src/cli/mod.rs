//! The command line: declares the commands and dispatches to them. What they share is in files of their own.

mod check_config;
mod database;
mod dev;
mod environment;
mod events;
mod failure;
mod process;
mod serve;

use std::{process::ExitCode, time::Duration};

use clap::{Parser, Subcommand};

use self::{
    database::{accept_history, bootstrap, catalogue, erase_personal_data, migrate},
    failure::Failure,
};

#[derive(Parser)]
#[command(
    name = "latchkey",
    version,
    about = "Owns API keys: who may mint them, what they may do, and whether a bearer token is good right now.",
    after_help = "Start with `latchkey dev`: a private PostgreSQL, a demo account, the server, and grpcurl commands to paste.\n\
                  On your own database, run `latchkey migrate`, `latchkey catalogue apply FILE`, `latchkey bootstrap` and\n\
                  then `latchkey serve`. Settings come from a TOML file, LATCHKEY_... environment variables and flags: see\n\
                  `latchkey check-config --help`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server on your own database.
    Serve(serve::ServeArgs),
    /// Run everything on a private PostgreSQL, with a demo account, until Ctrl-C.
    Dev(dev::DevArgs),
    /// Bring the database schema and the application role's privileges up to date.
    Migrate(migrate::MigrateArgs),
    /// Mint a key that holds system.operate: the first one, or another when all others are lost.
    Bootstrap(bootstrap::BootstrapArgs),
    /// Change the permission catalogue.
    #[command(subcommand)]
    Catalogue(catalogue::CatalogueCommand),
    /// Accept the database's history after a failover or a restore, so that replicas follow it.
    AcceptHistory(accept_history::AcceptHistoryArgs),
    /// Erase the text that people typed from past events and deleted objects.
    ErasePersonalData(erase_personal_data::ErasePersonalDataArgs),
    /// Archive the oldest events, and verify archives.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Check the settings and print the values in effect, with secrets redacted.
    CheckConfig(check_config::CheckConfigArgs),
}

/// How long work that still runs when a command is done may hold up the end of the process.
const REST_OF_WORK_WAIT: Duration = Duration::from_millis(200);

/// Parses this process's arguments and runs the command that they name.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    process::use_small_pages();
    // A thread that sleeps keeps nothing of a replica's cache alive.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(cli.command));
            // A DNS lookup that hangs must not keep a finished command from exiting.
            runtime.shutdown_timeout(REST_OF_WORK_WAIT);
            result
        }
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure::print(failure.as_ref());
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Serve(args) => serve::run(args).await,
        Command::Dev(args) => dev::run(args).await,
        Command::Migrate(args) => migrate::run(args).await,
        Command::Bootstrap(args) => bootstrap::run(args).await,
        Command::Catalogue(command) => catalogue::run(command).await,
        Command::AcceptHistory(args) => accept_history::run(args).await,
        Command::ErasePersonalData(args) => erase_personal_data::run(args).await,
        Command::Events(command) => events::run(command).await,
        Command::CheckConfig(args) => check_config::run(&args),
    }
}

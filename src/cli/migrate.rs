//! `latchkey migrate`.

use super::{Failure, start_telemetry};
use crate::{settings, store::migrate};

#[derive(clap::Args)]
#[command(
    after_help = "Run it as the role that owns the tables; `latchkey serve` then runs as the application's role, \
                        which can read and append events but never change or delete them."
)]
pub(super) struct Args {
    /// The role that `latchkey serve` connects as; created without login if it is missing.
    #[arg(long, value_name = "ROLE", default_value = "latchkey_app")]
    app_role: String,
    #[command(flatten)]
    flags: settings::Flags,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let settings = settings::load_database(&args.flags, settings::process_environment())?;
    let (telemetry, _) = start_telemetry(settings.log_format, &settings.log_filter)?;
    let result =
        migrate::migrate(settings.database_url.expose(), &args.app_role, |name| println!("running {name}")).await;
    telemetry.shutdown().await;
    let applied = result?;
    println!("the schema is up to date ({} migrations run); role {} has its privileges", applied.len(), args.app_role);
    Ok(())
}

//! `latchkey migrate`.

use super::{
    Failure,
    process::{say, with_telemetry},
};
use crate::{settings, store::migrate};

#[derive(clap::Args)]
#[command(
    after_help = "Run this as the role that owns the tables; `latchkey serve` then runs as the application role, which can \
                  read and append events but never change or delete them. A role that this command creates cannot log in \
                  until you run: ALTER ROLE latchkey_app LOGIN PASSWORD '...'. Running the command again changes nothing."
)]
pub(super) struct Args {
    /// The role that `latchkey serve` connects as; created without login if missing.
    #[arg(long, value_name = "ROLE", default_value = "latchkey_app")]
    app_role: String,
    #[command(flatten)]
    flags: settings::Flags,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let settings = settings::load_database(&args.flags, settings::process_environment())?;
    with_telemetry(settings.log(), async |_| {
        // Nobody may be reading: no reason to leave a migration half run.
        let progress = |name: &str| drop(say(format_args!("running {name}")));
        let applied = migrate::migrate(settings.database_url.expose(), &args.app_role, progress).await?;
        let (count, role) = (applied.len(), &args.app_role);
        Ok(say(format_args!(
            "the schema is up to date ({count} migrations run); role {role} has the privileges it needs"
        ))?)
    })
    .await
}

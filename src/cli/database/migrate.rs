//! `latchkey migrate`.

use crate::{
    cli::{
        environment::load_database,
        failure::Failure,
        process::{print_line, with_telemetry},
    },
    settings::Flags,
    store::migrate,
};

#[derive(clap::Args)]
#[command(
    after_help = "Run this as the role that owns the tables; `latchkey serve` then runs as the application role, which can \
                  read and append events but never change or delete them. A role that this command creates cannot log in \
                  until you run: ALTER ROLE latchkey_app LOGIN PASSWORD '...'. Running the command again changes nothing."
)]
pub(crate) struct MigrateArgs {
    /// The role that `latchkey serve` connects as; created without login if missing.
    #[arg(long, value_name = "ROLE", default_value = "latchkey_app")]
    app_role: String,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(args: MigrateArgs) -> Result<(), Failure> {
    let settings = load_database(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        // A closed standard output is no reason to leave a migration half run.
        let progress = |name: &str| drop(print_line(format_args!("running {name}")));
        let applied = migrate::migrate(settings.database_url.expose(), &args.app_role, progress).await?;
        let (count, role) = (applied.len(), &args.app_role);
        Ok(print_line(format_args!(
            "the schema is up to date ({count} migrations run); role {role} has the privileges it needs"
        ))?)
    })
    .await
}

//! `latchkey catalogue apply` (P1).

use std::path::PathBuf;

use super::{Failure, catalogue_file, load, offline, start_telemetry};
use crate::settings::Flags;

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Replace the catalogue by that of a TOML file: the whole of it, retired permissions included.
    Apply(Args),
}

#[derive(clap::Args)]
pub(super) struct Args {
    /// The catalogue; deploy/catalogue.toml is an example.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Check the file against the database and change nothing.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    let Command::Apply(args) = command;
    let text = std::fs::read_to_string(&args.file).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let spec = catalogue_file::parse(&text).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let settings = load(&args.flags)?;
    let (telemetry, _) = start_telemetry(settings.log_format, &settings.log_filter)?;
    let app = offline::open(&settings).await?;
    let applied = app.apply_catalogue_locally(spec, args.validate_only).await?;
    telemetry.shutdown().await;
    let permissions = applied.value.catalogue.permissions();
    let retired = permissions.iter().filter(|permission| permission.spec.retired).count();
    let verb = if args.validate_only { "would have" } else { "has" };
    println!("the catalogue {verb} {} permissions, {retired} of them retired", permissions.len());
    Ok(())
}

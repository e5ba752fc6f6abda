//! `latchkey catalogue apply` (P1).

use std::path::{Path, PathBuf};

use super::{catalogue_file, offline};
use crate::{
    app::{
        AppError,
        types::{Changed, Propagation},
    },
    cli::{
        environment::load,
        failure::Failure,
        process::{print_line, with_telemetry},
    },
    domain::Error as RuleError,
    settings::Flags,
};

#[derive(clap::Subcommand)]
pub(crate) enum CatalogueCommand {
    /// Replace the whole catalogue, retired permissions included, with that of a TOML file.
    Apply(CatalogueApplyArgs),
}

#[derive(clap::Args)]
pub(crate) struct CatalogueApplyArgs {
    /// The catalogue; see deploy/catalogue.toml for an example.
    #[arg(value_name = "FILE.toml")]
    file: PathBuf,
    /// Check the file against the database without changing anything.
    #[arg(long)]
    validate_only: bool,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(command: CatalogueCommand) -> Result<(), Failure> {
    let CatalogueCommand::Apply(args) = command;
    let text = std::fs::read_to_string(&args.file).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let spec = catalogue_file::parse(&text).map_err(|error| format!("{}: {error}", args.file.display()))?;
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let app = offline::open(&settings).await?;
        let names: Vec<String> = spec.permissions.iter().map(|permission| permission.name.clone()).collect();
        let applied = app.apply_catalogue_locally(spec, args.validate_only).await;
        let (Changed { value: view, propagation }, differs) =
            applied.map_err(|error| in_terms_of_the_file(error, &args.file, &names))?;
        let permissions = view.catalogue.permissions();
        let retired = permissions.iter().filter(|permission| permission.spec.retired).count();
        let what = match (differs, args.validate_only) {
            (false, _) => "is unchanged",
            (true, false) => "was replaced",
            (true, true) => "would be replaced",
        };
        let count = permissions.len();
        print_line(format_args!("the catalogue {what}: {count} permissions, {retired} of them retired"))?;
        if !args.validate_only && !propagation.complete {
            eprintln!("{}", not_everywhere(&propagation));
        }
        Ok(())
    })
    .await
}

/// Warns of replicas that have not confirmed the new catalogue, and says how to wait for them.
fn not_everywhere(Propagation { revision, pending_replicas, .. }: &Propagation) -> String {
    let replicas = if *pending_replicas == 1 { "replica has" } else { "replicas have" };
    format!(
        "warning: {pending_replicas} {replicas} not confirmed revision {revision} and may use the previous catalogue until \
         then, or until the end of their lease_ms and stale_max_ms; apply the same file again to wait again"
    )
}

/// Lists each problem with the catalogue's content on a line of its own, with the permission's name. Other errors stay
/// as they are.
fn in_terms_of_the_file(error: AppError, file: &Path, names: &[String]) -> Failure {
    let AppError::Rule(RuleError::Invalid(violations)) = error else { return error.into() };
    let mut text = format!("{} cannot be applied:", file.display());
    for violation in violations {
        let field = violation.field.trim_start_matches("catalogue.");
        let index = field.strip_prefix("permissions[").and_then(|rest| rest.split(']').next()?.parse::<usize>().ok());
        let name = index.and_then(|index| names.get(index)).map(|name| format!(" of `{}`", name.escape_debug()));
        text.push_str(&format!("\n  {field}{}: {}", name.unwrap_or_default(), violation.description));
    }
    text.into()
}

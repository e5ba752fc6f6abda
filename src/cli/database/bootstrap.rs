//! `latchkey bootstrap`: the only way to a key that holds `system.operate` (A4).

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Write, stdout},
};

use super::offline;
use crate::{
    app::types::{ApiKeyDraft, Expiry},
    cli::{environment::load, failure::Failure, process::with_telemetry},
    domain::{
        permissions::{grants::Grants, permission::SystemPermission},
        text,
        time::Span,
    },
    settings::Flags,
};

#[derive(clap::Args)]
#[command(
    after_help = "The token is printed once, on its own, to standard output. Guard it like a root password, and delete the \
                  key (DeleteApiKey in account `system`) when it is no longer needed. The command can be repeated."
)]
pub(crate) struct BootstrapArgs {
    /// Name of the key, to tell it from others.
    #[arg(long, default_value = "operator")]
    name: String,
    /// Expire the key after this many hours; it never expires if omitted.
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..))]
    ttl_hours: Option<u32>,
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(args: BootstrapArgs) -> Result<(), Failure> {
    text::check_name("--name", &args.name)?;
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let app = offline::open(&settings).await?;
        let hours = |hours: u32| Span::from_secs(hours.saturating_mul(60 * 60));
        let expiry = args.ttl_hours.map_or(Expiry::Never, |ttl| Expiry::In(hours(ttl)));
        let minted = app.bootstrap(operator_key(args.name, expiry)).await?;
        let key_id = minted.key.key_id;
        eprintln!("minted {key_id} in account system, holding system.operate");
        let token = minted.token.ok_or("no token was minted")?;
        let mut out = stdout().lock();
        let printed = writeln!(out, "{}", token.reveal()).and_then(|()| out.flush());
        Ok(printed.map_err(|error| format!("cannot print the token, so delete {key_id}: {error}"))?)
    })
    .await
}

/// Drafts a key that holds `system.operate`.
pub(crate) fn operator_key(name: String, expiry: Expiry) -> ApiKeyDraft {
    let account_permissions = BTreeSet::from([SystemPermission::Operate.name().to_owned()]);
    let grants = Grants { account_permissions, team_scope: None };
    ApiKeyDraft { name, comment: String::new(), metadata: BTreeMap::new(), grants, expiry }
}

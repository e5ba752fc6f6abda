//! `latchkey check-config`.

use super::{Failure, load, process::say};
use crate::settings::{Effective, Flags};

#[derive(clap::Args)]
#[command(
    after_help = "Each setting is taken from the first that has it: its flag, its LATCHKEY_... variable, the TOML file of --config \
                  or LATCHKEY_CONFIG, its default. Every problem is named, and the exit status is 0 if there is none. \
                  The database is not asked."
)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    let width = settings.effective().iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    let line = |setting: &Effective| format!("{:width$} = {}  ({})", setting.key, setting.value, setting.source);
    Ok(say(settings.effective().iter().map(line).collect::<Vec<_>>().join("\n"))?)
}

//! `latchkey check-config`.

use super::{environment::load, failure::Failure, process::print_line};
use crate::settings::{Effective, Flags};

#[derive(clap::Args)]
#[command(
    after_help = "Each setting comes from the first of these that has it: its flag, its LATCHKEY_... environment variable, the \
                  TOML file (--config or LATCHKEY_CONFIG), its default. All problems are reported at once; the exit status is \
                  0 if there are none. The database is not contacted."
)]
pub(super) struct CheckConfigArgs {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &CheckConfigArgs) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    let width = settings.effective().iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    let line = |setting: &Effective| format!("{:width$} = {}  ({})", setting.key, setting.value, setting.source);
    Ok(print_line(settings.effective().iter().map(line).collect::<Vec<_>>().join("\n"))?)
}

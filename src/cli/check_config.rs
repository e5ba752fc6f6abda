//! `latchkey check-config`.

use super::{Failure, load};
use crate::settings::Flags;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    let width = settings.effective().iter().map(|setting| setting.key.len()).max().unwrap_or(0);
    for setting in settings.effective() {
        println!("{:width$} = {}  ({})", setting.key, setting.value, setting.source);
    }
    Ok(())
}

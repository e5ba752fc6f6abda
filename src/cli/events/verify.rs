//! `latchkey events verify`: verifies the files of archived events, alone, together and against the database (V6).

use std::path::PathBuf;

use super::file::{ArchiveReader, Links};
use crate::{
    cli::{environment::load_database, failure::Failure, process::print_line},
    domain::log::archive::{Anchor, Header},
    settings::Flags,
    store::log::archive,
};

#[derive(clap::Args)]
#[command(
    after_help = "Recomputes every hash. Every file must continue where another one ends, or overlap it, and overlapping parts must\n\
                  be identical. The first event that does not fit is reported. With --against-database, the chain must also\n\
                  contain the link to it that the database keeps, so that the files and the log are one chain; any Latchkey\n\
                  role may run this."
)]
pub(crate) struct VerifyArgs {
    /// The files, in any order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare with the database at `database_url`.
    #[arg(long)]
    against_database: bool,
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: VerifyArgs) -> Result<(), Failure> {
    let mut files = args.files.iter().map(|path| ArchiveReader::open(path)).collect::<Result<Vec<_>, _>>()?;
    files.sort_by_key(|file| (file.header.after.number, file.header.through.number));
    let mut links = Links::default();
    links.add(&Anchor::START, "the beginning of every log")?;
    for file in &files {
        links.add(&file.header.after, &file.name())?;
        links.add(&file.header.through, &file.name())?;
    }
    let start = files.first().map_or(Anchor::START, |file| file.header.after);
    let last = files.iter().map(|file| file.header.through.number).max().unwrap_or_default();
    if args.against_database {
        let settings = load_database(&args.flags)?;
        let anchor = archive::anchor_of(settings.database_url.expose()).await?;
        if anchor.number < start.number || anchor.number > last {
            let (first, number) = (start.number + 1, anchor.number);
            let problem =
                format!("the database was archived up to event {number}, but the files hold {first} to {last}");
            return Err(problem.into());
        }
        links.add(&anchor, "the database")?;
    }
    let mut reached = start.number;
    for file in files {
        let Header { after, through, .. } = file.header;
        let (name, first) = (file.name(), after.number + 1);
        if after.number > reached {
            return Err(format!("the events {} to {} are in none of the files", reached + 1, after.number).into());
        }
        file.verify(&links)?;
        print_line(format_args!("{name}: the events {first} to {} verify", through.number))?;
        reached = reached.max(through.number);
    }
    let first = start.number + 1;
    if start.number > 0 {
        let revision = start.revision();
        print_line(format_args!(
            "the events before {first} are in none of the files: the hash of {revision} is taken as given"
        ))?;
    }
    let with = if args.against_database { ", and with the database" } else { "" };
    Ok(print_line(format_args!("one chain from {first} to {reached}{with}"))?)
}

//! `latchkey events archive` and `latchkey events verify` (V6).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Failure,
    archive_file::{ArchiveReader, ArchiveWriter, Links},
    process::{say, with_telemetry},
};
use crate::{
    domain::log::archive::{Anchor, FORMAT, Header},
    settings,
    store::log::archive::{self, Archiver, Extent},
};

/// How many of the last events stay in the log, for watchers and readers to go on from.
const KEPT_EVENTS: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(clap::Subcommand)]
pub(super) enum Command {
    /// Write the oldest events to a file and remove them from the log; the rest still verifies.
    Archive(ArchiveArgs),
    /// Verify the chain of archived events without a database, within each file and across files.
    Verify(VerifyArgs),
}

#[derive(clap::Args)]
#[command(
    after_help = "Run this as the owner of the tables, like `latchkey migrate`: the role of a server cannot delete events. Servers\n\
                  keep running meanwhile. The file has a header and one line per event, with the exact bytes that the chain\n\
                  hashes. Text that people typed is not in the file, only the commitments to it, and is removed with the events\n\
                  (events written by releases without commitments have the text in their bytes). The chain is verified on the\n\
                  way, and nothing is removed before the file is on disk.\n\n\
                  The most recent events stay, and so do those that a replica has not applied: the last event archived is\n\
                  printed. A replica that was cut off before it had applied what is archived answers UNAVAILABLE until it is\n\
                  restarted.\n\n\
                  If the command is interrupted while it removes events, run it again with another file: what is still in the log\n\
                  is archived again. Keep both files; `latchkey events verify` accepts files that overlap."
)]
pub(super) struct ArchiveArgs {
    #[command(flatten)]
    until: Until,
    /// The file to write; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How many of the last events stay.
    #[arg(long, value_name = "COUNT", default_value_t = KEPT_EVENTS, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    keep_events: u32,
    #[command(flatten)]
    flags: settings::Flags,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct Until {
    /// Archive the events before this one.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// Archive the events older than this many days.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    older_than_days: Option<u32>,
}

#[derive(clap::Args)]
#[command(
    after_help = "Recomputes every hash. Every file must continue where another one ends, or overlap it, and overlapping parts must\n\
                  be identical. The first event that does not fit is reported. With --against-database, the chain must also\n\
                  contain the link to it that the database keeps, so that the files and the log are one chain; any Latchkey\n\
                  role may run this."
)]
pub(super) struct VerifyArgs {
    /// The files, in any order.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Compare with the database at `database_url`.
    #[arg(long)]
    against_database: bool,
    #[command(flatten)]
    flags: settings::Flags,
}

pub(super) async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Archive(args) => {
            let settings = settings::load_database(&args.flags, settings::process_environment())?;
            with_telemetry(settings.log(), async |_| {
                let mut archiver = Archiver::open(settings.database_url.expose()).await?;
                run_archive(&mut archiver, &args).await
            })
            .await
        }
        Command::Verify(args) => run_verify(args).await,
    }
}

async fn run_archive(archiver: &mut Archiver, args: &ArchiveArgs) -> Result<(), Failure> {
    let extent = archiver.extent().await?;
    let (most, because) = most(&extent, args.keep_events);
    let after = extent.anchor;
    let wanted = match (args.until.before, args.until.older_than_days) {
        (Some(before), _) => before - 1,
        (None, days) => {
            let age = DAY.saturating_mul(days.unwrap_or_default());
            archiver.last_older_than(age, after.number, extent.head).await?
        }
    };
    let last = wanted.min(most);
    if wanted > most {
        say(format_args!("{because}: of the events up to {wanted}, only those up to {} can be archived", most.max(0)))?;
    }
    if last <= after.number {
        return Ok(say(format_args!("nothing to archive: the events up to {} are already archived", after.number))?);
    }
    let missing = || format!("event {last} is missing: nothing was archived; see VerifyEventChain");
    let through = archiver.at(last).await?.ok_or_else(missing)?;
    let header = Header { format: FORMAT.to_owned(), after, through };
    let writer = ArchiveWriter::create(&args.output, &header)?;
    let batches = match write(archiver, writer, &header).await {
        Ok(batches) => batches,
        Err(failure) => {
            // It was made just now, and has nothing that is not in the log.
            let _ = fs::remove_file(&args.output);
            return Err(failure);
        }
    };
    let mut anchor = after;
    for next in batches {
        let removed = archiver.remove(&anchor, &next).await;
        removed.map_err(|error| interrupted(&error, &anchor, &args.output))?;
        anchor = next;
    }
    let (first, path) = (after.number + 1, args.output.display());
    Ok(say(format_args!(
        "archived the events {first} to {last} in {path}; the log continues after {}",
        through.revision()
    ))?)
}

/// The last event that may be archived by now, and why none after it.
fn most(extent: &Extent, kept: u32) -> (i64, String) {
    let kept_from = extent.head - i64::from(kept);
    match extent.least_applied {
        // The last one that it applied is what it is known by.
        Some(applied) if applied - 1 < kept_from => {
            (applied - 1, format!("a replica has applied no more than event {applied}"))
        }
        _ => (kept_from, format!("the last {kept} events stay in the log")),
    }
}

/// Writes the file, verifying the chain; the ends of the batches to remove then.
async fn write(archiver: &mut Archiver, mut writer: ArchiveWriter, header: &Header) -> Result<Vec<Anchor>, Failure> {
    let mut ends = Vec::new();
    let mut last = header.after;
    while last.number < header.through.number {
        let wrong = |at: &Anchor, problem: &str| format!("event {}: {problem}; nothing was archived", at.number + 1);
        let events = archiver.events(last.number, header.through.number).await?;
        if events.is_empty() {
            return Err(wrong(&last, "the event is missing").into());
        }
        for event in &events {
            last = last.next(event).map_err(|problem| wrong(&last, problem))?;
            writer.line(event)?;
        }
        ends.push(last);
    }
    writer.finish()?;
    Ok(ends)
}

fn interrupted(error: &archive::ArchiveError, anchor: &Anchor, path: &Path) -> String {
    format!(
        "{error}: the events up to {} were removed, and {} holds more than those; run the command again with another file, and keep both",
        anchor.number,
        path.display()
    )
}

async fn run_verify(args: VerifyArgs) -> Result<(), Failure> {
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
        let settings = settings::load_database(&args.flags, settings::process_environment())?;
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
        say(format_args!("{name}: the events {first} to {} verify", through.number))?;
        reached = reached.max(through.number);
    }
    let first = start.number + 1;
    if start.number > 0 {
        let revision = start.revision();
        say(format_args!(
            "the events before {first} are in none of the files: the hash of {revision} is taken as given"
        ))?;
    }
    let with = if args.against_database { ", and with the database" } else { "" };
    Ok(say(format_args!("one chain from {first} to {reached}{with}"))?)
}

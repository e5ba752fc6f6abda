//! `latchkey events archive`: moves the oldest events from the log to a file (V6).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use super::file::ArchiveWriter;
use crate::{
    cli::{
        environment::load_database,
        failure::Failure,
        process::{print_line, with_telemetry},
    },
    domain::log::archive::{Anchor, FORMAT, Header},
    settings::Flags,
    store::log::archive::{ArchiveError, Archiver, Extent},
};

/// How many of the last events stay in the log, for watchers and readers to go on from.
const KEPT_EVENTS: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
pub(crate) struct ArchiveArgs {
    #[command(flatten)]
    range: ArchiveRange,
    /// The file to write; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// How many of the last events stay.
    #[arg(long, value_name = "COUNT", default_value_t = KEPT_EVENTS, hide = true, value_parser = clap::value_parser!(u32).range(1..))]
    keep_events: u32,
    #[command(flatten)]
    flags: Flags,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ArchiveRange {
    /// Archive the events before this one.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// Archive the events older than this many days.
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..))]
    older_than_days: Option<u32>,
}

pub(super) async fn run(args: ArchiveArgs) -> Result<(), Failure> {
    let settings = load_database(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let mut archiver = Archiver::open(settings.database_url.expose()).await?;
        archive(&mut archiver, &args).await
    })
    .await
}

async fn archive(archiver: &mut Archiver, args: &ArchiveArgs) -> Result<(), Failure> {
    let extent = archiver.extent().await?;
    let (last_allowed, because) = last_archivable(&extent, args.keep_events);
    let after = extent.anchor;
    let wanted = match (args.range.before, args.range.older_than_days) {
        (Some(before), _) => before - 1,
        (None, days) => {
            let age = DAY.saturating_mul(days.unwrap_or_default());
            archiver.last_older_than(age, after.number, extent.head).await?
        }
    };
    let last = wanted.min(last_allowed);
    if wanted > last_allowed {
        print_line(format_args!(
            "{because}: of the events up to {wanted}, only those up to {} can be archived",
            last_allowed.max(0)
        ))?;
    }
    if last <= after.number {
        return Ok(print_line(format_args!(
            "nothing to archive: the events up to {} are already archived",
            after.number
        ))?);
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
    Ok(print_line(format_args!(
        "archived the events {first} to {last} in {path}; the log continues after {}",
        through.revision()
    ))?)
}

/// Finds the last event that may be archived now, and why no later one may be.
fn last_archivable(extent: &Extent, kept: u32) -> (i64, String) {
    let kept_from = extent.head - i64::from(kept);
    match extent.least_applied {
        // One less: the event that a replica applied last must stay, because its acknowledgements name it.
        Some(applied) if applied - 1 < kept_from => {
            (applied - 1, format!("a replica has applied no more than event {applied}"))
        }
        _ => (kept_from, format!("the last {kept} events stay in the log")),
    }
}

/// Writes the file, verifying the chain. Returns the ends of the batches of events to remove afterwards.
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

fn interrupted(error: &ArchiveError, anchor: &Anchor, path: &Path) -> String {
    format!(
        "{error}: the events up to {} were removed, and {} holds more than those; run the command again with another file, and keep both",
        anchor.number,
        path.display()
    )
}

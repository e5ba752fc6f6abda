//! The commands on archives of the log: `latchkey events archive` and `latchkey events verify`.

mod archive;
mod file;
mod verify;

use super::failure::Failure;

#[derive(clap::Subcommand)]
pub(super) enum EventsCommand {
    /// Write the oldest events to a file and remove them from the log; the rest still verifies.
    Archive(archive::ArchiveArgs),
    /// Verify the chain of archived events without a database, within each file and across files.
    Verify(verify::VerifyArgs),
}

pub(super) async fn run(command: EventsCommand) -> Result<(), Failure> {
    match command {
        EventsCommand::Archive(args) => archive::run(args).await,
        EventsCommand::Verify(args) => verify::run(args).await,
    }
}

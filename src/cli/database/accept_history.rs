//! `latchkey accept-history`.

use super::offline;
use crate::{
    cli::{
        environment::load,
        failure::Failure,
        process::{print_line, with_telemetry},
    },
    settings::Flags,
};

#[derive(clap::Args)]
#[command(
    after_help = "A replica answers UNAVAILABLE when the database's history is not the one that it followed: events that it had\n\
                  applied are missing or different. This happens after a failover to a standby that had not received\n\
                  everything, or after a restore from a backup. Every replica does so when the database is not the one that\n\
                  its log was written in, judged by system identifier, timeline and oid: after a restore from a dump or a\n\
                  base backup, a copy, a promotion, or an upgrade with pg_upgrade.\n\n\
                  Before you accept, find out which database has the right history, and make sure that no other database takes\n\
                  writes and that the database_url of every replica points to it. Check what was lost: keys that were revoked,\n\
                  disabled or rotated in the lost events are live again and must be revoked again. Tokens minted in the lost\n\
                  events are UNKNOWN.\n\n\
                  Accepting appends the event `history.accepted`, which starts a new epoch: every later revision is higher than\n\
                  all earlier ones. All replicas drop their caches and follow the accepted history within a second or two,\n\
                  without a restart. On a healthy database, accepting costs only the caches. The command does not ask for\n\
                  confirmation, and can be repeated."
)]
pub(crate) struct AcceptHistoryArgs {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) async fn run(args: AcceptHistoryArgs) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let accepted = offline::open(&settings).await?.accept_history().await?;
        let (before, after) = (accepted.before, accepted.after);
        Ok(print_line(format_args!("history accepted: the revision was {before} and is {after}"))?)
    })
    .await
}

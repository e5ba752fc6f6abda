//! `latchkey accept-history`.

use super::{
    Failure, load, offline,
    process::{say, with_telemetry},
};
use crate::settings::Flags;

#[derive(clap::Args)]
#[command(
    after_help = "A replica that finds another history in the database than the one it followed answers UNAVAILABLE:\n\
                  events that it had applied are gone, or others are in their place. That happens after a fail-over to\n\
                  a standby that had not received everything, or after a restore from a backup. The same holds for every replica if\n\
                  the database is another one than its log was written in, by its system identifier, timeline or oid: restored\n\
                  from a dump or a base backup, copied, promoted, or upgraded with pg_upgrade.\n\n\
                  Before you accept, find out which database has the right history, make sure that no other one takes\n\
                  writes, and that every replica's database_url leads to it. Look at what was lost: keys that were\n\
                  revoked, disabled or rotated in the lost events are live again, and must be revoked again. Keys\n\
                  minted in them are UNKNOWN.\n\n\
                  Accepting appends the event `history.accepted`, which starts a new epoch: every revision from then on\n\
                  is above all earlier ones. All replicas drop what they remember and follow the accepted history, within\n\
                  a second or two and without a restart. On a healthy database it costs them their caches, and no more.\n\
                  It asks nothing, and can be repeated."
)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |_| {
        let accepted = offline::open(&settings).await?.accept_history().await?;
        let (before, after) = (accepted.before, accepted.after);
        Ok(say(format_args!("the history is accepted: the revision was {before} and is {after}"))?)
    })
    .await
}

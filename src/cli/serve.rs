//! `latchkey serve`.

use std::sync::Arc;

use super::{
    Failure, load,
    process::{StopSignals, with_telemetry},
};
use crate::{
    server,
    settings::{Flags, Settings},
    telemetry::Metrics,
};

#[derive(clap::Args)]
#[command(
    after_help = "Migrate the database first (`latchkey migrate`). Health (grpc.health.v1) says SERVING while the server can \
                  answer. SIGTERM or Ctrl-C stops it: running calls get the drain time; a second signal cuts them."
)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    let settings = load(&args.flags)?;
    with_telemetry(settings.log(), async |metrics| serve(&settings, metrics, &mut signals).await).await
}

async fn serve(settings: &Settings, metrics: Arc<Metrics>, signals: &mut StopSignals) -> Result<(), Failure> {
    let mut server = tokio::select! {
        () = signals.next() => return Ok(()),
        started = server::start(settings, metrics) => started?,
    };
    tracing::info!(address = %server.address(), "serving");
    let result = tokio::select! {
        () = signals.next() => Ok(()),
        ended = server.ended() => Err(ended.into()),
    };
    tracing::info!("stopping: running calls are given time to end");
    signals.hurried(server.stop()).await?;
    result
}

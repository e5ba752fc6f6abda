//! `latchkey serve`.

use std::sync::Arc;

use super::{
    environment::load,
    failure::Failure,
    process::{StopSignals, with_telemetry},
};
use crate::{
    server,
    settings::{Flags, Settings},
    telemetry::Metrics,
};

#[derive(clap::Args)]
#[command(
    after_help = "Migrate the database first (`latchkey migrate`). The health service (grpc.health.v1) reports SERVING while \
                  the server can answer. SIGTERM or Ctrl-C stops the server: running calls get `drain_timeout_s` to finish; a \
                  second signal cuts them off."
)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: ServeArgs) -> Result<(), Failure> {
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
    tracing::info!("stopping: waiting for running calls to finish");
    signals.or_cut_off(server.stop()).await?;
    result
}

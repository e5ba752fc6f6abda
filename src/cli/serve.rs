//! `latchkey serve`.

use super::{Failure, load, start_telemetry, stop_signal};
use crate::{server, settings::Flags};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let settings = load(&args.flags)?;
    let (telemetry, metrics) = start_telemetry(settings.log_format, &settings.log_filter)?;
    let result = serve(&settings, metrics).await;
    telemetry.shutdown().await;
    result
}

async fn serve(
    settings: &crate::settings::Settings,
    metrics: std::sync::Arc<crate::telemetry::Metrics>,
) -> Result<(), Failure> {
    let server = server::start(settings, metrics).await?;
    tracing::info!(address = %server.address(), "serving");
    stop_signal().await?;
    tracing::info!("stopping: running calls are given time to end");
    server.stop().await;
    Ok(())
}

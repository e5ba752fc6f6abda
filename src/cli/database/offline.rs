//! Opens the use-cases for commands that work on the database without serving.

use crate::{app::App, cli::failure::Failure, server, settings::Settings};

/// Connects to the database and builds the use-cases on it.
pub(super) async fn open(settings: &Settings) -> Result<App, Failure> {
    Ok(server::open(settings).await?.app)
}

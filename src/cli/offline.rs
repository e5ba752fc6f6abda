//! The use-cases for commands that work on the database without serving.

use super::Failure;
use crate::{app::App, server, settings::Settings};

/// Opens the database and puts the use-cases on it.
pub(super) async fn open(settings: &Settings) -> Result<App, Failure> {
    Ok(server::open(settings).await?.app)
}

//! The types of settings that have rules of their own. Those that hold secrets redact themselves.

mod database_url;
mod log;
mod peppers;

pub use self::database_url::DatabaseUrl;
pub use self::log::{LogFilter, LogFormat, LogSettings};
pub use self::peppers::{ConfiguredPepper, PepperSource, Peppers};

//! Settings: one table, four layers, every problem at once.
//!
//! A setting comes from its default, the TOML file, the environment or a flag, each overriding those before it. This
//! module must not know what a setting is used for.

mod flags;
mod layers;
mod load;
mod problems;
mod reader;
mod setting;
mod table;
#[cfg(test)]
mod tests;
mod values;

pub use self::flags::Flags;
pub use self::load::{DatabaseSettings, load, load_database, process_environment};
pub use self::problems::{Problem, Problems};
pub use self::reader::Effective;
pub use self::table::Settings;
pub use self::values::{ConfiguredPepper, DatabaseUrl, LogFilter, LogFormat, LogSettings, PepperSource, Peppers};

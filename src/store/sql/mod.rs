//! Tables, values, prepared statements and index walks for Diesel.

pub(super) mod rows;
pub(super) mod schema;
pub(super) mod statement;
pub(super) mod values;
pub(super) mod walk;

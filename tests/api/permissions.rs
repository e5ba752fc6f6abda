//! P1-P5: permissions and their catalogue.

mod catalogue;
mod scopes;

//! The hot path of one replica: is this token good *right now*?

pub mod applied;
pub mod clock;
pub mod covers;
pub mod deadline;
pub mod fence;
pub mod lease;
pub mod limits;
pub mod primary;

//! Whatever a client can get wrong gets a clear error that names the field, and changes nothing.

mod directory;
mod ids;
mod keys;
mod tokens;
mod transport;

use crate::{calls::*, support::World};

/// Fails if anything was appended to the log since it was made.
struct Unchanged(i64);

impl Unchanged {
    async fn since_now(world: &World) -> Self {
        Self(head(world).await)
    }

    async fn still(self, world: &World) {
        assert_eq!(head(world).await, self.0, "what was refused changed something");
    }
}

//! Reads the catalogue again for a request, once for all that ask at that moment: a client that names a permission
//! which does not exist costs one statement at a time, however often it calls.

use std::sync::Arc;

use tokio::time::timeout;

use super::flight::{Flights, Leader};
use crate::verify::{primary::Unavailable, replica::state::Replica};

/// `None` if the catalogue was read, or else why it was not.
type RefreshFailure = Option<Arc<dyn std::error::Error + Send + Sync>>;

/// Readings of the catalogue, one at a time.
pub(crate) struct Refreshes(Arc<Flights<(), RefreshFailure>>);

impl Default for Refreshes {
    fn default() -> Self {
        Self(Flights::new(1))
    }
}

impl Refreshes {
    /// Returns once the replica has a catalogue that was read after this call.
    ///
    /// # Errors
    /// [`Unavailable`] if it cannot be read in time.
    pub async fn refresh(&self, replica: &Arc<Replica>) -> Result<(), Unavailable> {
        let load = |leader: Option<Leader<_, _>>| {
            if let Some(leader) = leader {
                let replica = replica.clone();
                tokio::spawn(async move { leader.complete(read(&replica).await) });
            }
        };
        let refreshed = self.0.settle((), true, load, |failure, fresh| fresh.then(|| failure.clone()));
        match timeout(replica.limits.miss_timeout, refreshed).await {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(failure))) => Err(Unavailable(Box::new(failure))),
            Ok(Err(_)) => Err(Unavailable("every reading of the catalogue was given up".into())),
            Err(elapsed) => Err(Unavailable(Box::new(elapsed))),
        }
    }
}

async fn read(replica: &Replica) -> RefreshFailure {
    // Before it is sent: what is read later may be of a later epoch, never of an earlier one.
    let epoch = replica.applied.stamp().map_or(0, |applied| applied.revision().epoch);
    match timeout(replica.limits.miss_timeout, replica.primary.refresh()).await {
        Ok(Ok(catalogue)) => {
            replica.adopt(epoch, catalogue);
            None
        }
        Ok(Err(Unavailable(cause))) => Some(cause.into()),
        Err(elapsed) => Some(Arc::new(elapsed)),
    }
}

#[cfg(test)]
mod tests {
    use crate::verify::fake::{Call, FakePrimary, World};

    #[tokio::test]
    async fn a_reading_that_fails_is_read_again_for_those_who_asked_while_it_ran() {
        let world = World::new();
        let held = world.primary.hold_only(Call::Catalogue);
        world.primary.database().lose_reply_to = Some(Call::Catalogue);
        let ask = || {
            let verifier = world.verifier.clone();
            tokio::spawn(async move { verifier.refresh_catalogue().await.map(drop) })
        };
        let first = ask();
        FakePrimary::settle().await;
        let later = ask();
        FakePrimary::settle().await;
        held.add_permits(100);
        assert!(first.await.expect("no panic").is_err());
        assert!(later.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn those_who_ask_at_once_share_a_reading_that_none_of_them_is_too_late_for() {
        let world = World::new();
        let held = world.primary.hold_only(Call::Catalogue);
        let verifier = world.verifier.clone();
        let ask = || {
            let verifier = verifier.clone();
            tokio::spawn(async move { verifier.refresh_catalogue().await.map(drop) })
        };
        let first = ask();
        FakePrimary::settle().await;
        // The one under way was sent before these came.
        let more = [ask(), ask(), ask()];
        FakePrimary::settle().await;
        held.add_permits(100);
        for asking in [first].into_iter().chain(more) {
            asking.await.expect("no panic").expect("read");
        }
        let readings = world.primary.database().take_calls().into_iter().filter(|call| *call == Call::Catalogue);
        assert_eq!(readings.count(), 2);
    }
}

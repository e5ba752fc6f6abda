//! Reading the catalogue again for a request, once for all who ask at that moment: a client that names a
//! permission which does not exist costs one statement at a time, however often it calls.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::{sync::Mutex, time::timeout};

use crate::verify::{primary::Unavailable, replica::state::Replica};

/// The turns of reading it.
#[derive(Default)]
pub(crate) struct Refreshes {
    /// The number of the reading that was begun last.
    begun: AtomicU64,
    /// The number of the last one that succeeded; held by whoever reads.
    done: Mutex<u64>,
}

impl Refreshes {
    /// Returns once the replica has a catalogue that was read after this call.
    ///
    /// # Errors
    /// [`Unavailable`] if it cannot be read in time.
    pub async fn refresh(&self, replica: &Replica) -> Result<(), Unavailable> {
        let asked = self.begun.load(SeqCst);
        let turn = async {
            let mut done = self.done.lock().await;
            if *done > asked {
                return Ok(());
            }
            let number = self.begun.fetch_add(1, SeqCst) + 1;
            // Before it is sent: what is read later may be of a later epoch, never of an earlier one.
            let epoch = replica.applied.stamp().map_or(0, |applied| applied.revision().epoch);
            let catalogue = replica.primary.refresh().await?;
            replica.adopt(epoch, catalogue);
            *done = number;
            Ok(())
        };
        let read = timeout(replica.limits.miss_timeout, turn).await;
        read.unwrap_or_else(|elapsed| Err(Unavailable(Box::new(elapsed))))
    }
}

#[cfg(test)]
mod tests {
    use crate::verify::fake::{Call, FakePrimary, World};

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

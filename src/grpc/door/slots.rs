//! How many calls without a caller may be open, of each method: a bound for the process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::methods::METHODS;
use crate::grpc::status::Refusal;

/// The places of a process.
pub struct Slots {
    open_max: usize,
    open: Vec<AtomicUsize>,
}

/// A place, given back when this is dropped.
pub struct Slot {
    slots: Arc<Slots>,
    method: usize,
}

impl Slots {
    /// So many of each method.
    pub fn new(open_max: usize) -> Arc<Self> {
        Arc::new(Self { open_max, open: (0..METHODS.len()).map(|_| AtomicUsize::new(0)).collect() })
    }

    /// Takes a place.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if all are taken.
    pub fn take(self: &Arc<Self>, method: usize) -> Result<Slot, Refusal> {
        let slot = Slot { slots: self.clone(), method };
        // The place is given back at once if it was one too many.
        if self.open[method].fetch_add(1, Ordering::Relaxed) < self.open_max {
            Ok(slot)
        } else {
            Err(Refusal::too_many_open())
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.open[self.method].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_places_of_its_own_and_gets_them_back() {
        let slots = Slots::new(2);
        let taken = (slots.take(0), slots.take(0));
        assert!(taken.0.is_ok() && taken.1.is_ok());
        assert!(slots.take(0).is_err());
        assert!(slots.take(1).is_ok());
        drop(taken);
        assert!(slots.take(0).is_ok());
    }
}

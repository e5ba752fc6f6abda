//! Bounds the number of open unauthenticated calls of each method in this process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::methods::METHODS;
use crate::grpc::status::Refusal;

/// The unauthenticated calls that are open, by method.
pub struct UnauthenticatedCalls {
    open_max: usize,
    open: Vec<AtomicUsize>,
}

/// A permit for one open call, released on drop.
pub struct UnauthenticatedCallPermit {
    calls: Arc<UnauthenticatedCalls>,
    method: usize,
}

impl UnauthenticatedCalls {
    /// Allows up to `open_max` open calls of each method.
    pub fn new(open_max: usize) -> Arc<Self> {
        Arc::new(Self { open_max, open: (0..METHODS.len()).map(|_| AtomicUsize::new(0)).collect() })
    }

    /// Acquires a permit for a call of a method.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED if as many are open as may be.
    pub fn acquire(self: &Arc<Self>, method: usize) -> Result<UnauthenticatedCallPermit, Refusal> {
        let permit = UnauthenticatedCallPermit { calls: self.clone(), method };
        // Dropping the permit undoes the increment if it was one too many.
        if self.open[method].fetch_add(1, Ordering::Relaxed) < self.open_max {
            Ok(permit)
        } else {
            Err(Refusal::too_many_open())
        }
    }
}

impl Drop for UnauthenticatedCallPermit {
    fn drop(&mut self) {
        self.calls.open[self.method].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_method_has_its_own_permits_and_gets_them_back() {
        let calls = UnauthenticatedCalls::new(2);
        let taken = (calls.acquire(0), calls.acquire(0));
        assert!(taken.0.is_ok() && taken.1.is_ok());
        assert!(calls.acquire(0).is_err());
        assert!(calls.acquire(1).is_ok());
        drop(taken);
        assert!(calls.acquire(0).is_ok());
    }
}

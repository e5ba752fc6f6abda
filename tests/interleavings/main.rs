//! Every interleaving, and every reordering that the memory model allows, of what V1 rests on; see README.md.

mod flight;
mod followed;
mod verify;
mod versioned;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// True if the model holds in every execution.
fn holds(model: impl Fn() + Send + Sync + 'static) -> bool {
    let outcome = catch_unwind(AssertUnwindSafe(|| loom::model(model)));
    match outcome {
        Ok(()) => true,
        Err(panic) => {
            let said = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
            assert!(said.is_some_and(|said| said.contains("V1")), "the model itself is broken: {said:?}");
            false
        }
    }
}

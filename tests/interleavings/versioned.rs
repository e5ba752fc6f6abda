//! A cached token that is replaced while it is read.

use loom::{
    sync::{Arc, atomic::Ordering},
    thread,
};

use crate::{
    holds,
    verify::{atomic::relax, ordered::Versioned},
};

/// A revision never comes with the facts of another: else a fence would pass what it must refuse.
fn whole(relaxed: Option<Ordering>) -> bool {
    relax(relaxed);
    holds(|| {
        let slot = Arc::new(Versioned::<2>::zeroed());
        slot.write([1, 1]);
        let writer = thread::spawn({
            let slot = slot.clone();
            move || {
                slot.write([2, 2]);
                slot.write([3, 3]);
            }
        });
        let mut words = [0; 2];
        if slot.read(&mut words) {
            assert_eq!(words[0], words[1], "V1: a revision with the facts of another");
        }
        writer.join().expect("no panic");
    })
}

#[test]
fn v1_a_cached_token_is_read_whole_or_not_at_all() {
    assert!(whole(None));
}

#[test]
fn without_acquire_words_of_two_changes_are_mixed() {
    assert!(!whole(Some(Ordering::Acquire)));
}

#[test]
fn without_release_words_of_two_changes_are_mixed() {
    assert!(!whole(Some(Ordering::Release)));
}

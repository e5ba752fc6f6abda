//! The bounds on open watches: each account's and each caller's, and a reserve for those who audit every account, so
//! that no tenant shuts the operator out.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    app::{
        error::{AppError, NamedLimit},
        fairness::fair_queue::{CallerId, Payer},
    },
    domain::id::AccountId,
};

/// How many watches may be open in this process.
#[derive(Clone, Copy, Debug)]
pub struct WatchLimits {
    /// Of all. Each reads the log whenever it grows.
    pub watches_max: usize,
    /// Of these, those of all accounts together: the rest is kept for holders of `system.events`.
    pub account_watches_max: usize,
    /// Of one account.
    pub watches_per_account_max: usize,
    /// Of one caller.
    pub watches_per_caller_max: usize,
}

/// The open watches of a process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Watches(Arc<WatchesShared>);

/// One open watch; dropped, it makes room.
pub(crate) struct OpenWatch {
    watches: Watches,
    payer: Payer,
    audits: bool,
}

struct WatchesShared {
    limits: WatchLimits,
    open: Mutex<OpenCounts>,
}

#[derive(Default)]
struct OpenCounts {
    all: usize,
    /// The watches that are not audits.
    tenants: usize,
    accounts: HashMap<AccountId, usize>,
    callers: HashMap<(AccountId, CallerId), usize>,
}

impl Watches {
    pub fn new(limits: WatchLimits) -> Self {
        Self(Arc::new(WatchesShared { limits, open: Mutex::default() }))
    }

    /// Takes a place for a watch. A watch that audits every account is bounded only by the number of places in all.
    ///
    /// # Errors
    /// [`AppError::ShareExceeded`] naming the bound.
    pub fn open(&self, payer: Payer, audits: bool) -> Result<OpenWatch, AppError> {
        let limits = &self.0.limits;
        let mut open = self.open_now();
        let caller = (payer.account.clone(), payer.caller.clone());
        let count = |counts: Option<&usize>| counts.copied().unwrap_or(0);
        let mut bounds = vec![(open.all, "watches_max", limits.watches_max)];
        if !audits {
            bounds.push((open.tenants, "account_watches_max", limits.account_watches_max));
            bounds.push((count(open.callers.get(&caller)), "watches_per_caller_max", limits.watches_per_caller_max));
            let of_account = count(open.accounts.get(&payer.account));
            bounds.push((of_account, "watches_per_account_max", limits.watches_per_account_max));
        }
        // The closest bound is the one to name.
        if let Some((_, name, max)) = bounds.into_iter().rev().find(|(open, _, max)| open >= max) {
            return Err(AppError::ShareExceeded(NamedLimit { name, max }));
        }
        open.all += 1;
        open.tenants += usize::from(!audits);
        *open.accounts.entry(payer.account.clone()).or_default() += 1;
        *open.callers.entry(caller).or_default() += 1;
        Ok(OpenWatch { watches: self.clone(), payer, audits })
    }

    fn open_now(&self) -> MutexGuard<'_, OpenCounts> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut open = self.watches.open_now();
        open.all -= 1;
        open.tenants -= usize::from(!self.audits);
        less(&mut open.accounts, &self.payer.account);
        less(&mut open.callers, &(self.payer.account.clone(), self.payer.caller.clone()));
    }
}

fn less<K: Eq + Hash>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::UserId;

    fn payer(account: &str, user: &str) -> Payer {
        let user = UserId::parse("user", user).expect("an id");
        Payer { account: AccountId::from_stored(account), caller: CallerId::User(user) }
    }

    fn refused(result: Result<OpenWatch, AppError>) -> Option<&'static str> {
        match result {
            Err(AppError::ShareExceeded(bound)) => Some(bound.name),
            _ => None,
        }
    }

    #[test]
    fn watches_are_bounded_for_a_caller_an_account_and_all_and_some_are_kept_for_audits() {
        let limits = WatchLimits {
            watches_max: 6,
            account_watches_max: 5,
            watches_per_account_max: 3,
            watches_per_caller_max: 2,
        };
        let watches = Watches::new(limits);
        let mut open = Vec::new();
        for _ in 0..2 {
            open.push(watches.open(payer("a", "one"), false).expect("room"));
        }
        assert_eq!(refused(watches.open(payer("a", "one"), false)), Some("watches_per_caller_max"));
        open.push(watches.open(payer("a", "two"), false).expect("room"));
        assert_eq!(refused(watches.open(payer("a", "two"), false)), Some("watches_per_account_max"));
        open.push(watches.open(payer("b", "one"), false).expect("room"));
        open.push(watches.open(payer("c", "one"), false).expect("room"));
        assert_eq!(refused(watches.open(payer("d", "one"), false)), Some("account_watches_max"));
        let audit = watches.open(payer("system", "auditor"), true).expect("kept for it");
        assert_eq!(refused(watches.open(payer("system", "auditor"), true)), Some("watches_max"));
        open.pop();
        drop(audit);
        open.push(watches.open(payer("d", "one"), false).expect("room again"));
        open.clear();
        let left = watches.open_now();
        assert_eq!((left.all, left.tenants, left.accounts.len(), left.callers.len()), (0, 0, 0, 0));
    }
}

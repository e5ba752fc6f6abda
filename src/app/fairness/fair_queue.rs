//! A fair queue for the database, so that one caller's load delays no other caller's work.
//!
//! A turn is waited for in the caller's own future, before a task is spawned or a connection is asked for. So work
//! whose caller went away, or whose deadline passed, leaves the queue and never begins. Accounts take turns, and within
//! an account its callers, each in order of arrival; the turns that an account and a caller have at once are bounded,
//! and so are their waiting calls. Account `system`, where services' own keys live, has no bound of its own, only its
//! callers have.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::{
    app::{
        error::{AppError, NamedLimit},
        types::OnBehalfOf,
    },
    domain::id::{AccountId, KeyId, UserId},
};

/// Whose work it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payer {
    /// The caller's own account, or the user's if it acts for one.
    pub account: AccountId,
    /// Who it is there.
    pub caller: CallerId,
}

/// One caller of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CallerId {
    /// A key, by either of its tokens.
    Key(KeyId),
    /// A user that a service acts for.
    User(UserId),
    /// An operator with the database's own credentials.
    Local,
}

/// How many turns there are, and how many calls may wait for one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Turns at once, of all.
    pub at_once: usize,
    /// Of these, an account's, and a caller's.
    pub share: Share,
    /// Calls that wait, of all.
    pub waiting: NamedLimit,
    /// Calls that wait, of an account.
    pub waiting_per_account: NamedLimit,
    /// Calls that wait, of a caller.
    pub waiting_per_caller: NamedLimit,
}

/// A part of the turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Turns at once of one account.
    pub per_account: usize,
    /// Turns at once of one caller.
    pub per_caller: usize,
}

/// The turns of one kind of work. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FairQueue(Arc<QueueShared>);

/// A turn; dropped, it is the next one's.
pub(crate) struct QueuePermit {
    turns: FairQueue,
    payer: Payer,
}

/// A call in the queue; dropped, it has left.
struct QueuedCall<'a> {
    turns: &'a FairQueue,
    payer: &'a Payer,
    number: u64,
    granted: oneshot::Receiver<QueuePermit>,
}

struct QueueShared {
    bounds: Bounds,
    queue: Mutex<QueueState>,
}

#[derive(Default)]
struct QueueState {
    running: usize,
    waiting: usize,
    last_number: u64,
    accounts: HashMap<AccountId, AccountQueue>,
    /// Accounts with calls that wait, whose turn it is first.
    order: VecDeque<AccountId>,
}

#[derive(Default)]
struct AccountQueue {
    running: usize,
    waiting: usize,
    callers: HashMap<CallerId, CallerQueue>,
    /// Callers with calls that wait, whose turn it is first.
    order: VecDeque<CallerId>,
}

#[derive(Default)]
struct CallerQueue {
    running: usize,
    waiting: VecDeque<(u64, oneshot::Sender<QueuePermit>)>,
}

// === impl Payer ===

impl Payer {
    /// Returns the payer of this process itself, or of an operator with the database's own credentials.
    pub fn local() -> Self {
        Self { account: AccountId::system(), caller: CallerId::Local }
    }

    /// Returns a key of an account as payer.
    pub fn key(account: AccountId, key: KeyId) -> Self {
        Self { account, caller: CallerId::Key(key) }
    }

    /// Returns a user, for whom a service acts, as payer.
    pub fn user(user: &OnBehalfOf) -> Self {
        Self { account: user.account_id.clone(), caller: CallerId::User(user.user_id.clone()) }
    }
}

// === impl FairQueue ===

impl FairQueue {
    /// Creates a queue in which one account never has all turns, unless there is only one.
    pub fn new(bounds: Bounds) -> Self {
        let at_once = bounds.at_once.max(1);
        let others = (at_once - 1).max(1);
        let Share { per_account, per_caller } = bounds.share;
        let share = Share { per_account: per_account.clamp(1, others), per_caller: per_caller.clamp(1, others) };
        Self(Arc::new(QueueShared { bounds: Bounds { at_once, share, ..bounds }, queue: Mutex::default() }))
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// [`AppError::ShareExceeded`] if as many calls wait already as may.
    pub async fn enter(&self, payer: &Payer) -> Result<QueuePermit, AppError> {
        self.wait(payer, true)?.granted().await
    }

    /// Does as [`Self::enter`] for work that is bounded in another way: it waits, too, however many calls wait already.
    pub async fn enter_anyway(&self, payer: &Payer) -> Result<QueuePermit, AppError> {
        self.wait(payer, false)?.granted().await
    }

    fn wait<'a>(&'a self, payer: &'a Payer, bounded: bool) -> Result<QueuedCall<'a>, AppError> {
        let mut queue = self.queue();
        if bounded {
            queue.check(payer, &self.0.bounds).map_err(AppError::ShareExceeded)?;
        }
        let (sender, granted) = oneshot::channel();
        let number = queue.push(payer, sender);
        self.grant(&mut queue);
        Ok(QueuedCall { turns: self, payer, number, granted })
    }

    /// Grants the free turns to the calls that may have them.
    fn grant(&self, queue: &mut QueueState) {
        while let Some((payer, sender)) = queue.next(&self.0.bounds) {
            let sent = sender.send(QueuePermit { turns: self.clone(), payer });
            // A call that leaves the queue is removed from it first, under the lock that is held here.
            assert!(sent.is_ok(), "a call that waits listens");
        }
    }

    fn queue(&self) -> MutexGuard<'_, QueueState> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedCall<'_> {
    async fn granted(mut self) -> Result<QueuePermit, AppError> {
        (&mut self.granted).await.map_err(|_| AppError::Internal("a call in the queue was forgotten"))
    }
}

impl Drop for QueuedCall<'_> {
    fn drop(&mut self) {
        self.turns.queue().leave(self.payer, self.number);
        // A turn that was granted and never taken is dropped with the receiver, after the lock.
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut queue = self.turns.queue();
        queue.end(&self.payer);
        self.turns.grant(&mut queue);
    }
}

// === impl QueueState ===

impl QueueState {
    /// Refuses one more call if it would have to wait and as many wait already as may.
    fn check(&self, payer: &Payer, bounds: &Bounds) -> Result<(), NamedLimit> {
        let account = self.accounts.get(&payer.account);
        let caller = account.and_then(|account| account.callers.get(&payer.caller));
        let (of_account, of_caller) = (account.map_or(0, |a| a.running), caller.map_or(0, |c| c.running));
        let per_account = bounds.per_account(&payer.account);
        let Share { per_caller, .. } = bounds.share;
        if self.running < bounds.at_once && of_account < per_account && of_caller < per_caller {
            return Ok(());
        }
        let waiting = [
            (caller.map_or(0, |caller| caller.waiting.len()), bounds.waiting_per_caller),
            (account.filter(|_| !payer.account.is_system()).map_or(0, |a| a.waiting), bounds.waiting_per_account),
            (self.waiting, bounds.waiting),
        ];
        let exceeded = waiting.into_iter().find(|(waiting, bound)| *waiting >= bound.max);
        exceeded.map_or(Ok(()), |(_, bound)| Err(bound))
    }

    fn push(&mut self, payer: &Payer, sender: oneshot::Sender<QueuePermit>) -> u64 {
        self.last_number += 1;
        self.waiting += 1;
        let account = self.accounts.entry(payer.account.clone()).or_default();
        if account.waiting == 0 {
            self.order.push_back(payer.account.clone());
        }
        account.waiting += 1;
        let caller = account.callers.entry(payer.caller.clone()).or_default();
        if caller.waiting.is_empty() {
            account.order.push_back(payer.caller.clone());
        }
        caller.waiting.push_back((self.last_number, sender));
        self.last_number
    }

    /// Takes the call whose turn it is out of the queue; `None` if no call may run now.
    fn next(&mut self, bounds: &Bounds) -> Option<(Payer, oneshot::Sender<QueuePermit>)> {
        if self.running >= bounds.at_once {
            return None;
        }
        for _ in 0..self.order.len() {
            let id = self.order.pop_front()?;
            let account = self.accounts.get_mut(&id)?;
            let next = if account.running < bounds.per_account(&id) { account.next(&bounds.share) } else { None };
            if account.waiting > 0 {
                self.order.push_back(id.clone());
            }
            if let Some((caller, sender)) = next {
                self.running += 1;
                self.waiting -= 1;
                return Some((Payer { account: id, caller }, sender));
            }
        }
        None
    }

    /// Removes a call that goes away; nothing happens if its turn had come.
    fn leave(&mut self, payer: &Payer, number: u64) {
        let Some(account) = self.accounts.get_mut(&payer.account) else { return };
        let Some(caller) = account.callers.get_mut(&payer.caller) else { return };
        let Some(place) = caller.waiting.iter().position(|(waiting, _)| *waiting == number) else { return };
        caller.waiting.remove(place);
        if caller.waiting.is_empty() {
            account.order.retain(|id| *id != payer.caller);
        }
        self.waiting -= 1;
        account.waiting -= 1;
        if account.waiting == 0 {
            self.order.retain(|id| *id != payer.account);
        }
        self.forget(payer);
    }

    /// Ends a turn.
    fn end(&mut self, payer: &Payer) {
        self.running -= 1;
        let account = self.accounts.get_mut(&payer.account).expect("who has a turn is remembered");
        account.running -= 1;
        account.callers.get_mut(&payer.caller).expect("who has a turn is remembered").running -= 1;
        self.forget(payer);
    }

    /// Forgets an account or a caller that neither has a turn nor waits.
    fn forget(&mut self, payer: &Payer) {
        let Some(account) = self.accounts.get_mut(&payer.account) else { return };
        let idle = |caller: &CallerQueue| caller.running == 0 && caller.waiting.is_empty();
        if account.callers.get(&payer.caller).is_some_and(idle) {
            account.callers.remove(&payer.caller);
        }
        if account.callers.is_empty() {
            self.accounts.remove(&payer.account);
        }
    }
}

impl AccountQueue {
    fn next(&mut self, share: &Share) -> Option<(CallerId, oneshot::Sender<QueuePermit>)> {
        for _ in 0..self.order.len() {
            let id = self.order.pop_front()?;
            let caller = self.callers.get_mut(&id)?;
            let next = if caller.running < share.per_caller { caller.waiting.pop_front() } else { None };
            if !caller.waiting.is_empty() {
                self.order.push_back(id.clone());
            }
            if let Some((_, sender)) = next {
                caller.running += 1;
                self.running += 1;
                self.waiting -= 1;
                return Some((id, sender));
            }
        }
        None
    }
}

impl Bounds {
    fn per_account(&self, account: &AccountId) -> usize {
        if account.is_system() { self.at_once } else { self.share.per_account }
    }
}

#[cfg(test)]
#[path = "fair_queue_tests.rs"]
mod tests;

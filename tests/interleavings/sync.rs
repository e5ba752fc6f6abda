//! In place of the product's `verify::miss::sync`: loom's locks, and a channel of one value upon them.

pub use loom::sync::{Mutex, MutexGuard};

/// What single flight needs of `tokio::sync::watch`.
pub mod watch {
    use std::{
        future::poll_fn,
        ops::Deref,
        sync::Arc,
        task::{Poll, Waker},
    };

    use loom::sync::{Mutex, MutexGuard};

    struct Shared<T> {
        value: T,
        closed: bool,
        waiting: Vec<Waker>,
    }

    #[derive(Debug)]
    pub struct Closed;

    pub struct Sender<T>(Arc<Mutex<Shared<T>>>);

    #[derive(Clone)]
    pub struct Receiver<T>(Arc<Mutex<Shared<T>>>);

    pub struct Ref<'a, T>(MutexGuard<'a, Shared<T>>);

    impl<T> Deref for Ref<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.0.value
        }
    }

    pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
        let shared = Arc::new(Mutex::new(Shared { value, closed: false, waiting: vec![] }));
        (Sender(shared.clone()), Receiver(shared))
    }

    fn lock<T>(shared: &Mutex<Shared<T>>) -> MutexGuard<'_, Shared<T>> {
        shared.lock().expect("no panic")
    }

    impl<T> Sender<T> {
        pub fn send_replace(&self, value: T) -> T {
            let mut shared = lock(&self.0);
            shared.waiting.drain(..).for_each(Waker::wake);
            std::mem::replace(&mut shared.value, value)
        }

        pub fn borrow(&self) -> Ref<'_, T> {
            Ref(lock(&self.0))
        }
    }

    impl<T> Drop for Sender<T> {
        fn drop(&mut self) {
            let mut shared = lock(&self.0);
            shared.closed = true;
            shared.waiting.drain(..).for_each(Waker::wake);
        }
    }

    impl<T: Clone> Receiver<T> {
        pub async fn wait_for(&mut self, wanted: impl Fn(&T) -> bool) -> Result<T, Closed> {
            poll_fn(|context| {
                let mut shared = lock(&self.0);
                if wanted(&shared.value) {
                    return Poll::Ready(Ok(shared.value.clone()));
                }
                if shared.closed {
                    return Poll::Ready(Err(Closed));
                }
                shared.waiting.push(context.waker().clone());
                Poll::Pending
            })
            .await
        }
    }
}

/// Runs a future on this thread of a model, which sleeps until it is woken.
pub fn block_on<F: Future>(future: F) -> F::Output {
    use std::task::{Context, Poll, Wake, Waker};

    #[derive(Default)]
    struct Thread {
        woken: Mutex<bool>,
        wakes: loom::sync::Condvar,
    }

    impl Wake for Thread {
        fn wake(self: std::sync::Arc<Self>) {
            *self.woken.lock().expect("no panic") = true;
            self.wakes.notify_one();
        }
    }

    let thread = std::sync::Arc::new(Thread::default());
    let waker = Waker::from(thread.clone());
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        let mut woken = thread.woken.lock().expect("no panic");
        while !*woken {
            woken = thread.wakes.wait(woken).expect("no panic");
        }
        *woken = false;
    }
}

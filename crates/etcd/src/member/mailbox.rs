//! The one kind of queue between threads: a vector behind a lock, swapped whole.
//!
//! A sender takes the lock once per batch and wakes the owner only when the queue was empty; the owner takes all
//! there is with one lock. So neither side pays per request (serving rules 1 and 2).
//!
//! Invariant: when the queue is not empty, the owner has been woken since it last took, or is awake and will look
//! again before it sleeps.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// How the owner of a mailbox is woken.
pub(crate) trait Wake {
    /// Makes the owner look into its mailbox soon.
    fn wake(&self);
}

/// Wakes a thread that sleeps in [`ThreadMailbox::take_until`].
#[derive(Default)]
pub(crate) struct WakeThread(Condvar);

impl Wake for WakeThread {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Wakes a task of another thread's runtime.
#[derive(Default)]
pub(crate) struct WakeTask(pub(crate) tokio::sync::Notify);

impl Wake for WakeTask {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// A queue with one owner and any number of senders.
///
/// It has no limit of its own: each kind of value is bounded where it is made (calls per connection, waiting
/// requests per member, unflushed bytes), which is also where refusing can be answered.
pub(crate) struct Mailbox<T, W> {
    queue: Mutex<Vec<T>>,
    wake: W,
}

impl<T, W: Default> Default for Mailbox<T, W> {
    fn default() -> Mailbox<T, W> {
        Mailbox { queue: Mutex::new(Vec::new()), wake: W::default() }
    }
}

/// A mailbox of a thread.
pub(crate) type ThreadMailbox<T> = Mailbox<T, WakeThread>;
/// A mailbox of a task.
pub(crate) type TaskMailbox<T> = Mailbox<T, WakeTask>;

impl<T, W: Wake> Mailbox<T, W> {
    /// Puts one value in.
    pub(crate) fn push(&self, value: T) {
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.push(value);
        drop(queue);
        if was_empty {
            self.wake.wake();
        }
    }

    /// Puts all values in, leaving the vector empty with its room.
    pub(crate) fn push_all(&self, values: &mut Vec<T>) {
        if values.is_empty() {
            return;
        }
        let mut queue = self.queue.lock();
        let was_empty = queue.is_empty();
        queue.append(values);
        drop(queue);
        if was_empty {
            self.wake.wake();
        }
    }

    /// Takes all there is into an empty vector, without waiting.
    pub(crate) fn take(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty(), "the batch before must be done");
        std::mem::swap(&mut *self.queue.lock(), into);
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().is_empty()
    }

    /// What wakes the owner.
    pub(crate) fn waker(&self) -> &W {
        &self.wake
    }
}

impl<T> ThreadMailbox<T> {
    /// Waits until something is there or the time has come, and takes all there is.
    pub(crate) fn take_until(&self, deadline: Instant, into: &mut Vec<T>) {
        debug_assert!(into.is_empty(), "the batch before must be done");
        let mut queue = self.queue.lock();
        while queue.is_empty() {
            if self.wake.0.wait_until(&mut queue, deadline).timed_out() {
                break;
            }
        }
        std::mem::swap(&mut *queue, into);
    }

    /// Waits until something is there, and takes all there is.
    pub(crate) fn take_any(&self, into: &mut Vec<T>) {
        let mut queue = self.queue.lock();
        while queue.is_empty() {
            self.wake.0.wait(&mut queue);
        }
        std::mem::swap(&mut *queue, into);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn nothing_is_lost_between_threads() {
        let mailbox = Arc::new(ThreadMailbox::<u64>::default());
        let sender = {
            let mailbox = mailbox.clone();
            std::thread::spawn(move || {
                for i in 0..10_000 {
                    mailbox.push(i);
                }
            })
        };
        let (mut seen, mut batch) = (Vec::new(), Vec::new());
        while seen.len() < 10_000 {
            mailbox.take_any(&mut batch);
            seen.append(&mut batch);
        }
        sender.join().unwrap();
        assert!(seen.iter().copied().eq(0..10_000));
        mailbox.take_until(Instant::now() + std::time::Duration::from_millis(1), &mut batch);
        assert!(batch.is_empty());
    }
}

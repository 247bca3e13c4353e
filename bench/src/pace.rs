//! Open-loop pacing. Operation `k` is due at `start + k / rate` whether or not
//! earlier ones have finished, and its latency counts from that instant, so a
//! stalled server cannot hide the requests it kept from being sent.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Wakes its task at a steady rate. tokio's timer rounds to a millisecond; a sleeping thread does not.
struct Ticks {
    due: Arc<Notify>,
    ended: Arc<AtomicBool>,
}

impl Ticks {
    fn start(every: Duration) -> io::Result<Ticks> {
        let ticks = Ticks { due: Arc::default(), ended: Arc::default() };
        let (due, ended) = (ticks.due.clone(), ticks.ended.clone());
        std::thread::Builder::new().name("pacer".into()).spawn(move || {
            let mut next = Instant::now();
            while !ended.load(Ordering::Relaxed) {
                next += every;
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
                due.notify_one();
            }
        })?;
        Ok(ticks)
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Due operations of one thread, handed to its workers in order.
pub(crate) struct Pacer {
    rate: f64,
    due: RefCell<VecDeque<Instant>>,
    waiting: RefCell<VecDeque<Waker>>,
    ended: Cell<bool>,
}

impl Pacer {
    pub(crate) fn new(rate: f64) -> Self {
        Pacer { rate, due: RefCell::default(), waiting: RefCell::default(), ended: Cell::new(false) }
    }

    /// Issues operations until `until` or until `stop` says so.
    pub(crate) async fn run(
        &self,
        start: Instant,
        until: Option<Instant>,
        stop: impl Fn() -> bool,
    ) -> io::Result<()> {
        let ticks = Ticks::start(Duration::from_secs_f64(1.0 / self.rate).max(Duration::from_micros(50)))?;
        let mut k = 0u64;
        loop {
            let now = Instant::now();
            let mut next;
            loop {
                next = start + Duration::from_secs_f64(k as f64 / self.rate);
                if next > now || until.is_some_and(|u| next >= u) {
                    break;
                }
                self.due.borrow_mut().push_back(next);
                if let Some(w) = self.waiting.borrow_mut().pop_front() {
                    w.wake();
                }
                k += 1;
            }
            if stop() || until.is_some_and(|u| now >= u || next >= u) {
                self.end();
                return Ok(());
            }
            ticks.due.notified().await;
        }
    }

    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// When the next operation was due; None once there will be no more.
    pub(crate) async fn next(&self) -> Option<Instant> {
        poll_fn(|cx| {
            if let Some(t) = self.due.borrow_mut().pop_front() {
                return Poll::Ready(Some(t));
            }
            if self.ended.get() {
                return Poll::Ready(None);
            }
            self.waiting.borrow_mut().push_back(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

//! How many handshakes may be under way on a listener.
//!
//! A handshake costs whoever starts it nothing and us some kilobytes until it ends or its time is up. When all places
//! are taken the oldest gives way, unless it is so young that it may just be waiting for its turn: a rush of honest
//! clients waits in the kernel's queue, and those who only hold places do not keep others out.
//!
//! - `under_way` is in the order of arrival, and holds at most [`HANDSHAKES_MAX`].
//! - A pass is in `under_way` exactly as long as it lives, unless it has been told to give way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Handshakes under way per listener.
const HANDSHAKES_MAX: usize = 512;
/// A handshake younger than this does not have to give way.
const GRACE: Duration = Duration::from_secs(1);

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    under_way: Mutex<VecDeque<Place>>,
    left: Notify,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    give_way: Arc<Notify>,
}

/// The right to one handshake.
#[derive(Debug)]
pub(crate) struct Pass {
    gate: Arc<Gate>,
    give_way: Arc<Notify>,
}

impl Gate {
    /// Waits for a place.
    pub(crate) async fn enter(self: &Arc<Gate>) -> Pass {
        loop {
            let wait = match self.try_enter(Instant::now()) {
                Ok(pass) => return pass,
                Err(wait) => wait,
            };
            tokio::select! { () = self.left.notified() => {}, () = tokio::time::sleep(wait) => {} }
        }
    }

    /// A place, or how long it takes until one must become free.
    fn try_enter(self: &Arc<Gate>, now: Instant) -> Result<Pass, Duration> {
        let mut under_way = self.under_way.lock();
        if under_way.len() >= HANDSHAKES_MAX {
            let age = under_way.front().map_or(Duration::MAX, |oldest| now.saturating_duration_since(oldest.since));
            if age < GRACE {
                return Err(GRACE - age);
            }
            if let Some(oldest) = under_way.pop_front() {
                oldest.give_way.notify_one();
            }
        }
        let give_way = Arc::new(Notify::new());
        under_way.push_back(Place { since: now, give_way: give_way.clone() });
        Ok(Pass { gate: self.clone(), give_way })
    }
}

impl Pass {
    /// Ends when this handshake must give way to another.
    pub(crate) async fn must_give_way(&self) {
        self.give_way.notified().await;
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut under_way = self.gate.under_way.lock();
        // Most handshakes end in the order in which they began.
        if let Some(at) = under_way.iter().position(|place| Arc::ptr_eq(&place.give_way, &self.give_way)) {
            under_way.remove(at);
        }
        drop(under_way);
        self.gate.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_once_it_is_old_enough() {
        let gate = Arc::new(Gate::default());
        let start = Instant::now();
        let passes: Vec<Pass> = (0..HANDSHAKES_MAX).map(|_| gate.try_enter(start).unwrap()).collect();
        assert_eq!(gate.try_enter(start).err(), Some(GRACE));
        let next = gate.try_enter(start + GRACE).unwrap();
        assert_eq!(gate.under_way.lock().len(), HANDSHAKES_MAX);
        drop(passes);
        assert_eq!(gate.under_way.lock().len(), 1, "those who gave way and those who ended are gone");
        drop(next);
        assert!(gate.under_way.lock().is_empty());
    }
}

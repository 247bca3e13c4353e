//! Floods: counters that fill again with time, so that bursts pass and a steady flood does not.

use crate::error::Error;
use crate::limits::{
    IDLE_FRAME_BURST, IDLE_FRAME_PER_SECOND, RESET_BURST, RESET_PER_SECOND, SETTINGS_BURST,
    SETTINGS_PER_SECOND,
};

/// A token bucket.
struct Bucket {
    left: u32,
    burst: u32,
    per_second: u32,
    filled_ms: u64,
}

impl Bucket {
    fn new(burst: u32, per_second: u32, now_ms: u64) -> Bucket {
        Bucket { left: burst, burst, per_second, filled_ms: now_ms }
    }

    /// Takes one token; false when there is none.
    fn take(&mut self, now_ms: u64) -> bool {
        if self.left == 0 {
            let passed = now_ms.saturating_sub(self.filled_ms).min(1_000_000);
            let more = passed * u64::from(self.per_second) / 1000;
            if more == 0 {
                return false;
            }
            self.left = more.min(u64::from(self.burst)) as u32;
            self.filled_ms = now_ms;
        }
        self.left -= 1;
        true
    }
}

/// What one connection has spent of its patience.
pub(crate) struct Abuse {
    resets: Bucket,
    settings: Bucket,
    idle_frames: Bucket,
    crumbs_exhausted: bool,
}

impl Abuse {
    pub(crate) fn new(now_ms: u64) -> Abuse {
        Abuse {
            resets: Bucket::new(RESET_BURST, RESET_PER_SECOND, now_ms),
            settings: Bucket::new(SETTINGS_BURST, SETTINGS_PER_SECOND, now_ms),
            idle_frames: Bucket::new(IDLE_FRAME_BURST, IDLE_FRAME_PER_SECOND, now_ms),
            crumbs_exhausted: false,
        }
    }

    /// A stream was cancelled young, or had to be reset for the client's error.
    pub(crate) fn reset(&mut self, now_ms: u64) -> Result<(), Error> {
        if self.resets.take(now_ms) { Ok(()) } else { Err(Error::Flood("too many stream resets")) }
    }

    /// A SETTINGS frame.
    pub(crate) fn settings(&mut self, now_ms: u64) -> Result<(), Error> {
        if self.settings.take(now_ms) { Ok(()) } else { Err(Error::Flood("too many settings")) }
    }

    /// A frame that moves nothing on.
    pub(crate) fn idle_frame(&mut self, now_ms: u64) -> Result<(), Error> {
        if self.idle_frames.take(now_ms) {
            Ok(())
        } else {
            Err(Error::Flood("too many frames without effect"))
        }
    }

    /// The client's windows made us cut a tiny DATA frame. Noticed here, acted upon with the next input.
    pub(crate) fn crumb(&mut self, now_ms: u64) {
        self.crumbs_exhausted |= !self.idle_frames.take(now_ms);
    }

    /// Whether crumbs have used up the patience.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.crumbs_exhausted { Err(Error::Flood("windows too small to be meant")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_pass_and_floods_do_not() {
        let mut b = Bucket::new(5, 10, 0);
        assert_eq!((0..10).filter(|_| b.take(0)).count(), 5);
        assert!(!b.take(99));
        assert_eq!((0..10).filter(|_| b.take(300)).count(), 3);
        assert_eq!((0..100).filter(|_| b.take(1_000_000)).count(), 5);
    }
}

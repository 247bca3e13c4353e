//! What happens as time passes: keepalive pings, deadlines of calls, the steps of a graceful close.

use crate::connection::{Connection, Stage};
use crate::error::{Error, Reason};
use crate::frame;
use crate::limits::{DEADLINE_FINE_STREAMS, DEADLINE_STEP_MS, DRAIN_WAIT_MS, HANDSHAKE_MS};
use crate::message::code;
use crate::sink::Sink;

/// The graceful close of RFC 9113 section 6.8, as grpc-go does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// Said that no more streams should come; those on their way are still taken.
    Announced {
        since_ms: u64,
    },
    /// Said which stream was the last.
    Last,
}

/// What the PING behind the first GOAWAY carries.
const DRAIN_PING: [u8; 8] = *b"goaway!\0";
const KEEPALIVE_PING: [u8; 8] = [0; 8];

/// Clocks of one connection.
pub(crate) struct Timers {
    opened_ms: u64,
    last_read_ms: u64,
    ping_sent_ms: Option<u64>,
    drain: Drain,
    /// No open call has an earlier deadline. It may have been of a call that is over: then a look finds nothing.
    deadline_ms: u64,
    deadlines_seen_ms: u64,
    pub(crate) last_ping_ms: Option<u64>,
    pub(crate) ping_strikes: u32,
}

impl Timers {
    pub(crate) fn new(now_ms: u64) -> Timers {
        Timers {
            opened_ms: now_ms,
            last_read_ms: now_ms,
            ping_sent_ms: None,
            drain: Drain::No,
            deadline_ms: u64::MAX,
            deadlines_seen_ms: 0,
            last_ping_ms: None,
            ping_strikes: 0,
        }
    }

    pub(crate) fn read(&mut self, now_ms: u64) {
        self.last_read_ms = now_ms;
        self.ping_sent_ms = None;
    }

    #[inline]
    pub(crate) fn note_deadline(&mut self, deadline_ms: u64) {
        self.deadline_ms = self.deadline_ms.min(deadline_ms);
    }

    pub(crate) fn is_draining_last(&self) -> bool {
        self.drain == Drain::Last
    }
}

impl Connection {
    /// Lets time pass. Call it no later than [`next_wakeup`](Connection::next_wakeup) says; sooner does no harm.
    pub fn on_time<S: Sink>(&mut self, now_ms: u64, sink: &mut S) -> Result<(), Error> {
        self.replies.now_ms = now_ms;
        if self.stage == Stage::Dead {
            return Ok(());
        }
        let result = self.keepalive(now_ms);
        if let Err(error) = result {
            self.fail(error);
            return result;
        }
        if let Drain::Announced { since_ms } = self.timers.drain
            && now_ms >= since_ms + DRAIN_WAIT_MS
        {
            self.drain_last();
        }
        if now_ms >= self.deadline_look() {
            self.expire(now_ms, sink);
        }
        Ok(())
    }

    /// When [`on_time`](Connection::on_time) has something to do next.
    pub fn next_wakeup(&self) -> Option<u64> {
        if self.stage == Stage::Dead {
            return None;
        }
        let mut next = self.deadline_look().min(self.keepalive_look());
        if let Drain::Announced { since_ms } = self.timers.drain {
            next = next.min(since_ms + DRAIN_WAIT_MS);
        }
        (next != u64::MAX).then_some(next)
    }

    /// Stops taking new calls, lets the open ones finish. [`is_closed`](Connection::is_closed) tells when they have.
    pub fn graceful_close(&mut self, now_ms: u64) {
        if self.timers.drain != Drain::No || self.stage == Stage::Dead {
            return;
        }
        self.timers.drain = Drain::Announced { since_ms: now_ms };
        let out = self.replies.out.buf();
        frame::put_goaway(out, 0x7fff_ffff, Reason::NoError, b"graceful_stop");
        frame::put_ping(out, false, &DRAIN_PING);
    }

    pub(crate) fn ping_acknowledged(&mut self, data: &[u8; 8]) {
        if matches!(self.timers.drain, Drain::Announced { .. }) && *data == DRAIN_PING {
            self.drain_last();
        }
    }

    fn drain_last(&mut self) {
        self.timers.drain = Drain::Last;
        frame::put_goaway(self.replies.out.buf(), self.max_stream, Reason::NoError, b"graceful_stop");
    }

    fn keepalive_look(&self) -> u64 {
        let t = &self.timers;
        if self.stage != Stage::Open {
            return t.opened_ms + HANDSHAKE_MS;
        }
        match t.ping_sent_ms {
            Some(sent) => sent.saturating_add(self.settings.keepalive_timeout_ms),
            None => t.last_read_ms.saturating_add(self.settings.keepalive_interval_ms),
        }
    }

    fn keepalive(&mut self, now_ms: u64) -> Result<(), Error> {
        if now_ms < self.keepalive_look() {
            return Ok(());
        }
        if self.stage != Stage::Open {
            return Err(Error::HandshakeTimeout);
        }
        if self.timers.ping_sent_ms.is_some() {
            return Err(Error::KeepaliveTimeout);
        }
        self.timers.ping_sent_ms = Some(now_ms);
        frame::put_ping(self.replies.out.buf(), false, &KEEPALIVE_PING);
        Ok(())
    }

    fn deadline_look(&self) -> u64 {
        let t = &self.timers;
        if self.replies.open_calls() > DEADLINE_FINE_STREAMS {
            t.deadline_ms.max(t.deadlines_seen_ms + DEADLINE_STEP_MS)
        } else {
            t.deadline_ms
        }
    }

    /// Ends the calls whose deadline has passed, and finds the next one.
    fn expire<S: Sink>(&mut self, now_ms: u64, sink: &mut S) {
        self.timers.deadlines_seen_ms = now_ms;
        self.timers.deadline_ms = u64::MAX;
        let slots: Vec<usize> = self.replies.streams.open_slots().collect();
        for slot in slots {
            let s = self.replies.streams.at(slot);
            if s.id == 0 || s.deadline_ms > now_ms {
                self.timers.note_deadline(s.deadline_ms);
                continue;
            }
            s.deadline_ms = u64::MAX;
            if s.queue.len() == 0 && s.is_answerable() {
                self.fail_call(slot, code::DEADLINE_EXCEEDED, "context deadline exceeded", sink);
            } else {
                // Part of an answer is out, the rest is of no use any more.
                let id = s.id;
                self.drop_stream(slot, sink);
                self.replies.reset_id(id, Reason::Cancel);
            }
        }
    }
}

//! Frames about the connection, or about a stream but not its content.

use crate::connection::Connection;
use crate::error::{Error, Reason};
use crate::frame::{self, Head, be32, flag, kind, setting};
use crate::limits::{PING_IDLE_MS, PING_STRIKES_MAX, RESET_YOUNG_MS, WINDOW_MAX};
use crate::sink::Sink;

impl Connection {
    pub(crate) fn on_settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return Err(Error::Protocol("SETTINGS on a stream"));
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(Error::FrameSize("SETTINGS acknowledgement with a payload"));
            }
            return self.replies.abuse.idle_frame(self.replies.now_ms);
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Error::FrameSize("SETTINGS of a length that is no multiple of six"));
        }
        self.replies.abuse.settings(self.replies.now_ms)?;
        for entry in payload.chunks_exact(6) {
            self.apply_setting(u16::from_be_bytes([entry[0], entry[1]]), be32(&entry[2..]))?;
        }
        frame::put_head(self.replies.out.buf(), 0, kind::SETTINGS, flag::ACK, 0);
        Ok(())
    }

    fn apply_setting(&mut self, id: u16, value: u32) -> Result<(), Error> {
        match id {
            setting::HEADER_TABLE_SIZE => self.replies.encoder.peer_table_size(value),
            setting::ENABLE_PUSH if value > 1 => return Err(Error::Protocol("bad SETTINGS_ENABLE_PUSH")),
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > WINDOW_MAX {
                    return Err(Error::FlowControl("SETTINGS_INITIAL_WINDOW_SIZE too large"));
                }
                self.change_windows(i64::from(value))?;
            }
            setting::MAX_FRAME_SIZE if !(16_384..=16_777_215).contains(&value) => {
                return Err(Error::Protocol("bad SETTINGS_MAX_FRAME_SIZE"));
            }
            // We never push, send frames of the smallest maximum, and short header lists.
            _ => {}
        }
        Ok(())
    }

    /// A new initial window moves the window of every open stream by the difference, below zero if need be.
    fn change_windows(&mut self, window: i64) -> Result<(), Error> {
        let delta = window - self.peer_stream_window;
        self.peer_stream_window = window;
        if delta == 0 {
            return Ok(());
        }
        let slots: Vec<usize> = self.replies.streams.open_slots().collect();
        for slot in slots {
            let s = self.replies.streams.at(slot);
            s.send_window += delta;
            if s.send_window > WINDOW_MAX {
                return Err(Error::FlowControl("a stream's window grew too large"));
            }
            self.replies.streams.make_ready(slot);
        }
        Ok(())
    }

    pub(crate) fn on_window_update<S: Sink>(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut S,
    ) -> Result<(), Error> {
        if payload.len() != 4 {
            return Err(Error::FrameSize("WINDOW_UPDATE of a wrong length"));
        }
        let more = i64::from(be32(payload) & 0x7fff_ffff);
        if head.stream == 0 {
            if more == 0 {
                return Err(Error::Protocol("WINDOW_UPDATE by zero"));
            }
            self.replies.send_window += more;
            if self.replies.send_window > WINDOW_MAX {
                return Err(Error::FlowControl("the connection's window grew too large"));
            }
            return Ok(());
        }
        self.check_not_idle(head.stream)?;
        let Some(slot) = self.replies.streams.find(head.stream) else {
            if more == 0 {
                self.replies.reset_id(head.stream, Reason::Protocol);
                return self.replies.abuse.reset(self.replies.now_ms);
            }
            return Ok(());
        };
        let s = self.replies.streams.at(slot);
        s.send_window += more;
        if more == 0 {
            return self.stream_error(slot, Reason::Protocol, sink);
        }
        if s.send_window > WINDOW_MAX {
            return self.stream_error(slot, Reason::FlowControl, sink);
        }
        self.replies.streams.make_ready(slot);
        Ok(())
    }

    fn check_not_idle(&self, stream: u32) -> Result<(), Error> {
        if stream & 1 == 0 || stream > self.max_stream {
            return Err(Error::Protocol("frame on an idle stream"));
        }
        Ok(())
    }

    pub(crate) fn on_rst_stream<S: Sink>(
        &mut self,
        head: Head,
        payload: &[u8],
        sink: &mut S,
    ) -> Result<(), Error> {
        if payload.len() != 4 {
            return Err(Error::FrameSize("RST_STREAM of a wrong length"));
        }
        self.check_not_idle(head.stream)?;
        let now = self.replies.now_ms;
        let Some(slot) = self.replies.streams.find(head.stream) else {
            self.replies.forget_reset(head.stream);
            return self.replies.abuse.idle_frame(now);
        };
        let s = self.replies.streams.at(slot);
        // Answered calls and long-lived streams are cancelled for good reasons; work thrown away at once is not.
        if !s.ended && now.saturating_sub(s.opened_ms) < RESET_YOUNG_MS {
            self.replies.abuse.reset(now)?;
        }
        self.drop_stream(slot, sink);
        Ok(())
    }

    pub(crate) fn on_priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream == 0 {
            return Err(Error::Protocol("PRIORITY without a stream"));
        }
        if payload.len() != 5 {
            return Err(Error::FrameSize("PRIORITY of a wrong length"));
        }
        if be32(payload) & 0x7fff_ffff == head.stream {
            return Err(Error::Protocol("a stream that depends on itself"));
        }
        self.replies.abuse.idle_frame(self.replies.now_ms)
    }

    pub(crate) fn on_goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return Err(Error::Protocol("GOAWAY on a stream"));
        }
        if payload.len() < 8 {
            return Err(Error::FrameSize("GOAWAY too short"));
        }
        // The client opens no more streams; those that are open go on.
        self.replies.abuse.idle_frame(self.replies.now_ms)
    }

    pub(crate) fn on_ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return Err(Error::Protocol("PING on a stream"));
        }
        let data: &[u8; 8] = payload.try_into().map_err(|_| Error::FrameSize("PING of a wrong length"))?;
        if head.has(flag::ACK) {
            self.ping_acknowledged(data);
            return self.replies.abuse.idle_frame(self.replies.now_ms);
        }
        frame::put_ping(self.replies.out.buf(), true, data);
        self.judge_ping()
    }

    /// The keepalive policy, as grpc-go applies it.
    fn judge_ping(&mut self) -> Result<(), Error> {
        let now = self.replies.now_ms;
        let last = self.timers.last_ping_ms.replace(now);
        if std::mem::take(&mut self.replies.ping_reset) {
            self.timers.ping_strikes = 0;
            return Ok(());
        }
        let apart = if self.replies.active() == 0 && !self.settings.permit_without_stream {
            PING_IDLE_MS
        } else {
            self.settings.keepalive_min_ms
        };
        if last.is_some_and(|last| last.saturating_add(apart) > now) {
            self.timers.ping_strikes += 1;
        }
        if self.timers.ping_strikes > PING_STRIKES_MAX { Err(Error::TooManyPings) } else { Ok(()) }
    }
}

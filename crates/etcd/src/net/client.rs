//! One connection of a client: the codec, the socket, the calls that wait for an answer.

use std::io::IoSlice;
use std::rc::Rc;

use bytes::Buf;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::net::io::Stream;
use crate::v3rpc::{Desk, Handler, Waiting};

/// Calls that wait for something on other threads, by stream.
pub(crate) type Calls = HashMap<u32, Waiting, FixedState>;

/// Slices given to one vectored write.
const SLICES_MAX: usize = 64;
/// Input kept for a frame that is not whole yet, or while output waits for the socket.
const CARRY_MAX_BYTES: usize = 1 << 20;
/// Bytes written to one connection in a turn: the kernel copies some gigabytes a second, and others wait meanwhile. Less
/// would wake the reader more often, which costs more than the copy.
const TURN_WRITE_BYTES: usize = 1 << 20;

/// What became of a connection in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    Closed,
}

/// See the head of this file.
pub(crate) struct Client {
    pub(crate) connection: grpc::Connection,
    pub(crate) calls: Calls,
    stream: Rc<Stream>,
    /// Input that is not used yet.
    carry: Vec<u8>,
    /// The socket took less than there was.
    pub(crate) wants_write: bool,
    /// It wants to write only because its turn was over.
    pub(crate) has_had_its_turn: bool,
    /// Set while it stands in the turn's list of connections to write.
    pub(crate) is_dirty: bool,
    /// Set when nothing more is read: the process stops.
    pub(crate) is_draining: bool,
    /// Wakes the task that waits on the socket.
    pub(crate) wake: Rc<Notify>,
    /// When `on_time` is due, as entered in the thread's timers.
    pub(crate) timer: Option<u64>,
}

impl Client {
    /// A connection whose first bytes, already read, are `first`.
    pub(crate) fn new(settings: grpc::Settings, now_ms: u64, stream: Rc<Stream>, first: Vec<u8>) -> Client {
        Client {
            connection: grpc::Connection::new(settings, now_ms),
            calls: Calls::default(),
            stream,
            carry: first,
            wants_write: false,
            has_had_its_turn: false,
            is_dirty: false,
            is_draining: false,
            wake: Rc::new(Notify::new()),
            timer: None,
        }
    }

    /// Reads once and hands what is complete to the services.
    pub(crate) fn on_readable(&mut self, number: u32, desk: &mut Desk, buffer: &mut [u8]) -> State {
        if !self.connection.wants_input() {
            return State::Open;
        }
        let read = match self.stream.read(buffer) {
            Ok(Some(0)) | Err(_) => return State::Closed,
            Ok(Some(read)) => read,
            Ok(None) => return State::Open,
        };
        if self.carry.is_empty() {
            let (state, used) = self.receive(number, desk, &buffer[..read]);
            self.carry.extend_from_slice(&buffer[used..read]);
            return self.bounded(state);
        }
        self.carry.extend_from_slice(&buffer[..read]);
        self.on_carried(number, desk)
    }

    /// Goes on with input that was left over.
    pub(crate) fn on_carried(&mut self, number: u32, desk: &mut Desk) -> State {
        let carry = std::mem::take(&mut self.carry);
        let (state, used) = self.receive(number, desk, &carry);
        self.carry = carry;
        self.carry.drain(..used);
        self.bounded(state)
    }

    fn bounded(&mut self, state: State) -> State {
        if self.carry.is_empty() {
            self.carry = Vec::new();
        }
        if self.carry.len() > CARRY_MAX_BYTES { State::Closed } else { state }
    }

    fn receive(&mut self, number: u32, desk: &mut Desk, input: &[u8]) -> (State, usize) {
        let now = desk.now_ms();
        desk.begin_reads();
        if desk.metrics().measures_calls() {
            self.connection.replies().tally().keep_times();
        }
        let mut handler = Handler { desk, calls: &mut self.calls, connection: number };
        match self.connection.receive(now, input, &mut handler) {
            Ok(used) => (State::Open, used),
            Err(error) => {
                desk.broken(&self.stream.remote(), error);
                (State::Closed, input.len())
            }
        }
    }

    /// Writes what there is, as far as the socket takes it and the turn allows.
    pub(crate) fn flush(&mut self, desk: &mut Desk) -> State {
        self.wants_write = false;
        self.has_had_its_turn = false;
        desk.count(self.connection.replies());
        let mut share = TURN_WRITE_BYTES;
        loop {
            let out = self.connection.output();
            if out.is_empty() {
                return self.flushed();
            }
            if share == 0 {
                self.wants_write = true;
                self.has_had_its_turn = true;
                self.wake.notify_one();
                return State::Open;
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let filled = out.slices(&mut slices, share);
            match self.stream.write(&slices[..filled]) {
                Ok(Some(written)) => {
                    share -= written;
                    self.connection.output().advance(written);
                }
                Ok(None) => {
                    self.wants_write = true;
                    self.wake.notify_one();
                    return State::Open;
                }
                Err(_) => return State::Closed,
            }
        }
    }

    /// Everything was taken: whether it has left, too.
    fn flushed(&mut self) -> State {
        match self.stream.flush() {
            Ok(true) if self.connection.is_closed() => State::Closed,
            Ok(true) => State::Open,
            Ok(false) => {
                self.wants_write = true;
                self.wake.notify_one();
                State::Open
            }
            Err(_) => State::Closed,
        }
    }

    /// Tells the client that nothing more comes.
    pub(crate) fn say_goodbye(&self) {
        self.stream.say_goodbye();
    }

    /// Where it comes from.
    pub(crate) fn remote(&self) -> String {
        self.stream.remote()
    }

    /// Whether input waits only for output to leave.
    pub(crate) fn has_carried(&self) -> bool {
        !self.carry.is_empty() && self.connection.stopped_early() && self.connection.wants_input()
    }

    /// Does what has become due.
    pub(crate) fn on_time(&mut self, number: u32, desk: &mut Desk) -> State {
        let now = desk.now_ms();
        let mut handler = Handler { desk, calls: &mut self.calls, connection: number };
        match self.connection.on_time(now, &mut handler) {
            Ok(()) => State::Open,
            Err(_) => State::Closed,
        }
    }

    /// The connection is gone: whoever works for its calls is told.
    pub(crate) fn abandon(&mut self, number: u32, desk: &mut Desk) {
        let mut handler = Handler { desk, calls: &mut self.calls, connection: number };
        self.connection.abandon(&mut handler);
        desk.count(self.connection.replies());
        let watches = self.calls.drain().filter(|(_, waiting)| matches!(waiting, Waiting::Watch { .. })).map(|(call, _)| call);
        desk.watch.drop_connection(number, watches);
        desk.watch_wake.notify_one();
    }
}

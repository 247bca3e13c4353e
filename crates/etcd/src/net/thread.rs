//! A network thread: its connections, its turn, its mail.
//!
//! Tasks of the runtime share [`Edge`] through a `RefCell`; none of them holds it over an await. A turn is what the
//! runtime does between two looks at the sockets: connections fill [`Desk`], and the `flusher` task, woken by the
//! first of them and therefore run after all that were ready, sends the batch and writes the answers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::http;
use crate::logging::Level;
use crate::member::handle::{Mail, Shared};
use crate::metrics::file_limit;
use crate::net::client::{Client, State};
use crate::net::enter::{Greeting, Serves, first_bytes, is_tls};
use crate::net::io::{Socket, Stream};
use crate::net::listen::{Entrance, Listener, Way};
use crate::v3rpc::Desk;

/// Bytes read from a socket at a time.
const READ_BUFFER_BYTES: usize = 256 << 10;
/// Longest wait for the first bytes of a connection.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest wait for answers and for clients to go when the process stops.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(500);

/// Descriptors that clients leave to the member: log, database, listeners, peers. Go's number.
const DESCRIPTORS_RESERVED: usize = 150;
/// How long to wait before looking again for room for a connection.
const ROOM_WAIT: Duration = Duration::from_millis(20);

/// Connections that each network thread may hold: without a descriptor for its next segment the log would end the
/// process, so that clients must not be able to take them all. With too few to begin with the process ends here.
fn connections_max(shared: &Shared) -> usize {
    let limit = match usize::try_from(file_limit()) {
        // Where the system does not say, accepting fails when there are no descriptors.
        Ok(0) | Err(_) => return usize::MAX,
        Ok(limit) => limit,
    };
    if limit <= DESCRIPTORS_RESERVED {
        shared.logger.fatal(
            "file descriptor limit of etcd process is too low; please set higher",
            &[("limit", (limit as u64).into()), ("recommended-limit", (DESCRIPTORS_RESERVED as u64).into())],
        );
    }
    ((limit - DESCRIPTORS_RESERVED) / shared.networks.len().max(1)).max(1)
}

/// A connection that counts while it lives.
struct Open(Rc<Thread>);

impl Open {
    fn count(thread: &Rc<Thread>) -> Open {
        thread.open.set(thread.open.get() + 1);
        Open(thread.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

/// Everything a network thread owns.
pub(crate) struct Edge {
    clients: HashMap<u32, Box<Client>, FixedState>,
    next_client: u32,
    pub(crate) desk: Desk,
    buffer: Vec<u8>,
    timers: BTreeSet<(u64, u32)>,
}

/// The edge and what wakes its tasks.
pub(crate) struct Thread {
    pub(crate) edge: RefCell<Edge>,
    flush: Notify,
    timer_moved: Notify,
    closing: Notify,
    /// Connections, and how many there may be.
    open: Cell<usize>,
    open_max: usize,
}

impl Thread {
    /// The state of network thread `number`.
    pub(crate) fn new(number: u16, shared: Arc<Shared>) -> Rc<Thread> {
        let open_max = connections_max(&shared);
        Rc::new(Thread {
            edge: RefCell::new(Edge {
                clients: HashMap::default(),
                next_client: 1,
                desk: Desk::new(number, shared),
                buffer: vec![0; READ_BUFFER_BYTES],
                timers: BTreeSet::new(),
            }),
            flush: Notify::new(),
            timer_moved: Notify::new(),
            closing: Notify::new(),
            open: Cell::new(0),
            open_max,
        })
    }

    /// Runs until the process stops.
    pub(crate) async fn run(self: Rc<Thread>, entrances: Vec<Entrance>) {
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                for entrance in entrances {
                    tokio::task::spawn_local(self.clone().accept(entrance));
                }
                tokio::task::spawn_local(self.clone().flusher());
                tokio::task::spawn_local(self.clone().timekeeper());
                tokio::task::spawn_local(self.clone().watch_worker());
                tokio::task::spawn_local(self.clone().list_worker());
                self.clone().mail().await;
                self.drain().await;
            })
            .await;
    }

    async fn accept(self: Rc<Thread>, entrance: Entrance) {
        let Entrance { listener, way } = entrance;
        match listener {
            Listener::Tcp(listener) => {
                let listener = tokio::net::TcpListener::from_std(listener).expect("the runtime has I/O");
                loop {
                    self.room().await;
                    match listener.accept().await {
                        Ok((stream, _)) => {
                            // Without it small answers wait for the client's acknowledgements.
                            if stream.set_nodelay(true).is_ok() {
                                self.clone().take(Socket::Tcp(stream), &way).await;
                            }
                        }
                        Err(error) => self.accept_failed(&error).await,
                    }
                }
            }
            Listener::Unix(listener) => {
                let listener = tokio::net::UnixListener::from_std(listener).expect("the runtime has I/O");
                loop {
                    self.room().await;
                    match listener.accept().await {
                        Ok((stream, _)) => self.clone().take(Socket::Unix(stream), &way).await,
                        Err(error) => self.accept_failed(&error).await,
                    }
                }
            }
        }
    }

    /// Out of descriptors, mostly: connections in the backlog wait until some are free.
    async fn accept_failed(&self, error: &std::io::Error) {
        let text = error.to_string();
        self.edge.borrow().desk.shared.logger.warn("failed to accept a connection", &[("error", text.into())]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    /// Waits until another connection may be accepted; those in the backlog wait as well.
    async fn room(&self) {
        while self.open.get() >= self.open_max {
            tokio::time::sleep(ROOM_WAIT).await;
        }
    }

    /// Gives a connection a task of its own; waits while too many handshakes are under way.
    async fn take(self: Rc<Thread>, socket: Socket, way: &Way) {
        let open = Open::count(&self);
        let serves = way.serves;
        let Some(tls) = way.tls.clone() else {
            tokio::task::spawn_local(async move { self.greet(Stream::plain(socket), serves, Vec::new(), open).await });
            return;
        };
        let pass = tls.enter().await;
        let also_clear = way.in_clear;
        tokio::task::spawn_local(async move {
            let mut received = Vec::new();
            if also_clear {
                // The first byte tells; until it is there, this holds a place like a handshake.
                let first = tokio::select! {
                    first = is_tls(&socket, &mut received) => first,
                    () = pass.must_give_way() => return,
                };
                match first {
                    None => return,
                    Some(true) => {}
                    Some(false) => {
                        drop(pass);
                        return self.greet(Stream::plain(socket), serves, received, open).await;
                    }
                }
            }
            if let Some(stream) = tls.accept(pass, socket, received).await {
                self.greet(stream, serves, Vec::new(), open).await;
            }
        });
    }

    /// Finds out what a connection speaks, and serves it.
    async fn greet(self: Rc<Thread>, stream: Stream, serves: Serves, first: Vec<u8>, open: Open) {
        if let Some(name) = stream.common_name() {
            let fields = [("common-name", name.into()), ("remote-addr", stream.remote().into())];
            self.edge.borrow().desk.shared.logger.named("", Level::Debug, "found common name", &fields);
        }
        let greeting = tokio::time::timeout(FIRST_BYTES_TIMEOUT, first_bytes(&stream, serves, first)).await;
        match greeting {
            Ok(Some((Greeting::Http2, first))) => self.serve(stream, first, serves).await,
            Ok(Some((Greeting::Http1, first))) => {
                let shared = self.edge.borrow().desk.shared.clone();
                http::serve_client(stream, first, shared).await;
            }
            // Closed, broken or silent: nothing was asked.
            Ok(None) | Err(_) => {}
        }
        drop(open);
    }

    /// Moves bytes of one gRPC connection until it ends.
    async fn serve(self: Rc<Thread>, stream: Stream, first: Vec<u8>, serves: Serves) {
        let stream = Rc::new(stream);
        let (number, wake) = {
            let mut edge = self.edge.borrow_mut();
            let number = edge.next_client;
            edge.next_client = edge.next_client.wrapping_add(1).max(1);
            let (mut settings, now) = (edge.desk.shared.grpc.clone(), edge.desk.now_ms());
            // In the clear, HTTP/2 is for gRPC alone, as in etcd.
            settings.plain = match serves {
                _ if !stream.is_secure() => grpc::Plain::Refused,
                Serves::GrpcOnly => grpc::Plain::Refused,
                Serves::GrpcAndHttp => grpc::Plain::Also,
                Serves::HttpOnly => grpc::Plain::Only,
            };
            let client = Box::new(Client::new(settings, now, stream.clone(), first));
            let wake = client.wake.clone();
            edge.clients.insert(number, client);
            (number, wake)
        };
        let mut state = self.step(number, |client, desk, _| client.on_carried(number, desk));
        while state == State::Open {
            let Some((reads, writes, carries_on)) = self.interest(number) else { return };
            // A socket that is always ready would otherwise keep the thread from everybody else, and so would a
            // connection that has made or written as much as fits a turn and has more.
            if carries_on {
                tokio::task::yield_now().await;
            } else {
                tokio::task::coop::consume_budget().await;
            }
            tokio::select! {
                biased;
                ready = stream.ready(reads, writes), if reads || writes => {
                    state = match ready {
                        Err(_) => State::Closed,
                        Ok(()) => self.step(number, |client, desk, buffer| {
                            if client.wants_write && client.flush(desk) == State::Closed {
                                return State::Closed;
                            }
                            if client.has_carried() {
                                client.on_carried(number, desk)
                            } else {
                                client.on_readable(number, desk, buffer)
                            }
                        }),
                    };
                }
                () = wake.notified() => {}
            }
        }
        self.close(number);
    }

    /// What the task of a connection waits for, reading and writing, and whether it can go on without the socket
    /// but others go first; `None` when the connection is gone.
    fn interest(&self, number: u32) -> Option<(bool, bool, bool)> {
        let edge = self.edge.borrow();
        let client = edge.clients.get(&number)?;
        Some((client.connection.wants_input(), client.wants_write, client.has_had_its_turn || client.has_carried()))
    }

    /// Does one thing with a connection, and sees to it that its output is written at the end of the turn.
    fn step(&self, number: u32, act: impl FnOnce(&mut Client, &mut Desk, &mut [u8]) -> State) -> State {
        let mut edge = self.edge.borrow_mut();
        let Edge { clients, desk, buffer, .. } = &mut *edge;
        let Some(client) = clients.get_mut(&number) else { return State::Closed };
        let state = act(client, desk, buffer);
        if !client.is_dirty {
            client.is_dirty = true;
            desk.turn.dirty.push(number);
        }
        drop(edge);
        self.move_timer(number);
        self.flush.notify_one();
        state
    }

    fn close(&self, number: u32) {
        let mut edge = self.edge.borrow_mut();
        let Edge { clients, desk, timers, .. } = &mut *edge;
        let Some(mut client) = clients.remove(&number) else { return };
        // What the client should still be told (GOAWAY) goes out if the socket takes it at once.
        client.flush(desk);
        client.say_goodbye();
        client.abandon(number, desk);
        if let Some(at) = client.timer {
            timers.remove(&(at, number));
        }
        drop(edge);
        self.closing.notify_one();
        self.flush.notify_one();
    }

    /// Sends the turn's batch and writes the turn's answers.
    async fn flusher(self: Rc<Thread>) {
        loop {
            self.flush.notified().await;
            self.flush_turn();
        }
    }

    fn flush_turn(&self) {
        let mut edge = self.edge.borrow_mut();
        let Edge { clients, desk, .. } = &mut *edge;
        desk.send_turn();
        let mut dirty = std::mem::take(&mut desk.turn.dirty);
        for number in dirty.drain(..) {
            let Some(client) = clients.get_mut(&number) else { continue };
            client.is_dirty = false;
            let before = client.connection.wants_input();
            if client.flush(desk) == State::Closed {
                desk.turn.closed.push(number);
                continue;
            }
            // Its task waits for the socket alone: it must look again at what it waits for.
            if before != client.connection.wants_input() || client.has_carried() {
                client.wake.notify_one();
            }
            desk.after_flush(number, clients);
        }
        if desk.turn.dirty.is_empty() {
            desk.turn.dirty = dirty;
        }
        let closed = std::mem::take(&mut desk.turn.closed);
        let again = !desk.turn.is_empty();
        drop(edge);
        for number in closed {
            self.close(number);
        }
        if again {
            self.flush.notify_one();
        }
    }

    /// Takes answers, events and orders from the other threads.
    async fn mail(self: Rc<Thread>) {
        let (shared, number) = {
            let edge = self.edge.borrow();
            (edge.desk.shared.clone(), edge.desk.thread)
        };
        let mailbox = &shared.networks[usize::from(number)];
        let mut batch = Vec::new();
        loop {
            mailbox.waker().0.notified().await;
            mailbox.take(&mut batch);
            let mut edge = self.edge.borrow_mut();
            let Edge { clients, desk, .. } = &mut *edge;
            let mut stop = false;
            for mail in batch.drain(..) {
                stop |= matches!(mail, Mail::Stop);
                desk.deliver(mail, clients);
            }
            drop(edge);
            self.flush_turn();
            if stop {
                return;
            }
        }
    }

    /// Deadlines and pings.
    async fn timekeeper(self: Rc<Thread>) {
        loop {
            let (now, next) = {
                let edge = self.edge.borrow();
                (edge.desk.now_ms(), edge.timers.first().copied())
            };
            match next {
                Some((at, number)) if at <= now => {
                    self.edge.borrow_mut().timers.remove(&(at, number));
                    let state = self.step(number, |client, desk, _| {
                        client.timer = None;
                        client.on_time(number, desk)
                    });
                    if state == State::Closed {
                        self.close(number);
                    }
                }
                Some((at, _)) => {
                    let wait = tokio::time::sleep(Duration::from_millis(at - now));
                    tokio::select! { () = wait => {}, () = self.timer_moved.notified() => {} }
                }
                None => self.timer_moved.notified().await,
            }
        }
    }

    fn move_timer(&self, number: u32) {
        let mut edge = self.edge.borrow_mut();
        let Edge { clients, timers, .. } = &mut *edge;
        let Some(client) = clients.get_mut(&number) else { return };
        let next = client.connection.next_wakeup();
        // An entry that comes too early costs one look; only a later one would be wrong.
        if next.is_none_or(|next| client.timer.is_some_and(|at| at <= next)) {
            return;
        }
        if let Some(at) = client.timer {
            timers.remove(&(at, number));
        }
        client.timer = next;
        let at = next.expect("checked above");
        timers.insert((at, number));
        if timers.first() == Some(&(at, number)) {
            self.timer_moved.notify_one();
        }
    }

    /// Lets watchers that are behind read history, a bounded step at a time, and sends periodic progress.
    async fn watch_worker(self: Rc<Thread>) {
        loop {
            let (more, wait) = {
                let mut edge = self.edge.borrow_mut();
                let Edge { clients, desk, .. } = &mut *edge;
                desk.watch_step(clients)
            };
            self.flush.notify_one();
            if more {
                tokio::task::yield_now().await;
                continue;
            }
            let wake = self.edge.borrow().desk.watch_wake.clone();
            tokio::select! { () = wake.notified() => {}, () = tokio::time::sleep(wait) => {} }
        }
    }

    /// Answers lists that were put off, one in a turn.
    async fn list_worker(self: Rc<Thread>) {
        let wake = self.edge.borrow().desk.lists_wake.clone();
        loop {
            wake.notified().await;
            while self.next_list() {
                self.flush.notify_one();
                tokio::task::yield_now().await;
            }
        }
    }

    fn next_list(&self) -> bool {
        let Edge { clients, desk, .. } = &mut *self.edge.borrow_mut();
        desk.next_list(clients)
    }

    /// Says goodbye to every client and waits a moment for answers to leave.
    async fn drain(self: Rc<Thread>) {
        {
            let mut edge = self.edge.borrow_mut();
            let Edge { clients, desk, .. } = &mut *edge;
            let now = desk.now_ms();
            for (number, client) in clients.iter_mut() {
                client.is_draining = true;
                client.connection.graceful_close(now);
                desk.turn.dirty.push(*number);
            }
            desk.end_streams(clients);
        }
        self.flush_turn();
        let gone = async {
            while !self.edge.borrow().clients.is_empty() {
                self.closing.notified().await;
            }
        };
        let _some_stay = tokio::time::timeout(DRAIN_TIMEOUT, gone).await;
    }
}

//! A server around the codec, as small as one can be: `echo_server ADDRESS [plain]`. For h2spec and for trying clients.
//!
//! `/echo.Echo/Unary` echoes, `/echo.Echo/Never` does not answer, `/echo.Echo/List` answers with as many bytes as the first
//! four bytes of the request say, `/echo.Echo/Bidi` echoes message by message. With `plain`, requests that are not
//! gRPC are answered with their body, or with a few kilobytes where they have none. A line on standard input closes all
//! connections gracefully.
#![allow(clippy::disallowed_methods, reason = "a process has a clock")]

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use grpc::limits::READ_BUFFER_MIN_BYTES;
use grpc::{Connection, Kind, Metadata, Method, PlainRequest, Replies, Settings, Sink};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

const UNARY: u16 = 0;
const NEVER: u16 = 1;
const LIST: u16 = 2;
const BIDI: u16 = 3;

struct Echo;

impl Sink for Echo {
    fn method(&mut self, path: &[u8]) -> Option<Method> {
        let (id, kind) = match path {
            b"/echo.Echo/Unary" | b"/etcdserverpb.KV/Put" => (UNARY, Kind::Unary),
            b"/echo.Echo/Never" => (NEVER, Kind::Unary),
            b"/echo.Echo/List" => (LIST, Kind::Unary),
            b"/echo.Echo/Bidi" | b"/etcdserverpb.Watch/Watch" => (BIDI, Kind::BidiStream),
            _ => return None,
        };
        Some(Method { id, kind })
    }

    fn has_service(&mut self, service: &[u8]) -> bool {
        service == b"echo.Echo" || service == b"etcdserverpb.KV"
    }

    fn on_unary(&mut self, replies: &mut Replies, call: u32, method: u16, _: &Metadata, message: &[u8]) {
        match (method, message) {
            (UNARY, _) => {
                replies.reply(call, |out| out.extend_from_slice(message));
            }
            (LIST, [a, b, c, d, ..]) => {
                let n = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                replies.reply_bytes(call, Bytes::from(vec![b'x'; n]));
            }
            (LIST, _) => {
                replies.reply_status(call, grpc::code::INVALID_ARGUMENT, "four bytes are needed");
            }
            _ => {}
        }
    }

    fn on_open(&mut self, _: &mut Replies, _: u32, _: u16, _: &Metadata) {}

    fn on_message(&mut self, replies: &mut Replies, call: u32, _: u16, message: &[u8]) {
        replies.send(call, |out| out.extend_from_slice(message));
    }

    fn on_half_close(&mut self, replies: &mut Replies, call: u32) {
        replies.finish(call, 0, "");
    }

    fn on_cancelled(&mut self, _: &mut Replies, _: u32) {}

    fn on_plain(&mut self, replies: &mut Replies, call: u32, request: &PlainRequest<'_>) {
        let body = match request.body {
            [] => Bytes::from(vec![b'.'; 4096]),
            body => Bytes::copy_from_slice(body),
        };
        let length = body.len().to_string();
        replies.plain_reply(call, 200, &[("content-type", "text/plain"), ("content-length", &length)], body);
    }
}

async fn serve(socket: TcpStream, settings: Settings, start: Instant, stop: Rc<Notify>) -> io::Result<()> {
    let now = || start.elapsed().as_millis() as u64;
    let mut c = Connection::new(settings, now());
    let mut buffer = vec![0; 256 * 1024];
    const { assert!(READ_BUFFER_MIN_BYTES < 256 * 1024) };
    let mut filled = 0;
    loop {
        let mut stalled = !c.wants_input();
        while !stalled {
            match socket.try_read(&mut buffer[filled..]) {
                Ok(0) => {
                    c.abandon(&mut Echo);
                    return Ok(());
                }
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
            stalled = take_input(&mut c, &mut buffer, &mut filled, now());
        }
        write(&mut c, &socket)?;
        if c.is_closed() && c.output().is_empty() {
            c.abandon(&mut Echo);
            return linger(&socket).await;
        }
        if c.wants_input() && stalled {
            // Room again: what was left over may hold whole frames.
            take_input(&mut c, &mut buffer, &mut filled, now());
            continue;
        }
        let mut interest = Interest::READABLE;
        if !c.wants_input() {
            interest = Interest::WRITABLE;
        } else if !c.output().is_empty() {
            interest |= Interest::WRITABLE;
        }
        let wake = Duration::from_millis(c.next_wakeup().map_or(60_000, |at| at.saturating_sub(now())));
        tokio::select! {
            ready = socket.ready(interest) => { ready?; }
            () = tokio::time::sleep(wake) => { let _ = c.on_time(now(), &mut Echo); }
            () = stop.notified() => c.graceful_close(now()),
        }
    }
}

/// Gives the codec what has been read; whether it stopped for want of room in the output.
fn take_input(c: &mut Connection, buffer: &mut [u8], filled: &mut usize, now: u64) -> bool {
    match c.receive(now, &buffer[..*filled], &mut Echo) {
        Ok(used) => {
            buffer.copy_within(used..*filled, 0);
            *filled -= used;
            !c.wants_input()
        }
        Err(error) => {
            eprintln!("{error}");
            true
        }
    }
}

fn write(c: &mut Connection, socket: &TcpStream) -> io::Result<()> {
    while !c.output().is_empty() {
        let mut slices = [IoSlice::new(&[]); 64];
        let n = c.output().slices(&mut slices, usize::MAX);
        match socket.try_write_vectored(&slices[..n]) {
            Ok(n) => c.output().advance(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Closing with unread input would make the kernel send RST, and the peer lose our last words.
async fn linger(socket: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(socket).shutdown(std::net::Shutdown::Write)?;
    let until = tokio::time::sleep(Duration::from_secs(1));
    tokio::pin!(until);
    let mut sink = vec![0; 64 * 1024];
    loop {
        tokio::select! {
            ready = socket.readable() => ready?,
            () = &mut until => return Ok(()),
        }
        match socket.try_read(&mut sink) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Ok(()),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:50051".into());
    let plain = if args.next().as_deref() == Some("plain") { grpc::Plain::Also } else { grpc::Plain::Refused };
    let settings = Settings { plain, ..Settings::default() };
    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let (start, stop) = (Instant::now(), Rc::new(Notify::new()));
    let (line, mut lines) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || {
        while io::stdin().read_line(&mut String::new()).is_ok_and(|n| n > 0) && line.blocking_send(()).is_ok()
        {
        }
    });
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (socket, _) = accepted?;
                        socket.set_nodelay(true)?;
                        let serving = serve(socket, settings.clone(), start, stop.clone());
                        tokio::task::spawn_local(async move { if let Err(e) = serving.await { eprintln!("{e}") } });
                    }
                    Some(()) = lines.recv() => stop.notify_waiters(),
                }
            }
        })
        .await
}

//! One question, put to one server after the other until one of them answers it.
//!
//! Invariants:
//! - A question to a server ends when its time is over, whatever the server sends, and however slowly.
//! - A datagram that answers something else is passed over, as it may be a forgery.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, Answer, DATAGRAM_MAX, Fault};
use super::settings::Settings;
use super::Srv;
use crate::connection::io_text;

/// Why there are no records.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Who was asked last.
    pub(super) server: SocketAddr,
    /// In Go's words.
    pub(super) why: String,
    /// There were records, which cannot be read: nobody else is asked.
    pub(super) is_torn: bool,
}

/// Asks for the SRV records of a full name.
pub(super) fn ask(settings: &Settings, name: &str) -> Result<Vec<Srv>, Refusal> {
    let mut last = None;
    for _ in 0..settings.attempts {
        for server in &settings.servers {
            let refusal = |why: String| Refusal { server: *server, why, is_torn: false };
            match exchange(settings, *server, name).map(|answer| answer.records) {
                Ok(Ok(records)) => return Ok(records),
                // Who does not exist is not known to another server either.
                Ok(Err(Fault::NoSuchHost)) => return Err(refusal(Fault::NoSuchHost.text().into())),
                Ok(Err(Fault::Torn)) => return Err(Refusal { is_torn: true, ..refusal(Fault::Torn.text().into()) }),
                Ok(Err(fault)) => last = Some(refusal(fault.text().into())),
                Err(why) => last = Some(refusal(why)),
            }
        }
    }
    Err(last.expect("there is at least one server, and one attempt"))
}

fn exchange(settings: &Settings, server: SocketAddr, name: &str) -> Result<Answer, String> {
    let id = rand::random();
    let question = message::question(id, name);
    if !settings.tcp_only {
        let answer = by_datagram(server, Deadline::after(settings.timeout), (id, name, &question))?;
        if !answer.truncated {
            return Ok(answer);
        }
    }
    by_stream(server, Deadline::after(settings.timeout), (id, name, &question))
}

/// Id, name and bytes of a question.
type Question<'a> = (u16, &'a str, &'a [u8]);

fn by_datagram(server: SocketAddr, deadline: Deadline, (id, name, question): Question<'_>) -> Result<Answer, String> {
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let dial = |error: io::Error| format!("dial udp {server}: connect: {}", io_text(&error));
    let socket = UdpSocket::bind(any).map_err(dial)?;
    // Connected, so that the system tells when nobody listens there.
    socket.connect(server).map_err(dial)?;
    let ends = format!("udp {}->{server}", socket.local_addr().map_err(dial)?);
    socket.send(question).map_err(|error| format!("write {ends}: write: {}", io_text(&error)))?;
    let mut bytes = [0; DATAGRAM_MAX];
    loop {
        let left = deadline.left().ok_or_else(|| format!("read {ends}: i/o timeout"))?;
        socket.set_read_timeout(Some(left)).map_err(dial)?;
        match socket.recv(&mut bytes) {
            Ok(count) => match message::read(&bytes[..count], id, name) {
                Err(Fault::NotOurs) => {}
                read => return read.map_err(|fault| fault.text().into()),
            },
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(format!("read {ends}: read: {}", io_text(&error))),
        }
    }
}

fn by_stream(server: SocketAddr, deadline: Deadline, (id, name, question): Question<'_>) -> Result<Answer, String> {
    let late = || format!("dial tcp {server}: i/o timeout");
    let left = deadline.left().ok_or_else(late)?;
    let mut stream = TcpStream::connect_timeout(&server, left).map_err(|error| match error.kind() {
        ErrorKind::TimedOut => late(),
        _ => format!("dial tcp {server}: connect: {}", io_text(&error)),
    })?;
    let local = stream.local_addr().map_err(|error| io_text(&error))?;
    let told = |what: &str, error: &io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => "EOF".into(),
        ErrorKind::TimedOut => format!("{what} tcp {local}->{server}: i/o timeout"),
        _ => format!("{what} tcp {local}->{server}: {what}: {}", io_text(error)),
    };
    let length = u16::try_from(question.len()).map_err(|_| "cannot marshal DNS message")?;
    let framed = [&length.to_be_bytes(), question].concat();
    stream.set_write_timeout(deadline.left()).map_err(|error| io_text(&error))?;
    stream.write_all(&framed).map_err(|error| told("write", &error))?;
    let mut length = [0; 2];
    fill(&mut stream, &mut length, deadline).map_err(|error| told("read", &error))?;
    // At most 64 KiB, by its form.
    let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
    fill(&mut stream, &mut bytes, deadline).map_err(|error| told("read", &error))?;
    message::read(&bytes, id, name).map_err(|fault| fault.text().into())
}

/// Reads all of `bytes` before the deadline.
fn fill(stream: &mut TcpStream, mut bytes: &mut [u8], deadline: Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = deadline.left().ok_or(ErrorKind::TimedOut)?;
        stream.set_read_timeout(Some(left))?;
        match stream.read(bytes) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The deadline is looked at again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(time: Duration) -> Deadline {
        Deadline(Instant::now() + time)
    }

    /// The time left; `None` when it is over.
    fn left(self) -> Option<Duration> {
        Some(self.0.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const NAME: &str = "_e._tcp.x.test.";

    fn settings(server: SocketAddr) -> Settings {
        let timeout = Duration::from_millis(300);
        Settings { servers: vec![server], timeout, attempts: 2, ..Settings::parse("", "") }
    }

    /// The answer to a question, with one record or with a flag that there is more.
    fn answer(question: &[u8], truncated: bool) -> Vec<u8> {
        let mut out = question[..question.len() - 11].to_vec();
        out[2] |= if truncated { 0x86 } else { 0x84 };
        out[10..12].copy_from_slice(&[0, 0]);
        if !truncated {
            out[6..8].copy_from_slice(&[0, 1]);
            out.extend([0xc0, 12, 0, 33, 0, 1, 0, 0, 0, 60, 0, 9, 0, 1, 0, 2, 0x09, 0x4c, 1, b'h', 0]);
        }
        out
    }

    fn expected() -> Vec<Srv> {
        vec![Srv { target: "h.".into(), port: 2380, priority: 1, weight: 2 }]
    }

    #[test]
    fn garbage_is_passed_over_until_the_answer_comes() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 600];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            let mut forged = answer(&bytes[..count], false);
            forged[0] ^= 1;
            for message in [b"garbage".to_vec(), Vec::new(), forged, answer(&bytes[..count], false)] {
                socket.send_to(&message, from).unwrap();
            }
        });
        assert_eq!(ask(&settings(server), NAME), Ok(expected()));
    }

    #[test]
    fn a_silent_server_and_none_at_all_are_told_apart() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let server = socket.local_addr().unwrap();
        let refusal = ask(&settings(server), NAME).unwrap_err();
        assert!(refusal.why.starts_with("read udp 127.0.0.1:") && refusal.why.ends_with(": i/o timeout"), "{refusal:?}");
        drop(socket);
        let refusal = ask(&settings(server), NAME).unwrap_err();
        assert!(refusal.why.ends_with(": read: connection refused"), "{refusal:?}");
    }

    #[test]
    fn what_does_not_fit_a_datagram_comes_by_stream() {
        let (socket, listener) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            if let Ok(socket) = UdpSocket::bind(listener.local_addr().unwrap()) {
                break (socket, listener);
            }
        };
        let server = listener.local_addr().unwrap();
        thread::spawn(move || {
            let mut bytes = [0; 600];
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&answer(&bytes[..count], true), from).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let count = stream.read(&mut bytes).unwrap();
            let message = answer(&bytes[2..count], false);
            // In pieces, as streams may come.
            stream.write_all(&(message.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&message[..5]).unwrap();
            thread::sleep(Duration::from_millis(20));
            stream.write_all(&message[5..]).unwrap();
            // The second attempt finds a stream that never ends its message.
            let (count, from) = socket.recv_from(&mut bytes).unwrap();
            socket.send_to(&answer(&bytes[..count], true), from).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&[0xff, 0xff, 1]).unwrap();
            thread::sleep(Duration::from_secs(2));
        });
        let settings = Settings { attempts: 1, ..settings(server) };
        assert_eq!(ask(&settings, NAME), Ok(expected()));
        let refusal = ask(&settings, NAME).unwrap_err();
        assert!(refusal.why.starts_with("read tcp ") && refusal.why.ends_with(": i/o timeout"), "{refusal:?}");
    }
}

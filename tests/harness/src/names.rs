//! A DNS server of one's own, for tests of programs that look names up.
//!
//! It serves on the port that resolvers ask, in a network and with an `/etc/resolv.conf` that only the test and the
//! processes that it starts can see.

use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::network::own_network;

/// Where resolvers ask.
const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);
/// How long the server waits before it looks whether the test is over.
const LOOK: Duration = Duration::from_millis(50);

const TYPE_A: u16 = 1;
const TYPE_SRV: u16 = 33;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// The address of a host.
    Address(String, Ipv4Addr),
    /// A host of a service: the service's full name, priority, the host's port and name.
    Service(String, u16, u16, String),
}

impl Record {
    /// A host on loopback.
    pub fn host(name: &str) -> Record {
        Record::Address(name.into(), Ipv4Addr::LOCALHOST)
    }

    /// A host of the service `_SERVICE._tcp.DOMAIN`.
    pub fn service(service: &str, priority: u16, port: u16, host: &str) -> Record {
        Record::Service(format!("_{}", service.replacen('.', "._tcp.", 1)), priority, port, host.into())
    }

    fn name(&self) -> &str {
        match self {
            Record::Address(name, _) | Record::Service(name, ..) => name,
        }
    }

    fn kind(&self) -> u16 {
        match self {
            Record::Address(..) => TYPE_A,
            Record::Service(..) => TYPE_SRV,
        }
    }

    fn data(&self) -> Vec<u8> {
        match self {
            Record::Address(_, address) => address.octets().to_vec(),
            Record::Service(_, priority, port, host) => {
                let mut data = [priority.to_be_bytes(), [0, 1], port.to_be_bytes()].concat();
                put_name(host, &mut data);
                data
            }
        }
    }
}

/// How the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Proper,
    /// By streams only: datagrams say that there is more than fits.
    Streams,
    /// With this code.
    Code(u8),
    /// With bytes that are no answer.
    Garbage,
    /// With an answer whose records are cut off.
    Torn,
    /// Not at all.
    Silence,
}

struct State {
    records: Vec<Record>,
    manner: Manner,
}

/// The server, as the test sees it.
pub struct Names {
    state: Arc<Mutex<State>>,
    ends: Arc<AtomicBool>,
    resolv_conf: PathBuf,
}

impl Names {
    /// Knows these records from now on, and no others, and answers properly.
    pub fn know(&self, records: &[Record]) {
        let mut state = lock(&self.state);
        (state.records, state.manner) = (records.to_vec(), Manner::Proper);
    }

    /// Answers in this manner from now on.
    pub fn behave(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// Changes which server processes ask that are started from now on.
    pub fn use_server(&self, address: &str) {
        let text = format!("nameserver {address}\noptions timeout:1 attempts:2\n");
        std::fs::write(&self.resolv_conf, text).expect("scratch is writable");
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
    }
}

/// Runs `work` on a thread with a network, a DNS server and an `/etc/resolv.conf` of its own; processes that it starts
/// are in there too. Where that takes a user namespace, the whole test is run in one, and `None` is what is left to do
/// here.
///
/// `None`, said loudly, also where the system does not permit that; under CI (`CI=true`) that is a failure.
pub fn with_names<T: Send + 'static>(work: impl FnOnce(&Names) -> T + Send + 'static) -> Option<T> {
    if crate::ran_in_a_namespace() {
        return None;
    }
    let thread = std::thread::spawn(move || {
        let scratch = tempfile::tempdir().expect("scratch is writable");
        if !own_network() || !own_files(scratch.path()) {
            assert!(
                std::env::var_os("CI").is_none_or(|ci| ci != "true"),
                "network and mount namespaces are not permitted; CI does not pass without them"
            );
            eprintln!("SKIPPED: network and mount namespaces are not permitted, so there is no DNS server to ask");
            return None;
        }
        let names = serve(scratch.path().join("resolv.conf"));
        Some(work(&names))
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Lays files of ours over those that resolvers read, for this thread and what it starts.
#[allow(unsafe_code, reason = "std knows no namespaces")]
fn own_files(scratch: &Path) -> bool {
    // SAFETY: unshare(2) takes plain numbers; it changes this thread only, which ends with the work.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let text = |text: &str| CString::new(text).expect("paths have no zero bytes");
    let mount = |from: &str, to: &str, flags: libc::c_ulong| {
        let (from, to) = (text(from), text(to));
        // SAFETY: both texts outlive the call, and the other two arguments may be null.
        unsafe { libc::mount(from.as_ptr(), to.as_ptr(), std::ptr::null(), flags, std::ptr::null()) == 0 }
    };
    // What is mounted here stays here.
    if !mount("none", "/", libc::MS_REC | libc::MS_PRIVATE) {
        return false;
    }
    let files = [
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:2\n"),
        ("hosts", "127.0.0.1 localhost\n"),
        ("nsswitch.conf", "hosts: files dns\n"),
    ];
    files.into_iter().all(|(name, contents)| {
        let ours = scratch.join(name);
        std::fs::write(&ours, contents).expect("scratch is writable");
        // It may be a link to somewhere else.
        let Ok(target) = Path::new("/etc").join(name).canonicalize() else { return name == "nsswitch.conf" };
        mount(&ours.display().to_string(), &target.display().to_string(), libc::MS_BIND)
    })
}

fn serve(resolv_conf: PathBuf) -> Names {
    let state = Arc::new(Mutex::new(State { records: Vec::new(), manner: Manner::Proper }));
    let ends = Arc::new(AtomicBool::new(false));
    let socket = UdpSocket::bind(SERVER).expect("a network of one's own has all ports");
    let listener = TcpListener::bind(SERVER).expect("a network of one's own has all ports");
    socket.set_read_timeout(Some(LOOK)).expect("a time can be set");
    listener.set_nonblocking(true).expect("it can be set");
    let (for_datagrams, for_streams) = ((state.clone(), ends.clone()), (state.clone(), ends.clone()));
    std::thread::spawn(move || by_datagrams(&socket, &for_datagrams.0, &for_datagrams.1));
    std::thread::spawn(move || by_streams(&listener, &for_streams.0, &for_streams.1));
    Names { state, ends, resolv_conf }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn by_datagrams(socket: &UdpSocket, state: &Mutex<State>, ends: &AtomicBool) {
    let mut bytes = [0; 1500];
    while !ends.load(Ordering::Acquire) {
        let Ok((count, from)) = socket.recv_from(&mut bytes) else { continue };
        let send = |message: &[u8], to: SocketAddr| drop(socket.send_to(message, to));
        let state = lock(state);
        match state.manner {
            Manner::Silence => {}
            Manner::Garbage => {
                for length in [1, 11, 12, 40, 512] {
                    send(&garbage(length), from);
                }
                // With the right number in front, so that more of it is looked at.
                send(&[&bytes[..2], &garbage(300)].concat(), from);
            }
            _ => send(&answer(&bytes[..count], &state, true), from),
        }
    }
}

fn by_streams(listener: &TcpListener, state: &Mutex<State>, ends: &AtomicBool) {
    while !ends.load(Ordering::Acquire) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(LOOK);
            continue;
        };
        stream.set_nonblocking(false).expect("it can be set");
        stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time can be set");
        // Some ask for several things at once.
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            if stream.read_exact(&mut question).is_err() {
                break;
            }
            let message = answer(&question, &lock(state), false);
            let framed = [&(message.len() as u16).to_be_bytes()[..], &message].concat();
            drop(stream.write_all(&framed));
        }
    }
}

/// Bytes without a pattern, the same each time.
fn garbage(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32 ^ length as u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

fn put_name(name: &str, out: &mut Vec<u8>) {
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
}

/// The name and the type that a question asks for, and where it ends.
fn read_question(message: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut name) = (12, String::new());
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(message.get(at..at + length)?));
        at += length;
    }
    let kind = u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]);
    Some((name, kind, at + 4))
}

/// The answer to a question, as the server's manner has it.
fn answer(question: &[u8], state: &State, is_datagram: bool) -> Vec<u8> {
    let Some((name, kind, end)) = read_question(question) else { return Vec::new() };
    let of_name = || state.records.iter().filter(|record| record.name().eq_ignore_ascii_case(&name));
    let mut found: Vec<&Record> = of_name().filter(|record| record.kind() == kind).collect();
    let mut flags: u16 = 0x8580;
    match state.manner {
        Manner::Code(code) => {
            flags |= u16::from(code);
            found.clear();
        }
        Manner::Streams if is_datagram => {
            flags |= 0x0200;
            found.clear();
        }
        _ if of_name().next().is_none() => flags |= 3,
        _ => {}
    }
    let mut out = question[..end].to_vec();
    out[2..4].copy_from_slice(&flags.to_be_bytes());
    for (at, number) in [(4, 1), (6, found.len() as u16), (8, 0), (10, 0)] {
        out[at..at + 2].copy_from_slice(&number.to_be_bytes());
    }
    for record in found {
        // The name is that of the question.
        out.extend([0xc0, 12]);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1, 0, 0, 0, 1]);
        let data = record.data();
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
    }
    if state.manner == Manner::Torn && out.len() > end {
        out.truncate(out.len() - 5);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run;

    #[test]
    fn programs_that_a_test_starts_ask_this_server() {
        with_names(|names| {
            names.know(&[Record::Address("h.x.test".into(), Ipv4Addr::new(127, 0, 0, 9))]);
            let look = |name: &str| run(Path::new("getent"), &["hosts", name]);
            assert!(look("h.x.test").ok().starts_with("127.0.0.9 "));
            assert_ne!(look("i.x.test").code, 0);
        });
    }
}

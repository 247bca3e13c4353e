//! A loopback network of one's own, for tests that need etcd's default ports.

use std::fs::File;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// etcd's default ports.
const DEFAULT_PORTS: [u16; 2] = [2379, 2380];
/// How long to wait for them where no network of one's own is to be had.
const PORTS_WAIT: Duration = Duration::from_secs(120);

/// Runs `work` on a thread with a network namespace of its own; processes that it starts are in there too. Where the
/// system does not permit that, the default ports of the machine are used, one test at a time.
///
/// `None`, said loudly, where the ports are taken; under CI (`CI=true`) that is a failure.
pub fn with_default_ports<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let thread = std::thread::spawn(move || {
        if own_network() {
            return Some(work());
        }
        let lock = ports_of_the_machine()?;
        let result = work();
        drop(lock);
        Some(result)
    });
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Takes the default ports of the machine, for as long as the file is open.
fn ports_of_the_machine() -> Option<File> {
    let path = std::env::temp_dir().join("etcd-default-ports.lock");
    let lock = File::create(path).expect("the folder for temporary files is writable");
    lock.lock().expect("a file can be locked");
    let started = Instant::now();
    while started.elapsed() < PORTS_WAIT {
        if DEFAULT_PORTS.iter().all(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()) {
            return Some(lock);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "ports {DEFAULT_PORTS:?} are taken");
    eprintln!("SKIPPED: ports {DEFAULT_PORTS:?} are taken, and a network namespace is not permitted");
    None
}

/// Moves this thread to a new network namespace in which loopback is up.
#[allow(unsafe_code, reason = "std knows no namespaces")]
pub(crate) fn own_network() -> bool {
    // SAFETY: unshare(2) takes plain numbers; it changes this thread only, which ends with the work.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return false;
    }
    // SAFETY: an all-zero ifreq is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = (*from).cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the socket is closed below, and the request outlives the call that reads it.
    let set = unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let set = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        libc::close(socket);
        set
    };
    assert_eq!(set, 0, "who may make a network may switch its loopback on");
    true
}

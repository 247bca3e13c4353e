//! A network of namespaces, one per member, in which packets between members can be dropped, each way by itself.
//!
//! A test's thread gets a network of its own with a bridge, and a *room* per member: a namespace with one cable to the
//! bridge. Whoever the thread starts stands at the bridge and reaches all rooms at any time: clients see what members
//! answer that are cut off from each other. All of it goes away with the last process that uses it.
//!
//! How packets are dropped: every room knows the hardware address of every other by a fixed entry, and a cut makes that
//! entry wrong. Packets leave and nobody takes them, so connections hang and dials time out, as behind a dead switch.
//! That needs no packet filter, which a kernel may lack.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::network::own_network;

/// Where whoever is in no room stands.
const HUB: usize = 254;

/// See the head of this file. It can be used on the thread that got it, and on threads that this one starts.
pub struct Fabric {
    rooms: Vec<Room>,
}

/// The network of one member.
#[derive(Clone)]
pub struct Room {
    /// Keeps the namespace while no process is in it.
    namespace: Arc<File>,
    address: String,
}

impl Room {
    /// The address of whoever is in there.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Has a program run in there.
    #[allow(unsafe_code, reason = "std knows no namespaces")]
    pub fn run_in(&self, command: &mut Command) {
        let namespace = self.namespace.clone();
        // SAFETY: between fork and exec only setns(2) is called, which allocates nothing; the descriptor is open as
        // long as the closure that owns it.
        unsafe {
            command.pre_exec(move || match libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
    }
}

impl Fabric {
    /// Runs `work` on a thread in a network with that many rooms.
    ///
    /// `None`, said loudly, where the system does not permit namespaces; under CI (`CI=true`) that is a failure, unless
    /// this process is not root. A test that is to run for others too begins with [`crate::ran_in_a_namespace`].
    pub fn with<T: Send + 'static>(rooms: usize, work: impl FnOnce(&Fabric) -> T + Send + 'static) -> Option<T> {
        let thread = std::thread::spawn(move || match Fabric::build(rooms) {
            Ok(fabric) => Some(work(&fabric)),
            Err(why) => {
                let must = std::env::var_os("CI").is_some_and(|ci| ci == "true") && is_root();
                assert!(!must, "no network of namespaces: {why}");
                eprintln!("SKIPPED: members cannot be cut off from each other: {why}");
                None
            }
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn build(rooms: usize) -> Result<Fabric, String> {
        if !own_network() {
            return Err(format!("a network namespace: {}", std::io::Error::last_os_error()));
        }
        let mut script = format!("link add br0 type bridge\nlink set br0 up\naddr add {}/24 dev br0\n", address(HUB));
        let mut all = Vec::new();
        for i in 0..rooms {
            let namespace = another_network()?;
            // `ip` finds it through this process.
            let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
            script += &format!("link add v{i} type veth peer name eth0 netns {path}\n");
            script += &format!("link set v{i} master br0\nlink set v{i} up\n");
            all.push(Room { namespace: Arc::new(namespace), address: address(i) });
        }
        ip(None, &script)?;
        let fabric = Fabric { rooms: all };
        for (i, room) in fabric.rooms.iter().enumerate() {
            let mut script = format!("link set eth0 address {}\nlink set eth0 up\n", hardware(i, true));
            script += &format!("addr add {}/24 dev eth0\n", address(i));
            script += &(0..rooms).filter(|j| *j != i).map(|j| entry(j, true)).collect::<String>();
            ip(Some(room), &script)?;
        }
        Ok(fabric)
    }

    /// One of the rooms.
    pub fn room(&self, i: usize) -> &Room {
        &self.rooms[i]
    }

    /// From now on only these pairs, from one room to another, are cut: what the first sends never reaches the second.
    pub fn cut(&self, pairs: &[(usize, usize)]) {
        for (i, room) in self.rooms.iter().enumerate() {
            let others = (0..self.rooms.len()).filter(|j| *j != i);
            let script: String = others.map(|j| entry(j, !pairs.contains(&(i, j)))).collect();
            ip(Some(room), &script).expect("what could be set can be changed");
        }
    }

    /// Everybody hears everybody.
    pub fn heal(&self) {
        self.cut(&[]);
    }
}

fn address(i: usize) -> String {
    // In a network of its own this collides with nothing.
    format!("10.0.0.{}", if i == HUB { i } else { i + 1 })
}

/// The hardware address of a room, or one that nobody has.
fn hardware(i: usize, is_true: bool) -> String {
    format!("02:00:00:00:{}:{i:02x}", if is_true { "00" } else { "ff" })
}

fn entry(to: usize, is_true: bool) -> String {
    format!("neigh replace {} lladdr {} dev eth0 nud permanent\n", address(to), hardware(to, is_true))
}

/// A namespace with its loopback up, which the thread that made it has left by ending.
fn another_network() -> Result<File, String> {
    let made = std::thread::spawn(|| own_network().then(|| File::open("/proc/thread-self/ns/net")));
    match made.join() {
        Ok(Some(file)) => file.map_err(|error| format!("a namespace: {error}")),
        _ => Err("a second network namespace is not permitted".to_owned()),
    }
}

fn is_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    #[allow(unsafe_code, reason = "std does not know who runs a process")]
    let user = unsafe { libc::geteuid() };
    user == 0
}

/// Runs lines of `ip`, in a room or at the bridge.
fn ip(room: Option<&Room>, script: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    if let Some(room) = room {
        room.run_in(&mut command);
    }
    let mut child = command.spawn().map_err(|error| format!("`ip` of iproute2: {error}"))?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    stdin.write_all(script.as_bytes()).map_err(|error| format!("`ip`: {error}"))?;
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| format!("`ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{SocketAddr, TcpStream};
    use std::time::Duration;

    use super::*;

    /// Whether a room reaches a port of another one.
    fn reaches(fabric: &Fabric, from: usize, to: SocketAddr) -> bool {
        let namespace = fabric.room(from).namespace.clone();
        let dial = std::thread::spawn(move || {
            // SAFETY: setns(2) takes an open descriptor; this thread alone changes, and ends.
            #[allow(unsafe_code, reason = "std knows no namespaces")]
            let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(entered, 0);
            match TcpStream::connect_timeout(&to, Duration::from_millis(300)) {
                // Nobody listens, and says so.
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => true,
                Err(error) if error.kind() == ErrorKind::TimedOut => false,
                other => panic!("{other:?}"),
            }
        });
        dial.join().expect("dialling does not panic")
    }

    #[test]
    fn packets_are_dropped_between_two_rooms_only() {
        if crate::ran_in_a_namespace() {
            return;
        }
        Fabric::with(3, |fabric| {
            let at = |i: usize| SocketAddr::new(fabric.room(i).address().parse().expect("an address"), 9);
            let all = || -> Vec<bool> { [(0, 1), (1, 0), (0, 2), (2, 1)].map(|(i, j)| reaches(fabric, i, at(j))).into() };
            assert_eq!(all(), [true; 4]);
            // One way is enough for a dial to fail from either side.
            fabric.cut(&[(0, 1)]);
            assert_eq!(all(), [false, false, true, true]);
            let hub = TcpStream::connect_timeout(&at(1), Duration::from_secs(1)).map_err(|error| error.kind());
            assert_eq!(hub.err(), Some(ErrorKind::ConnectionRefused), "clients reach it");
            fabric.heal();
            assert_eq!(all(), [true; 4]);
        });
    }
}

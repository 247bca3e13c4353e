//! Ports of loopback for servers under test.
//!
//! A port that is free when asked for can be gone before the server binds it: another test process may take it, or
//! the system may give it to an outgoing connection. So ports come from below the range that the system gives to
//! those, and a process takes them in blocks, each guarded by a lock on a file for as long as the process lives.

use std::fs::{File, TryLockError};
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

/// Where blocks begin. Linux takes ports of outgoing connections from 32,768 on.
const FIRST: u16 = 12_000;
/// Ports of one block.
const BLOCK: u16 = 100;
/// Blocks there are.
const BLOCKS: u16 = 200;

const _: () = assert!(FIRST + BLOCK * BLOCKS <= 32_768);

/// The blocks of this process.
static BLOCKS_TAKEN: Mutex<Blocks> = Mutex::new(Blocks { locks: Vec::new(), next: 0, end: 0 });

struct Blocks {
    /// Open as long as the process lives: the system unlocks them at its end, however that comes.
    locks: Vec<File>,
    next: u16,
    end: u16,
}

/// A port of loopback that nobody listens on, and that no other test process is given while this one lives.
///
/// Panics when all blocks are taken: 200 test processes at a time, or one that asks for 20,000 ports.
pub fn free_port() -> u16 {
    let mut blocks = BLOCKS_TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if blocks.next == blocks.end {
            let (lock, first) = take_block();
            blocks.locks.push(lock);
            (blocks.next, blocks.end) = (first, first + BLOCK);
        }
        let port = blocks.next;
        blocks.next += 1;
        // Something that is no test may listen there.
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn take_block() -> (File, u16) {
    let folder = std::env::temp_dir().join("etcd-test-ports");
    std::fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
    // Processes that start together begin at different blocks.
    let start = (std::process::id() % u32::from(BLOCKS)) as u16;
    for number in (start..BLOCKS).chain(0..start) {
        let lock = File::create(folder.join(number.to_string())).expect("the folder for temporary files is writable");
        match lock.try_lock() {
            Ok(()) => return (lock, FIRST + BLOCK * number),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => panic!("a file cannot be locked: {error}"),
        }
    }
    panic!("no ports are left: {BLOCKS} blocks are taken");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_out_once_and_below_those_of_outgoing_connections() {
        let mut ports: Vec<u16> = (0..250).map(|_| free_port()).collect();
        assert!(ports.iter().all(|port| (FIRST..32_768).contains(port)));
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 250);
    }

    #[test]
    fn a_block_has_one_owner() {
        let (first, a) = take_block();
        let (_second, b) = take_block();
        assert_ne!(a, b);
        drop(first);
    }
}

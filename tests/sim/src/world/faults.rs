//! What goes wrong, from the seed.

use super::{Event, World};
use crate::trace::NOBODY;

impl World {
    /// The next fault, and when the one after it comes.
    pub(super) fn fault(&mut self) {
        if self.is_healed || self.settings.fault_ticks == 0 {
            return;
        }
        let running = self.running();
        if !running.is_empty() {
            let member = self.chance.pick(&running);
            if self.settings.fills_disks && self.chance.per_mille(250) {
                self.fill_disk(member);
            }
            match self.chance.below(20) {
                0..=2 => self.fault_of_power(member),
                3 => self.crash(member, false),
                4 | 5 => {
                    let after = self.chance.between(1, 60);
                    self.trace.note(self.now, member, "disk will end", after, 0);
                    self.members[member].disk.fail_from(after, std::io::ErrorKind::Other);
                }
                6 => {
                    let after = self.chance.between(1, 40);
                    self.trace.note(self.now, member, "disk will fail", after, 0);
                    self.members[member].disk.fail_after(after, std::io::ErrorKind::Other);
                }
                7..=9 => self.pause(member),
                10..=13 => self.partition(),
                14 | 15 => self.stall(member),
                16 => {
                    let ahead = self.chance.below(100) * 1_000_000_000;
                    self.trace.note(self.now, member, "clock jumps", ahead, 0);
                    self.members[member].wall_ahead += ahead;
                }
                17 | 18 => {
                    let boot = self.members[member].boot;
                    self.after(1_000, Event::Defragment { member, boot });
                }
                _ => self.isolate_leader(),
            }
        }
        let ticks = self.settings.fault_ticks;
        let delay = self.chance.between(1, ticks * 2) * self.tick_ns();
        self.after(delay, Event::Fault);
    }

    /// One member mostly, all of them now and then.
    fn fault_of_power(&mut self, member: usize) {
        if self.chance.per_mille(150) {
            for member in self.running() {
                self.crash(member, true);
            }
        } else {
            self.crash(member, true);
        }
    }

    /// A while, or so long that others have long taken over and leases have ended.
    fn pause(&mut self, member: usize) {
        let is_long = self.chance.per_mille(300);
        let member = if is_long { self.leader().unwrap_or(member) } else { member };
        let most =
            if is_long { 12_000 / self.settings.heartbeat_ms } else { self.settings.election_ticks * 4 };
        let ticks = self.chance.between(1, most);
        self.trace.note(self.now, member, "pause", ticks, 0);
        self.members[member].paused_until = self.now + ticks * self.tick_ns();
    }

    fn stall(&mut self, member: usize) {
        let until = self.now + self.chance.between(1, self.settings.election_ticks * 5) * self.tick_ns();
        self.trace.note(self.now, member, "stall", until, 0);
        if self.chance.per_mille(600) {
            self.members[member].log_stalled_until = until;
        } else {
            self.members[member].commit_stalled_until = until;
        }
    }

    /// Something else takes nearly all the room for a while: of one member mostly, of all of them now and then.
    fn fill_disk(&mut self, member: usize) {
        let members = if self.chance.per_mille(150) { self.running() } else { vec![member] };
        let ticks = self.chance.between(20, 400);
        for member in members {
            let left = self.chance.pick(&[0, 8 << 10, 40 << 10, 100 << 10]);
            self.trace.note(self.now, member, "disk full", left, ticks);
            let this = &mut self.members[member];
            this.disk.set_capacity(Some(this.disk.used_bytes() + left));
            this.is_tight = true;
            self.counts.full_disks += 1;
            self.after(ticks * self.tick_ns(), Event::Room { member });
        }
    }

    /// There is room again.
    pub(super) fn room(&mut self, member: usize) {
        self.trace.note(self.now, member, "room", 0, 0);
        self.members[member].disk.set_capacity(None);
        self.members[member].is_tight = false;
    }

    fn join_later(&mut self) {
        let ticks = self.chance.between(1, self.settings.election_ticks * 8);
        self.after(ticks * self.tick_ns(), Event::Join);
    }

    /// Two sides; some ways may stay open in one direction.
    fn partition(&mut self) {
        let count = self.members.len();
        let side: Vec<bool> = (0..count).map(|_| self.chance.per_mille(500)).collect();
        let one_way = self.chance.per_mille(300);
        self.trace.note(self.now, NOBODY, "partition", u64::from(one_way), 0);
        for from in 0..count {
            for to in 0..count {
                if side[from] != side[to] && !(one_way && side[from]) {
                    self.cut.insert((from, to));
                }
            }
        }
        self.join_later();
    }

    fn isolate_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.trace.note(self.now, leader, "isolate", 0, 0);
        for other in 0..self.members.len() {
            if other != leader {
                self.cut.insert((leader, other));
                self.cut.insert((other, leader));
            }
        }
        self.join_later();
    }

    /// All ways are open again.
    pub(super) fn join(&mut self) {
        self.trace.note(self.now, NOBODY, "join", 0, 0);
        self.cut.clear();
    }
}

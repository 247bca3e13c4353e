//! Election timeouts from the seed instead of the raft crate's own random numbers.
//!
//! The crate draws a new timeout whenever its role or term changes. The lane overwrites it after every call with a
//! number that follows from (seed, member, term, role, attempt) alone, so that a run can be repeated exactly.
//! `attempt` counts campaigns since the last leader was known: without it two members that drew the same number
//! would draw the same again in every later round of pre-votes, where the term does not move.

use raft::{RawNode, StateRole, Storage};

/// The pinned timeouts of one member.
#[derive(Clone, Debug)]
pub(crate) struct Timeouts {
    seed: u64,
    id: u64,
    election_ticks: usize,
    attempt: u64,
}

impl Timeouts {
    pub(crate) fn new(seed: u64, id: u64, election_ticks: usize) -> Timeouts {
        Timeouts { seed, id, election_ticks, attempt: 0 }
    }

    /// To be called after every call into the crate.
    pub(crate) fn pin<S: Storage>(&mut self, node: &mut RawNode<S>) {
        if node.raft.leader_id != 0 {
            self.attempt = 0;
        }
        let timeout = self.timeout(node.raft.term, role_number(node.raft.state));
        node.raft.set_randomized_election_timeout(timeout);
    }

    /// To be called before a tick: counts a campaign that this tick will start.
    pub(crate) fn before_tick<S: Storage>(&mut self, node: &RawNode<S>) {
        let raft = &node.raft;
        if raft.state != StateRole::Leader
            && raft.promotable()
            && raft.election_elapsed + 1 >= raft.randomized_election_timeout()
        {
            self.attempt += 1;
        }
    }

    fn timeout(&self, term: u64, role: u64) -> usize {
        let mut hash = mix(self.seed ^ 0x656c_6563_7469_6f6e);
        for part in [self.id, term, role, self.attempt] {
            hash = mix(hash ^ part);
        }
        self.election_ticks + (hash % self.election_ticks as u64) as usize
    }
}

fn role_number(role: StateRole) -> u64 {
    match role {
        StateRole::Follower => 0,
        StateRole::PreCandidate => 1,
        StateRole::Candidate => 2,
        StateRole::Leader => 3,
    }
}

/// The finalizer of SplitMix64: every input bit moves every output bit.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_lie_between_one_and_two_election_timeouts_and_spread() {
        let mut seen = [0u32; 10];
        for id in 1..=200 {
            for term in 1..=5 {
                let timeout = Timeouts::new(7, id, 10).timeout(term, 0);
                assert!((10..20).contains(&timeout));
                seen[timeout - 10] += 1;
            }
        }
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
    }

    #[test]
    fn equal_draws_are_separated_by_the_next_attempt() {
        let draws = |id| -> Vec<usize> {
            (0..20)
                .map(|attempt| Timeouts { seed: 1, id, election_ticks: 10, attempt }.timeout(4, 0))
                .collect()
        };
        let (a, b) = (draws(1), draws(2));
        assert!(a.iter().zip(&b).any(|(x, y)| x == y), "some attempt collides");
        assert!(a.iter().zip(&b).any(|(x, y)| x != y), "another one does not");
    }
}

//! What can happen to members, and who must go on meanwhile.

use rand::Rng;
use rand::rngs::SmallRng;

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The leader and the others do not hear each other.
    LeaderAlone,
    /// A follower and the others do not hear each other.
    FollowerAlone,
    /// Nobody hears the leader, who hears everybody.
    LeaderMute,
    /// The leader hears nobody.
    LeaderDeaf,
    /// Nobody hears a follower, who hears everybody.
    FollowerMute,
    /// A follower hears nobody.
    FollowerDeaf,
    /// The leader is with as many as are too few.
    Minority,
    /// Two halves do not hear each other, but both hear one that stands between them. The leader is in one half.
    Bridge,
    /// Nobody hears anybody.
    Shattered,
    /// SIGSTOP.
    LeaderPaused,
    /// SIGSTOP.
    FollowerPaused,
    /// SIGKILL.
    LeaderKilled,
    /// SIGKILL.
    FollowerKilled,
}

/// What a fault comes to, with members by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Effect {
    /// The first no longer reaches the second.
    pub(super) cuts: Vec<(usize, usize)>,
    pub(super) paused: Option<usize>,
    pub(super) killed: Option<usize>,
    /// Those that cannot ask a quorum for anything.
    pub(super) alone: Vec<usize>,
    /// Those that must go on.
    pub(super) whole: Vec<usize>,
}

impl Fault {
    /// All there are.
    pub const ALL: &[Fault] = &[
        Fault::LeaderAlone,
        Fault::FollowerDeaf,
        Fault::LeaderKilled,
        Fault::FollowerAlone,
        Fault::LeaderMute,
        Fault::FollowerPaused,
        Fault::Bridge,
        Fault::LeaderPaused,
        Fault::FollowerMute,
        Fault::Shattered,
        Fault::LeaderDeaf,
        Fault::FollowerKilled,
        Fault::Minority,
    ];

    /// Whether the leader can go on as if nothing were.
    pub(super) fn is_of_follower(self) -> bool {
        use Fault::{FollowerAlone, FollowerDeaf, FollowerKilled, FollowerMute, FollowerPaused};
        matches!(self, FollowerAlone | FollowerDeaf | FollowerKilled | FollowerMute | FollowerPaused)
    }

    pub(super) fn effect(self, len: usize, leader: usize, rng: &mut SmallRng) -> Effect {
        let follower = (leader + rng.random_range(1..len)) % len;
        let others = |than: usize| (0..len).filter(move |i| *i != than).collect::<Vec<_>>();
        let mute = |i: usize| others(i).into_iter().map(move |j| (i, j)).collect::<Vec<_>>();
        let deaf = |i: usize| others(i).into_iter().map(move |j| (j, i)).collect::<Vec<_>>();
        // From the leader on, in a circle.
        let from_leader: Vec<usize> = (0..len).map(|i| (leader + i) % len).collect();
        let one = |i: usize, cuts: Vec<(usize, usize)>| Effect { cuts, alone: vec![i], whole: others(i), ..Effect::default() };
        match self {
            Fault::LeaderAlone => one(leader, both(&[leader], &others(leader))),
            Fault::FollowerAlone => one(follower, both(&[follower], &others(follower))),
            Fault::LeaderMute => one(leader, mute(leader)),
            Fault::LeaderDeaf => one(leader, deaf(leader)),
            Fault::FollowerMute => one(follower, mute(follower)),
            Fault::FollowerDeaf => one(follower, deaf(follower)),
            Fault::Minority => {
                let (few, many) = from_leader.split_at((len - 1) / 2);
                Effect { cuts: both(few, many), alone: few.to_vec(), whole: many.to_vec(), ..Effect::default() }
            }
            Fault::Bridge => {
                let (half, rest) = from_leader.split_at((len - 1) / 2);
                let (between, other_half) = rest.split_at(1);
                // The leader's half keeps it, as a rule. If the other half gets it first, the old leader hears of
                // nobody any more: only the one between them must go on in any case.
                Effect { cuts: both(half, other_half), whole: between.to_vec(), ..Effect::default() }
            }
            Fault::Shattered => Effect {
                cuts: (0..len).flat_map(mute).collect(),
                alone: (0..len).collect(),
                ..Effect::default()
            },
            Fault::LeaderPaused => Effect { paused: Some(leader), whole: others(leader), ..Effect::default() },
            Fault::FollowerPaused => Effect { paused: Some(follower), whole: others(follower), ..Effect::default() },
            Fault::LeaderKilled => Effect { killed: Some(leader), whole: others(leader), ..Effect::default() },
            Fault::FollowerKilled => Effect { killed: Some(follower), whole: others(follower), ..Effect::default() },
        }
    }
}

/// Nobody of the first hears anybody of the second, nor the other way.
fn both(first: &[usize], second: &[usize]) -> Vec<(usize, usize)> {
    let pairs = first.iter().flat_map(|i| second.iter().map(move |j| (*i, *j)));
    pairs.flat_map(|(i, j)| [(i, j), (j, i)]).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    /// Who hears whom, both ways, is enough for a quorum where it must go on, and too little where it must not.
    #[test]
    fn quorums_are_where_they_are_said_to_be() {
        let mut rng = SmallRng::seed_from_u64(1);
        for (len, leader) in [(3, 0), (3, 2), (5, 1), (5, 4)] {
            for fault in Fault::ALL {
                let effect = fault.effect(len, leader, &mut rng);
                let is_up = |i: usize| Some(i) != effect.paused && Some(i) != effect.killed;
                let meet = |i: usize, j: usize| {
                    i == j || is_up(i) && is_up(j) && !effect.cuts.contains(&(i, j)) && !effect.cuts.contains(&(j, i))
                };
                let met = |i: usize| (0..len).filter(|j| meet(i, *j)).count();
                assert!(effect.alone.iter().all(|i| met(*i) <= len / 2), "{fault:?} {effect:?}");
                assert!(effect.whole.iter().all(|i| met(*i) > len / 2), "{fault:?} {effect:?}");
                let is_someone_whole = !effect.whole.is_empty() || *fault == Fault::Shattered;
                assert!(is_someone_whole, "{fault:?} {effect:?}");
            }
        }
    }
}

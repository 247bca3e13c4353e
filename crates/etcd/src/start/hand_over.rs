//! A leader that stops hands leadership over first: nobody waits for an election then.

use crate::member::handle::Shared;

/// Hands over to the voter that has been connected longest; says what it does, in etcd's words.
pub(super) async fn hand_over(shared: &Shared) {
    let state = shared.published.load_full();
    let both = || {
        [
            ("local-member-id", api::ids::hex(shared.member_id).to_string().into()),
            ("current-leader-member-id", api::ids::hex(state.role.leader).to_string().into()),
        ]
    };
    if !state.role.is_leader {
        if state.edge.cluster.members().len() > 1 {
            shared.logger.info("skipped leadership transfer; local server is not leader", &both());
        }
        return;
    }
    let voters: Vec<u64> = state.edge.cluster.members().filter(|m| !m.is_learner).map(|m| m.id).collect();
    if voters.len() <= 1 {
        return shared.logger.info("skipped leadership transfer for single voting member cluster", &both());
    }
    let connected = voters.iter().filter_map(|id| Some((shared.transport.active_since(*id)?, *id)));
    let moved = match connected.min() {
        Some((_, longest)) => match shared.move_leader(longest, shared.request_timeout()).await {
            true => Ok(()),
            false => Err("etcdserver: request timed out, leader transfer took too long"),
        },
        None => Err("etcdserver: unhealthy cluster"),
    };
    if let Err(why) = moved {
        let own = ("local-member-id", api::ids::hex(shared.member_id).to_string().into());
        shared.logger.warn("leadership transfer failed", &[own, ("error", why.into())]);
    }
}

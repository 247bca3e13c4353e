//! `/debug/vars`, and what there is instead of Go's profiles.

use axum::http::StatusCode;
use axum::response::Response;

use crate::logging::Level;
use crate::member::handle::Shared;

/// Whether the user asked for profiles, by their flag or by asking for everything.
pub(super) fn has_profiles(shared: &Shared) -> bool {
    shared.config.raw.text("enable-pprof") == "true" || shared.logger.admits(Level::Debug)
}

pub(super) fn no_profiles() -> Response {
    let body = "profiles of the Go runtime are not available: Mainstay does not run on it; use perf(1) on the process\n";
    super::text(StatusCode::NOT_IMPLEMENTED, body)
}

/// The variables that etcd publishes; those of Go's memory manager have no counterpart.
pub(super) fn vars(shared: &Shared) -> Response {
    let state = shared.published.load();
    let role = state.role;
    let id = |id: u64| api::ids::hex(id).to_string();
    let (leads, member) = (role.is_leader, id(shared.member_id));
    let progress = if leads {
        // All that is committed is in the log of the one who leads alone.
        let (matched, next) = (state.committed, state.committed + 1);
        format!("\"{member}\":{{\"match\":{matched},\"next\":{next},\"state\":\"StateReplicate\"}}")
    } else {
        String::new()
    };
    let raft = format!(
        "{{\"id\":\"{member}\",\"term\":{},\"vote\":\"{}\",\"commit\":{},\"lead\":\"{}\",\"raftState\":\"{}\",\
         \"applied\":{},\"progress\":{{{progress}}},\"leadtransferee\":\"0\"}}",
        role.term,
        id(if leads { shared.member_id } else { 0 }),
        state.committed,
        id(role.leader),
        if leads { "StateLeader" } else { "StateFollower" },
        state.edge.applied,
    );
    let arguments: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let limit = crate::metrics::file_limit();
    let body = format!(
        "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {limit},\n\"raft.status\": {raft}\n}}\n",
        serde_json::json!(arguments)
    );
    super::typed(StatusCode::OK, "application/json; charset=utf-8", body)
}

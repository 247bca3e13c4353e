//! Voters and learners as raft wants them, always derived from the members: the stored conf state may be missing
//! or stale (it is only written after a change, and a restore leaves that of the old cluster behind).

use api::raftpb::ConfState;
use bytes::Bytes;
use serde::Deserialize;

use super::Member;

/// The conf state of a set of members, ids ascending.
pub fn conf_state<'a>(members: impl IntoIterator<Item = &'a Member>) -> ConfState {
    let mut state = ConfState { auto_leave: Some(false), ..ConfState::default() };
    for member in members {
        if member.is_learner {
            state.learners.push(member.id);
        } else {
            state.voters.push(member.id);
        }
    }
    state.voters.sort_unstable();
    state.learners.sort_unstable();
    state
}

/// The value of `meta/confState` as every Go version wrote it.
pub fn conf_state_json(state: &ConfState) -> Bytes {
    let mut out = String::from("{");
    let lists = [
        ("voters", &state.voters),
        ("learners", &state.learners),
        ("voters_outgoing", &state.voters_outgoing),
        ("learners_next", &state.learners_next),
    ];
    for (name, ids) in lists {
        if ids.is_empty() {
            continue;
        }
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        out.push_str(&format!("\"{name}\":[{}],", ids.join(",")));
    }
    out.push_str(if state.auto_leave() { "\"auto_leave\":true}" } else { "\"auto_leave\":false}" });
    Bytes::from(out)
}

/// Reads the value of `meta/confState`.
pub fn parse_conf_state_json(bytes: &[u8]) -> Result<ConfState, String> {
    #[derive(Deserialize)]
    struct Raw {
        voters: Option<Vec<u64>>,
        learners: Option<Vec<u64>>,
        voters_outgoing: Option<Vec<u64>>,
        learners_next: Option<Vec<u64>>,
        auto_leave: Option<bool>,
    }
    let raw: Raw = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    Ok(ConfState {
        voters: raw.voters.unwrap_or_default(),
        learners: raw.learners.unwrap_or_default(),
        voters_outgoing: raw.voters_outgoing.unwrap_or_default(),
        learners_next: raw.learners_next.unwrap_or_default(),
        auto_leave: Some(raw.auto_leave.unwrap_or(false)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stored_form_is_gos() {
        let voter = Member { id: 5_937_993_131_854_900_738, ..Member::default() };
        let learner = Member { id: 3, is_learner: true, ..Member::default() };
        let alone = conf_state([&voter]);
        assert_eq!(&conf_state_json(&alone)[..], br#"{"voters":[5937993131854900738],"auto_leave":false}"#);
        let both = conf_state([&learner, &voter]);
        let json = conf_state_json(&both);
        assert_eq!(&json[..], br#"{"voters":[5937993131854900738],"learners":[3],"auto_leave":false}"#);
        assert_eq!(parse_conf_state_json(&json).unwrap(), both);
        assert_eq!(parse_conf_state_json(b"{}").unwrap().voters, Vec::<u64>::new());
    }
}

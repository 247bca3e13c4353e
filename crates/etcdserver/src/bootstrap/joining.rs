//! Joining a cluster that runs: which of its members this one is, and what the cluster is called.
//!
//! Members are matched by their peer URLs, never by name: a member that was added and has not started yet has none.

use std::fmt;

use super::{Error, Founding, founding};
use crate::config::Config;
use crate::membership::Member;

/// A cluster as one of its members describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Existing {
    /// Its id.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<Member>,
}

/// As Go prints it.
impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ClusterID:{} Members:[", api::ids::hex(self.cluster_id))?;
        for (i, member) in self.members.iter().enumerate() {
            write!(
                f,
                "{}&{{ID:{} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                if i == 0 { "" } else { " " },
                api::ids::hex(member.id),
                member.peer_urls.join(" "),
                member.is_learner,
                member.name,
                member.client_urls.join(" "),
            )?;
        }
        f.write_str("] RemovedMemberIDs:[]}")
    }
}

/// Gives the members of the settings the ids that the running cluster knows them by. `same` says whether two lists of
/// URLs mean the same, host names resolved: that takes the network.
pub fn check_joining(
    config: &Config,
    existing: &Existing,
    same: &mut dyn FnMut(&[String], &[String]) -> bool,
) -> Result<Founding, Error> {
    if config.discovery {
        let text = "discovery URL should not be set when joining existing initial cluster";
        return Err(Error::Founding(text.to_owned()));
    }
    let by_name = founding::by_name(config)?;
    let invalid = |why: String| Error::Founding(format!("error validating peerURLs {existing}: {why}"));
    if by_name.len() != existing.members.len() {
        return Err(invalid("member count is unequal".to_owned()));
    }
    let mut left: Vec<(&str, Vec<String>)> = by_name.into_iter().collect();
    let (mut members, mut local_id) = (Vec::with_capacity(left.len()), 0);
    let mut known: Vec<&Member> = existing.members.iter().collect();
    known.sort_by(|a, b| a.peer_urls.cmp(&b.peer_urls));
    for member in known {
        let mut urls = member.peer_urls.clone();
        urls.sort();
        let found = left.iter().position(|(_, own)| *own == urls);
        let found = found.or_else(|| left.iter().position(|(_, own)| same(own, &urls)));
        let Some(at) = found else {
            return Err(invalid(format!(
                "PeerURLs: no match found for existing member ({}, [{}]), last resolver error (<nil>)",
                api::ids::hex(member.id),
                member.peer_urls.join(" ")
            )));
        };
        let (name, _) = left.remove(at);
        if name == config.name {
            local_id = member.id;
        }
        members.push(Member { name: name.to_owned(), ..member.clone() });
    }
    if members.iter().filter(|member| member.is_learner).count() > config.max_learners {
        return Err(Error::Founding("membership: too many learner members in cluster".to_owned()));
    }
    members.sort_by_key(|member| member.id);
    Ok(Founding { local_id, cluster_id: existing.cluster_id, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, url: &str) -> Member {
        Member { id, peer_urls: vec![url.to_owned()], ..Member::default() }
    }

    fn config(names: &[(&str, &str)]) -> Config {
        Config {
            name: "c".to_owned(),
            new_cluster: false,
            initial_cluster: names.iter().map(|(n, u)| ((*n).to_owned(), vec![(*u).to_owned()])).collect(),
            ..Config::default()
        }
    }

    #[test]
    fn ids_come_from_the_cluster_by_url() {
        let existing = Existing { cluster_id: 9, members: vec![member(5, "http://a:1"), member(3, "http://c:1")] };
        let joined = check_joining(
            &config(&[("a", "http://a:1"), ("c", "http://c:1")]),
            &existing,
            &mut |_, _| false,
        );
        let joined = joined.unwrap();
        assert_eq!((joined.local_id, joined.cluster_id), (3, 9));
        assert_eq!(joined.members.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(), ["c", "a"]);
    }

    #[test]
    fn b10_and_b11_have_etcds_words() {
        let existing = Existing { cluster_id: 9, members: vec![member(5, "http://a:1"), member(3, "http://x:1")] };
        let mut never = |_: &[String], _: &[String]| false;
        let error = check_joining(&config(&[("c", "http://c:1")]), &existing, &mut never).unwrap_err().to_string();
        assert!(error.starts_with("error validating peerURLs {ClusterID:9 Members:["), "{error}");
        assert!(error.ends_with("member count is unequal"), "{error}");
        let two = config(&[("a", "http://a:1"), ("c", "http://c:1")]);
        let error = check_joining(&two, &existing, &mut never).unwrap_err().to_string();
        assert!(error.contains("PeerURLs: no match found for existing member (3, [http://x:1])"), "{error}");
        assert!(check_joining(&two, &existing, &mut |_, _| true).is_ok(), "host names may mean the same");
    }
}

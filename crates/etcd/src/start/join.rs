//! What a member without a log asks of others before it starts: whether it was here before, or which cluster it joins.
//!
//! All of it by plain requests to the peer URLs of the settings; texts are etcd's.

use std::net::ToSocketAddrs;
use std::time::Duration;

use api::version::{MIN_CLUSTER, Minor, Version};
use etcdserver::bootstrap::{Existing, check_founding, check_joining};
use etcdserver::membership::Member;

use super::{discovery, initial};
use crate::config::discovery::{Discovery, Service};
use crate::config::{Config, value};
use crate::logging::Logger;
use crate::rafthttp::{Dialer, call};

/// Why a member does not start.
#[derive(Debug)]
pub(super) enum Failure {
    /// Whatever it was.
    Start(String),
    /// The discovery service, which is told of in another way.
    Discovery(String),
}

impl Failure {
    pub(super) fn text(&self) -> &str {
        match self {
            Failure::Start(text) | Failure::Discovery(text) => text,
        }
    }
}

impl From<String> for Failure {
    fn from(why: String) -> Failure {
        Failure::Start(why)
    }
}

/// How long a founder looks for a cluster that knows it already, for each of the others.
const FOUNDING_WAIT: Duration = Duration::from_secs(1);
/// Time for a question about versions.
const VERSION_WAIT: Duration = Duration::from_secs(5);

/// Prepares the start of a member that has no log. Returns the members of the cluster that is joined, which may have
/// something to say before this member knows them from its log.
pub(super) fn before_first_start(
    config: &Config,
    dialer: &Dialer,
    logger: &Logger,
    core: &mut etcdserver::Config,
) -> Result<Vec<Member>, Failure> {
    core.advertise_checked = advertises_the_same(core);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    if !core.new_cluster {
        return Ok(runtime.block_on(join(dialer, logger, core))?);
    }
    runtime.block_on(check_not_bootstrapped(dialer, core))?;
    if let Discovery::Service(service) = &config.discovery {
        runtime.block_on(discover(service, logger, core))?;
    }
    Ok(Vec::new())
}

/// Learns the other founders from the discovery service.
async fn discover(service: &Service, logger: &Logger, core: &mut etcdserver::Config) -> Result<(), Failure> {
    let founding = check_founding(core).map_err(|error| error.to_string())?;
    logger.info("Bootstrapping cluster using v3 discovery.", &[]);
    let own = initial::show(&core.initial_cluster);
    let list = discovery::join(service, logger, founding.local_id, &own)
        .await
        .map_err(|why| Failure::Discovery(format!("failed to join discovery cluster ({why})")))?;
    let members = initial::parse(&list)?;
    let mut urls: Vec<&String> = members.iter().flat_map(|(_, urls)| urls).collect();
    urls.sort();
    if urls.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Failure::Start(format!("discovery cluster {} has duplicate url", initial::show(&members))));
    }
    // Members with the same name would be taken for one that is none of them.
    let same = members.iter().filter(|(name, _)| *name == core.name).cloned().collect::<Vec<_>>();
    if initial::show(&same) != own {
        let list = initial::show(&members);
        return Err(Failure::Start(format!("discovery cluster {list} has another member with the name {:?}", core.name)));
    }
    core.initial_cluster = members;
    Ok(())
}

/// Whether the URLs of this member's entry and those it advertises mean the same addresses.
fn advertises_the_same(core: &etcdserver::Config) -> bool {
    let own = core.initial_cluster.iter().filter(|(name, _)| *name == core.name);
    let own: Vec<String> = own.flat_map(|(_, urls)| urls.iter().cloned()).collect();
    !own.is_empty() && means_the_same(&own, &core.advertise_peer_urls)
}

/// URLs with their host names resolved; `localhost` stands for itself, as in etcd.
fn means_the_same(a: &[String], b: &[String]) -> bool {
    let resolved = |urls: &[String]| -> Option<Vec<String>> {
        let mut all = Vec::new();
        for url in urls {
            let url = value::parse_url(url).ok()?;
            if url.is_unix() || url.hostname() == "localhost" {
                all.push(url.to_string());
                continue;
            }
            let address = url.host.to_socket_addrs().ok()?.min()?;
            all.push(format!("{}://{address}", url.scheme));
        }
        all.sort();
        Some(all)
    };
    a.len() == b.len() && resolved(a).is_some_and(|a| resolved(b) == Some(a))
}

/// Peer URLs of everybody but this member, in Go's order.
fn others(core: &etcdserver::Config) -> Vec<String> {
    let others = core.initial_cluster.iter().filter(|(name, _)| *name != core.name);
    let mut urls: Vec<String> = others.flat_map(|(_, urls)| urls.iter().cloned()).collect();
    urls.sort();
    urls
}

/// A founder that the others have seen before has lost its directory: it must not vote as if it were new.
async fn check_not_bootstrapped(dialer: &Dialer, core: &etcdserver::Config) -> Result<(), String> {
    // What is wrong with the settings is said first, by whoever looks at them next.
    let Ok(founding) = check_founding(core) else { return Ok(()) };
    let quiet = Logger::silent();
    for url in others(core) {
        let urls = [url];
        let asked = tokio::time::timeout(FOUNDING_WAIT, call::get_members(dialer, &quiet, &urls)).await;
        let Ok(Ok(known)) = asked else { continue };
        let here = known.members.iter().find(|member| member.id == founding.local_id);
        if here.is_some_and(|member| !member.client_urls.is_empty()) {
            return Err(format!("member {} has already been bootstrapped", api::ids::hex(founding.local_id)));
        }
        return Ok(());
    }
    Ok(())
}

/// Learns from the others who this member is.
async fn join(dialer: &Dialer, logger: &Logger, core: &mut etcdserver::Config) -> Result<Vec<Member>, String> {
    if !core.initial_cluster.iter().any(|(name, _)| *name == core.name) {
        // Said in the same words as to a founder.
        return check_founding(core).map(|_| Vec::new()).map_err(|error| error.to_string());
    }
    if core.discovery {
        return Err("discovery URL should not be set when joining existing initial cluster".into());
    }
    let known = call::get_members(dialer, logger, &others(core))
        .await
        .map_err(|why| format!("cannot fetch cluster info from peer urls: {why}"))?;
    let existing = Existing { cluster_id: known.cluster_id, members: known.members };
    let mut same = |a: &[String], b: &[String]| means_the_same(a, b);
    let joining = check_joining(core, &existing, &mut same).map_err(|error| error.to_string())?;
    let remotes: Vec<Member> =
        existing.members.iter().filter(|member| member.id != joining.local_id).cloned().collect();
    if !is_compatible(dialer, &remotes, core.version.minor()).await {
        return Err("incompatible with current running cluster".into());
    }
    core.joining = Some(joining);
    Ok(remotes)
}

/// Whether a cluster of this version has members that end, all of them, at the entry by which a member of version `own`
/// says who it is: 3.4 does not know it. (3.0 is what a cluster says that has not agreed on its version yet.)
fn would_be_ended(cluster: Minor, own: Minor) -> bool {
    cluster > MIN_CLUSTER.minor() && cluster < Minor::new(3, 5) && own > Minor::new(3, 5)
}

/// Whether the versions of the cluster let this one in: at least one member answers, and every cluster version lies
/// between the oldest there is and ours; during a downgrade it must be exactly one above ours.
async fn is_compatible(dialer: &Dialer, others: &[Member], own: Minor) -> bool {
    let (mut answered, mut lowest) = (false, None);
    for member in others {
        for url in &member.peer_urls {
            let Ok(versions) = call::get_version(dialer, url, VERSION_WAIT).await else { continue };
            if lowest.is_none() {
                let is_lowered = call::downgrade_enabled(dialer, url, VERSION_WAIT).await.unwrap_or(false);
                let one_up = Minor::new(own.major, own.minor + 1);
                lowest = Some(if is_lowered { (one_up, one_up) } else { (MIN_CLUSTER.minor(), own) });
            }
            answered = true;
            // One that has not decided yet says so in words.
            if let (Ok(cluster), Some((min, max))) = (versions.cluster.parse().map(Version::minor), lowest)
                && (cluster < min || cluster > max || would_be_ended(cluster, own))
            {
                return false;
            }
            break;
        }
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_of_3_4_is_joined_as_3_5() {
        let of = |minor| Minor::new(3, minor);
        assert!(would_be_ended(of(4), of(7)) && would_be_ended(of(3), of(6)));
        assert!(!would_be_ended(of(4), of(5)) && !would_be_ended(of(5), of(7)) && !would_be_ended(of(0), of(7)));
    }

    #[test]
    fn host_names_may_mean_the_same() {
        let list = |urls: &[&str]| urls.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(means_the_same(&list(&["http://127.0.0.1:1"]), &list(&["http://127.0.0.1:1"])));
        assert!(!means_the_same(&list(&["http://127.0.0.1:1"]), &list(&["http://127.0.0.1:2"])));
        assert!(!means_the_same(&list(&["http://127.0.0.1:1"]), &list(&["https://127.0.0.1:1"])));
        assert!(!means_the_same(&list(&["http://127.0.0.1:1"]), &list(&[])));
        assert!(!means_the_same(&list(&["http://127.0.0.1:1"]), &list(&["http://localhost:1"])));
        assert!(means_the_same(&list(&["http://localhost:1"]), &list(&["http://localhost:1"])));
    }
}

//! Where a founder learns of the others, when the flags do not list them.

use std::time::Duration;

use super::raw::{RawConfig, Source};
use super::{flags, value};

/// The service that collects founders: another cluster of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) endpoints: Vec<String>,
    /// Name of the cluster to be founded there.
    pub(crate) token: String,
    pub(crate) dial_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) keepalive_time: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) insecure_transport: bool,
    pub(crate) skip_verify: bool,
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) cacert: String,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// SRV records in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    pub(crate) name: String,
    /// What is appended to the names of the services.
    pub(crate) suffix: String,
}

/// One of the two, or neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Discovery {
    None,
    Service(Service),
    Domain(Domain),
}

impl Discovery {
    /// What was given; the error is etcd's text. `initial_cluster` is the list of founders as it is in force.
    pub(super) fn check(raw: &RawConfig, initial_cluster: &str) -> Result<Discovery, String> {
        let (endpoints, token, domain) = (endpoints(raw), raw.text("discovery-token"), raw.text("discovery-srv"));
        let ways = [!initial_cluster.is_empty(), !domain.is_empty(), !endpoints.is_empty()];
        if ways.into_iter().filter(|way| *way).count() > 1 {
            return Err("multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                        \"discovery-endpoints\" or \"discovery-srv\""
                .into());
        }
        if token.is_empty() != endpoints.is_empty() {
            return Err("both --discovery-token and --discovery-endpoints must be set".into());
        }
        if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
            return Err("--discovery-endpoints must not contain empty endpoints".into());
        }
        if !endpoints.is_empty() {
            return Ok(Discovery::Service(service(raw, endpoints)));
        }
        Ok(match domain {
            "" => Discovery::None,
            name => Discovery::Domain(Domain { name: name.into(), suffix: raw.text("discovery-srv-name").into() }),
        })
    }
}

fn service(raw: &RawConfig, endpoints: Vec<String>) -> Service {
    let text = |name: &str| raw.text(name).to_string();
    let duration = |name: &str| value::parse_duration(raw.text(name)).expect("checked when it was given");
    let on = |name: &str| value::parse_bool(raw.text(name)).expect("checked when it was given");
    Service {
        endpoints,
        token: text("discovery-token"),
        dial_timeout: duration("discovery-dial-timeout"),
        request_timeout: duration("discovery-request-timeout"),
        keepalive_time: duration("discovery-keepalive-time"),
        keepalive_timeout: duration("discovery-keepalive-timeout"),
        insecure_transport: on("discovery-insecure-transport"),
        skip_verify: on("discovery-insecure-skip-tls-verify"),
        cert: text("discovery-cert"),
        key: text("discovery-key"),
        cacert: text("discovery-cacert"),
        user: text("discovery-user"),
        password: text("discovery-password"),
    }
}

/// Each once and sorted if they come from a flag; as they stand if from the configuration file.
fn endpoints(raw: &RawConfig) -> Vec<String> {
    let text = raw.text("discovery-endpoints");
    let mut endpoints: Vec<String> = match raw.source("discovery-endpoints") {
        None => return Vec::new(),
        Some(Source::File) if text.is_empty() => return Vec::new(),
        Some(_) => text.split(',').map(str::to_string).collect(),
    };
    if raw.source("discovery-endpoints") != Some(Source::File) {
        endpoints.sort_unstable();
        endpoints.dedup();
    }
    endpoints
}

/// Whether the default list of founders gives way, because they are to be discovered. A configuration file that spells
/// the default out says no more than one that does not.
pub(super) fn replaces_default(raw: &RawConfig) -> bool {
    let given = |name: &str| raw.is_set(name) && !raw.text(name).is_empty();
    let (domain, endpoints) = (given("discovery-srv"), !endpoints(raw).is_empty());
    if raw.is_set("config-file") {
        let is_default = flags::find("initial-cluster").is_some_and(|flag| raw.text(flag.name) == flag.default);
        return (domain || endpoints) && is_default;
    }
    (domain || endpoints || given("discovery-srv-name")) && !raw.is_set("initial-cluster")
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    fn check(arguments: &[&str]) -> Result<Config, String> {
        let mut raw = RawConfig::default();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        raw.read_arguments(&arguments).unwrap();
        Config::check(raw)
    }

    #[test]
    fn one_way_to_find_founders_is_enough() {
        let many = "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                    \"discovery-endpoints\" or \"discovery-srv\"";
        let both = "both --discovery-token and --discovery-endpoints must be set";
        let cases: [(&[&str], &str); 7] = [
            (&["--initial-cluster=a=http://1.1.1.1:1", "--discovery-srv=x.org"], many),
            (&["--initial-cluster=default=http://localhost:2380", "--discovery-srv=x.org"], many),
            (&["--discovery-srv=x.org", "--discovery-endpoints=a:1", "--discovery-token=t"], many),
            (&["--discovery-endpoints=a:1"], both),
            (&["--discovery-token=t"], both),
            (&["--discovery-endpoints=", "--discovery-token=t"], "--discovery-endpoints must not contain empty endpoints"),
            (&["--discovery-endpoints=a:1,", "--discovery-token=t"], "--discovery-endpoints must not contain empty endpoints"),
        ];
        for (arguments, text) in cases {
            assert_eq!(check(arguments).unwrap_err(), text, "{arguments:?}");
        }
        let config = check(&["--initial-cluster=", "--discovery-srv=x.org", "--discovery-srv-name=y"]).unwrap();
        assert_eq!(config.discovery, Discovery::Domain(Domain { name: "x.org".into(), suffix: "y".into() }));
    }

    #[test]
    fn founders_that_are_to_be_discovered_are_not_guessed() {
        let found = |arguments: &[&str]| check(arguments).unwrap().initial_cluster;
        assert_eq!(found(&["--discovery-srv=x.org", "--name=a"]), "");
        assert_eq!(found(&["--discovery-srv-name=y"]), "");
        assert_eq!(found(&["--discovery-endpoints=a:1", "--discovery-token=t"]), "");
        assert_eq!(found(&["--discovery-srv="]), "default=http://localhost:2380");
    }

    #[test]
    fn endpoints_are_sorted_and_the_service_has_its_own_settings() {
        let config = check(&["--discovery-endpoints=b:1,a:1,b:1", "--discovery-token=t", "--discovery-user=u"]).unwrap();
        let Discovery::Service(service) = config.discovery else { panic!("{:?}", config.discovery) };
        assert_eq!((service.endpoints, service.token), (vec!["a:1".to_owned(), "b:1".to_owned()], "t".to_owned()));
        assert_eq!(service.request_timeout, Duration::from_secs(5));
        assert!(service.insecure_transport && !service.skip_verify && service.user == "u");
    }
}

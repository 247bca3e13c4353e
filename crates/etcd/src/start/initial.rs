//! Who founds the cluster, or is in it already: as the flags list them, as DNS knows them, or this member alone, until
//! the discovery service has named the others.

use std::net::{SocketAddr, ToSocketAddrs};

use client::srv;

use super::lines::texts;
use crate::config::discovery::{Discovery, Domain};
use crate::config::{Config, value};
use crate::logging::{Field, Logger};

/// Names and peer URLs; a name that stands there twice has several URLs.
pub(super) type Members = Vec<(String, Vec<String>)>;

/// What a first start begins with.
#[derive(Debug, Default)]
pub(super) struct Initial {
    pub(super) members: Members,
    pub(super) token: String,
    /// The name that certificates of other members are checked against, instead of the host of their URLs.
    pub(super) server_name: Option<String>,
}

impl Initial {
    /// Finds out. A member that has a log knows the others: nobody is asked, and mistakes in the flags do not matter.
    pub(super) fn of(config: &Config, has_log: bool, logger: &Logger) -> Result<Initial, String> {
        let wrong = |why: String| format!("error setting up initial cluster: {why}");
        let token = config.initial_cluster_token.clone();
        match &config.discovery {
            Discovery::Service(service) => {
                let members = vec![(config.name.clone(), texts(&config.advertise_peer))];
                Ok(Initial { members, token: service.token.clone(), server_name: None })
            }
            Discovery::Domain(_) if has_log => Ok(Initial { token, ..Initial::default() }),
            Discovery::Domain(domain) => {
                let found = known_to(domain, config, logger).map_err(wrong)?;
                let is_secure = found.iter().any(|entry| entry.contains("https://"));
                let has_ca = !config.raw.text("peer-trusted-ca-file").is_empty();
                let server_name = (is_secure && !has_ca).then(|| domain.name.clone());
                let members = parse(&found.join(",")).map_err(wrong)?;
                if !members.iter().any(|(name, _)| *name == config.name) {
                    return Err(wrong(format!("cannot find local etcd member {:?} in SRV records", config.name)));
                }
                Ok(Initial { members, token, server_name })
            }
            Discovery::None => {
                let members = match parse(&config.initial_cluster) {
                    Err(_) if has_log => Members::new(),
                    parsed => parsed.map_err(wrong)?,
                };
                Ok(Initial { members, token, server_name: None })
            }
        }
    }
}

/// Reads `name=url,name=url`.
pub(super) fn parse(text: &str) -> Result<Members, String> {
    let mut members = Members::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, url) = part.split_once('=').unwrap_or((part, ""));
        value::parse_url(url)?;
        match members.iter_mut().find(|(known, _)| known == name) {
            Some((_, urls)) => urls.push(url.into()),
            None => members.push((name.into(), vec![url.into()])),
        }
    }
    Ok(members)
}

/// Writes what [`parse`] reads, sorted.
pub(super) fn show(members: &[(String, Vec<String>)]) -> String {
    let pairs = members.iter().flat_map(|(name, urls)| urls.iter().map(move |url| format!("{name}={url}")));
    let mut pairs: Vec<String> = pairs.collect();
    pairs.sort();
    pairs.join(",")
}

/// The members that DNS knows, each as `name=url`: those with TLS, then those without. One kind is enough.
fn known_to(domain: &Domain, config: &Config, logger: &Logger) -> Result<Vec<String>, String> {
    let advertised = texts(&config.advertise_peer);
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    for scheme in ["https", "http"] {
        let service = srv::service("etcd-server", scheme, &domain.suffix);
        let result = entries(scheme, &service, domain, config);
        let failure = match result {
            Ok(entries) => {
                found.extend(entries);
                None
            }
            Err(why) => Some(why),
        };
        let text = if scheme == "https" { "get cluster for etcd-server-ssl SRV" } else { "get cluster for etcd-server SRV" };
        let mut fields: Vec<Field<'_>> = vec![
            ("service-scheme", scheme.into()),
            ("service-name", service.into()),
            ("server-name", (&config.name).into()),
            ("discovery-srv", (&domain.name).into()),
            ("advertise-peer-urls", advertised.clone().into()),
            ("found-cluster", found.clone().into()),
        ];
        fields.extend(failure.iter().map(|why| ("error", why.into())));
        logger.info(text, &fields);
        failures.extend(failure);
    }
    if !failures.is_empty() {
        logger.warn("failed to resolve during SRV discovery", &[("error", failures.join("\n").into())]);
    }
    if found.is_empty() {
        return Err(failures.join("\n"));
    }
    for entry in &found {
        logger.info("got bootstrap from DNS for etcd-server", &[("node", entry.into())]);
    }
    Ok(found)
}

/// The members that one service has. The one at an address that this member advertises is this member; others are
/// numbered.
fn entries(scheme: &str, service: &str, domain: &Domain, config: &Config) -> Result<Vec<String>, String> {
    let mut own = Vec::new();
    for url in &config.advertise_peer {
        own.push((resolve(&url.host, url.hostname())?, url));
    }
    let wrapped = |why: String| format!("error querying DNS SRV records for _{service} {why}");
    let records = srv::lookup_srv(service, &domain.name).map_err(wrapped)?;
    let found = records.iter().map(|record| {
        // Records name hosts in full, with a dot at the end that URLs do not have.
        let host = format!("{}:{}", record.target.trim_end_matches('.'), record.port);
        let address = resolve_target(&record.target, &host)?;
        Ok((host, own.iter().find(|(known, _)| *known == address).map(|(_, url)| *url)))
    });
    named(scheme, service, config, found.collect()).map_err(wrapped)
}

type Found<'a> = (String, Option<&'a value::Address>);

/// Names hosts. Those that cannot be used are left out, and matter only if nothing is left.
fn named(scheme: &str, service: &str, config: &Config, found: Vec<Result<Found<'_>, String>>) -> Result<Vec<String>, String> {
    let (mut entries, mut number, mut failure) = (Vec::new(), 0, None);
    for host in found {
        match host {
            Err(why) => failure = Some(why),
            Ok((host, Some(own))) if own.scheme != scheme => {
                failure = Some(format!(
                    "bootstrap at {scheme}://{host} from DNS for {service} has scheme mismatch with expected peer {own}"
                ));
            }
            Ok((host, Some(_))) => entries.push(format!("{}={scheme}://{host}", config.name)),
            Ok((host, None)) => {
                entries.push(format!("{number}={scheme}://{host}"));
                number += 1;
            }
        }
    }
    match failure {
        Some(why) if entries.is_empty() => Err(why),
        _ => Ok(entries),
    }
}

/// The address of a record's host. The target `.` says that there is no such service (RFC 2782).
fn resolve_target(target: &str, host: &str) -> Result<SocketAddr, String> {
    if target == "." {
        return Err("lookup .: no such host".into());
    }
    resolve(host, target)
}

/// The address of `host:port`, of version 4 where there is one, with Go's words when there is none.
fn resolve(host_and_port: &str, host: &str) -> Result<SocketAddr, String> {
    let found = host_and_port.to_socket_addrs().map_err(|error| {
        let text = error.to_string();
        let why = if text.contains("Temporary failure") { "server misbehaving" } else { "no such host" };
        format!("lookup {host}: {why}")
    })?;
    let found: Vec<SocketAddr> = found.collect();
    let first = found.iter().find(|address| address.is_ipv4()).or(found.first());
    first.copied().ok_or_else(|| format!("lookup {host}: no such host"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::raw::RawConfig;

    fn config(arguments: &[&str]) -> Config {
        let mut raw = RawConfig::default();
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        raw.read_arguments(&arguments).unwrap();
        Config::check(raw).unwrap()
    }

    #[test]
    fn lists_are_read_and_shown() {
        let members = parse("b=http://h:2, a=http://h:1,b=http://h:3,").unwrap();
        assert_eq!(members[0], ("b".to_owned(), vec!["http://h:2".to_owned(), "http://h:3".to_owned()]));
        assert_eq!(show(&members), "a=http://h:1,b=http://h:2,b=http://h:3");
        assert_eq!(parse("a").unwrap_err(), "URL scheme must be http, https, unix, or unixs: ");
        assert_eq!((parse("").unwrap(), show(&[])), (Vec::new(), String::new()));
    }

    #[test]
    fn with_a_log_mistakes_in_the_list_do_not_matter() {
        let config = config(&["--initial-cluster=default=x"]);
        let logger = Logger::silent();
        let why = "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: x";
        assert_eq!(Initial::of(&config, false, &logger).unwrap_err(), why);
        assert!(Initial::of(&config, true, &logger).unwrap().members.is_empty());
    }

    #[test]
    fn the_service_is_asked_with_what_this_member_advertises() {
        let config = config(&[
            "--discovery-endpoints=h:1", "--discovery-token=t", "--name=a",
            "--initial-advertise-peer-urls=http://h:2,http://h:1",
        ]);
        let initial = Initial::of(&config, false, &Logger::silent()).unwrap();
        assert_eq!((show(&initial.members).as_str(), initial.token.as_str()), ("a=http://h:1,a=http://h:2", "t"));
    }

    #[test]
    fn hosts_are_named_numbered_or_left_out() {
        let config = config(&["--name=me", "--discovery-srv=x.test", "--initial-advertise-peer-urls=http://127.0.0.1:2"]);
        let own = &config.advertise_peer[0];
        let host = |port: u16, own| Ok((format!("h.x.test:{port}"), own));
        let lost = || Err("lookup l.x.test: no such host".to_owned());
        let all = vec![host(1, None), lost(), host(2, Some(own)), host(3, None)];
        let expected = ["0=http://h.x.test:1", "me=http://h.x.test:2", "1=http://h.x.test:3"];
        assert_eq!(named("http", "etcd-server", &config, all).unwrap(), expected);
        assert_eq!(named("http", "etcd-server", &config, vec![lost()]).unwrap_err(), "lookup l.x.test: no such host");
        assert_eq!(
            named("https", "etcd-server-ssl", &config, vec![host(2, Some(own))]).unwrap_err(),
            "bootstrap at https://h.x.test:2 from DNS for etcd-server-ssl has scheme mismatch with expected peer \
             http://127.0.0.1:2"
        );
    }

    #[test]
    fn addresses_are_found_or_missed_in_gos_words() {
        assert_eq!(resolve("127.0.0.1:5", "").unwrap().to_string(), "127.0.0.1:5");
        assert_eq!(resolve("[::1]:5", "").unwrap().to_string(), "[::1]:5");
        assert_eq!(resolve_target(".", ":5").unwrap_err(), "lookup .: no such host");
    }
}

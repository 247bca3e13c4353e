//! Where a service is, as SRV records of DNS say.
//!
//! The only questions of ours that the system's own resolver cannot be asked, for it looks up addresses alone. Servers,
//! search list and time-outs come from `/etc/resolv.conf`; order, patience and words are those of Go's resolver. Calls
//! block their thread: they are made before anything else runs.
//!
//! Reading order: this file, `settings.rs` (resolv.conf), `ask.rs` (one question to all servers), `message.rs` (bytes).

mod ask;
mod message;
mod settings;

use settings::Settings;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    /// The host, with the dot that ends a full name.
    pub target: String,
    /// The port.
    pub port: u16,
    /// Lower ones come first.
    pub priority: u16,
    /// Among those of one priority: how much of the load a host should get.
    pub weight: u16,
}

/// The service of this name for a scheme: `etcd-client`, `etcd-client-ssl`, `etcd-client-ssl-SUFFIX`.
#[must_use]
pub fn service(base: &str, scheme: &str, suffix: &str) -> String {
    let mut service = base.to_owned();
    if scheme == "https" {
        service.push_str("-ssl");
    }
    if !suffix.is_empty() {
        service.push('-');
        service.push_str(suffix);
    }
    service
}

/// The records of a service over TCP in a domain, in the order in which its hosts should be tried.
///
/// # Errors
/// That there are none, or that no server answers, in Go's words.
pub fn lookup_srv(service: &str, domain: &str) -> Result<Vec<Srv>, String> {
    lookup(&Settings::of_system(), &format!("_{service}._tcp.{domain}"), domain)
}

fn lookup(settings: &Settings, name: &str, domain: &str) -> Result<Vec<Srv>, String> {
    let nobody = || format!("lookup {name}: no such host");
    if !is_host(name) {
        return Err(nobody());
    }
    let mut failure = None;
    for full in settings.names(name) {
        match ask::ask(settings, &full) {
            Ok(records) => return ordered(records, domain),
            Err(refusal) if refusal.is_torn => return Err(format!("lookup {domain} on {}: {}", refusal.server, refusal.why)),
            // The name that was looked for is shown, not the last one that was tried.
            Err(refusal) => failure = Some(format!("lookup {name} on {}: {}", refusal.server, refusal.why)),
        }
    }
    Err(failure.unwrap_or_else(nobody))
}

fn ordered(records: Vec<Srv>, domain: &str) -> Result<Vec<Srv>, String> {
    if records.iter().any(|record| !is_host(&record.target)) {
        return Err(format!("lookup {domain}: DNS response contained records which contain invalid names"));
    }
    Ok(in_order(records, |below| rand::random_range(0..below)))
}

/// By priority; among equals by a draw in which the weights are the lots (RFC 2782).
fn in_order(mut records: Vec<Srv>, mut draw: impl FnMut(u32) -> u32) -> Vec<Srv> {
    records.sort_by_key(|record| (record.priority, record.weight));
    let mut all = Vec::with_capacity(records.len());
    for equal in records.chunk_by(|a, b| a.priority == b.priority) {
        let mut left = equal.to_vec();
        let mut sum: u32 = left.iter().map(|record| u32::from(record.weight)).sum();
        while sum > 0 && left.len() > 1 {
            let (lot, mut seen) = (draw(sum), 0);
            let drawn = left.iter().position(|record| {
                seen += u32::from(record.weight);
                seen > lot
            });
            let record = left.remove(drawn.unwrap_or(0));
            sum -= u32::from(record.weight);
            all.push(record);
        }
        all.append(&mut left);
    }
    all
}

/// Endpoints that the records of a service for clients name, those with TLS first. `suffix` is that of
/// `--discovery-srv-name`.
///
/// # Errors
/// When neither service has records.
pub fn endpoints(base: &str, domain: &str, suffix: &str) -> Result<Vec<String>, String> {
    let find = |scheme: &str| -> Result<Vec<String>, String> {
        let records = lookup_srv(&service(base, scheme, suffix), domain)?;
        Ok(records.iter().map(|record| format!("{scheme}://{}:{}", record.target, record.port)).collect())
    };
    match (find("https"), find("http")) {
        (Err(secure), Err(plain)) => Err(format!("dns lookup errors: {secure} and {plain}")),
        (secure, plain) => Ok(secure.unwrap_or_default().into_iter().chain(plain.unwrap_or_default()).collect()),
    }
}

/// Whether a text is a name that a host may have, as Go judges it: letters, digits, `-` and `_`, and not only digits.
fn is_host(name: &str) -> bool {
    if name == "." {
        return true;
    }
    let plain = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    };
    plain.len() <= message::NAME_MAX
        && plain.split('.').all(is_label)
        && plain.bytes().any(|c| !c.is_ascii_digit() && c != b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(priority: u16, weight: u16, port: u16) -> Srv {
        Srv { target: "h.test.".into(), port, priority, weight }
    }

    #[test]
    fn services_have_names_by_scheme_and_suffix() {
        assert_eq!(service("etcd-client", "http", ""), "etcd-client");
        assert_eq!(service("etcd-client", "https", "blue"), "etcd-client-ssl-blue");
        assert_eq!(service("etcd-server", "http", "blue"), "etcd-server-blue");
    }

    #[test]
    fn names_of_hosts_are_told_from_others() {
        for good in [".", "a", "a.b", "a.b.", "_etcd-server._tcp.x1.test", "1a", "10.0.0.x"] {
            assert!(is_host(good), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "..", "a..b", "-a", "a-", "a.-b", "a b", "10.0.0.1", "a/b", "\u{fffd}.test", long.as_str()] {
            assert!(!is_host(bad), "{bad}");
        }
        assert!(!is_host(&"abc.".repeat(64)));
    }

    #[test]
    fn the_order_follows_priority_and_then_the_draw() {
        let records = vec![record(20, 0, 1), record(10, 60, 2), record(10, 20, 3), record(10, 0, 4)];
        let ports = |lot: u32| {
            let ordered = in_order(records.clone(), |below| lot.min(below - 1));
            ordered.iter().map(|record| record.port).collect::<Vec<_>>()
        };
        assert_eq!(ports(0), [3, 2, 4, 1]);
        assert_eq!(ports(79), [2, 3, 4, 1]);
        assert_eq!(in_order(Vec::new(), |_| 0), []);
    }

    #[test]
    fn names_that_no_server_can_know_are_not_asked_for() {
        let settings = Settings::parse("nameserver 127.0.0.1\n", "");
        assert_eq!(lookup(&settings, "_a._tcp.b c", "b c").unwrap_err(), "lookup _a._tcp.b c: no such host");
        assert_eq!(
            ordered(vec![Srv { target: "a b.".into(), ..record(1, 1, 1) }], "x.test").unwrap_err(),
            "lookup x.test: DNS response contained records which contain invalid names"
        );
    }
}

//! Whether a peer comes from where its certificate says: addresses are compared, and names looked up both ways, as
//! etcd does it.

use std::net::{IpAddr, ToSocketAddrs};

use pki::leaf::Leaf;

/// Checks the certificate of a peer at `remote`; the error is etcd's text. A certificate without names passes.
pub(crate) async fn check(leaf: &Leaf, remote: IpAddr) -> Result<(), String> {
    if !leaf.addresses.is_empty() {
        match leaf.check_host(&remote.to_string()) {
            Ok(()) => return Ok(()),
            Err(error) if leaf.dns_names.is_empty() => return Err(error),
            Err(_) => {}
        }
    }
    if leaf.dns_names.is_empty() {
        return Ok(());
    }
    let names = leaf.dns_names.clone();
    // The system's resolver blocks.
    let looked_up = tokio::task::spawn_blocking(move || is_host_of(remote, &names)).await;
    let why = match looked_up {
        Ok(Ok(true)) => return Ok(()),
        Ok(Ok(false)) | Err(_) => String::new(),
        Ok(Err(error)) => format!(" ({error})"),
    };
    let names: Vec<String> = leaf.dns_names.iter().map(|name| format!("{name:?}")).collect();
    Err(format!("tls: \"{remote}\" does not match any of DNSNames [{}]{why}", names.join(" ")))
}

fn is_host_of(remote: IpAddr, names: &[String]) -> Result<bool, String> {
    let (wildcards, names): (Vec<&str>, Vec<&str>) =
        names.iter().map(String::as_str).partition(|name| name.starts_with("*."));
    // What the address is called; an address without a name is given back as digits.
    let found = dns_lookup::lookup_addr(&remote).unwrap_or_default();
    let found = found.trim_end_matches('.');
    if names.contains(&found) || wildcards.iter().any(|pattern| found.ends_with(&pattern[1..])) {
        return Ok(true);
    }
    let mut failed = None;
    for name in names {
        match (name, 0).to_socket_addrs() {
            Ok(addresses) if addresses.clone().any(|address| address.ip() == remote) => return Ok(true),
            Ok(_) => {}
            Err(_) => failed = Some(format!("lookup {name}: no such host")),
        }
    }
    failed.map_or(Ok(false), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_and_names_are_compared_as_in_etcd() {
        let local: IpAddr = "127.0.0.1".parse().unwrap();
        let leaf = |addresses: &[&str], names: &[&str]| Leaf {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            dns_names: names.iter().map(ToString::to_string).collect(),
            ..Leaf::default()
        };
        assert_eq!(check(&leaf(&[], &[]), local).await, Ok(()));
        assert_eq!(check(&leaf(&["127.0.0.1"], &["nowhere.invalid"]), local).await, Ok(()));
        assert_eq!(check(&leaf(&["10.9.8.7"], &["localhost"]), local).await, Ok(()));
        assert_eq!(
            check(&leaf(&["10.9.8.7"], &[]), local).await.unwrap_err(),
            "x509: certificate is valid for 10.9.8.7, not 127.0.0.1"
        );
        assert_eq!(
            check(&leaf(&[], &["nowhere.invalid"]), local).await.unwrap_err(),
            "tls: \"127.0.0.1\" does not match any of DNSNames [\"nowhere.invalid\"] (lookup nowhere.invalid: no such host)"
        );
    }
}

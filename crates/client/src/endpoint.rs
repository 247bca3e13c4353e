//! Endpoints as people write them: `host:port`, `http://host:port`, `unix://path`.

use std::path::PathBuf;

/// What stood before `://`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Nothing: TLS if the client has TLS settings.
    None,
    /// Never TLS.
    Http,
    /// Always TLS.
    Https,
    /// A socket file without TLS.
    Unix,
    /// A socket file with TLS.
    Unixs,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `host:port`, resolved when it is dialled.
    Tcp(String),
    /// A socket file.
    Unix(PathBuf),
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    given: String,
    pub(crate) scheme: Scheme,
    pub(crate) target: Target,
}

impl Endpoint {
    /// Reads an endpoint. Whatever is not understood as a URL is taken as an address and fails when it is dialled.
    #[must_use]
    pub fn parse(given: &str) -> Endpoint {
        let (scheme, rest) = match given.split_once(':') {
            Some(("http", rest)) if rest.starts_with("//") => (Scheme::Http, rest),
            Some(("https", rest)) if rest.starts_with("//") => (Scheme::Https, rest),
            Some(("unix", rest)) => (Scheme::Unix, rest),
            Some(("unixs", rest)) => (Scheme::Unixs, rest),
            _ => (Scheme::None, given),
        };
        let rest = rest.strip_prefix("//").unwrap_or(rest);
        let target = match scheme {
            Scheme::Unix | Scheme::Unixs => Target::Unix(PathBuf::from(rest)),
            Scheme::None => Target::Tcp(rest.to_owned()),
            Scheme::Http | Scheme::Https => {
                let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
                let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
                Target::Tcp(host.to_owned())
            }
        };
        Endpoint { given: given.to_owned(), scheme, target }
    }

    /// As it was given.
    #[must_use]
    pub fn given(&self) -> &str {
        &self.given
    }

    /// What stood before `://`.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// What requests carry as `:authority`, and what log lines name.
    pub(crate) fn authority(&self) -> String {
        match &self.target {
            Target::Tcp(address) => address.clone(),
            Target::Unix(path) => path.display().to_string(),
        }
    }

    /// The name that the server's certificate is checked against.
    pub(crate) fn server_name(&self) -> String {
        let authority = match &self.target {
            Target::Tcp(address) => address.clone(),
            Target::Unix(path) => {
                path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
            }
        };
        let name = split_host_port(&authority).map_or(authority.as_str(), |(host, _)| host);
        // Names in certificates lack the dot that may end a full name.
        name.strip_suffix('.').unwrap_or(name).to_owned()
    }
}

/// `host:port`, with brackets around an IPv6 host.
pub(crate) fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let cases = [
            ("127.0.0.1:2379", Scheme::None, "127.0.0.1:2379", "127.0.0.1"),
            ("http://localhost:2379", Scheme::Http, "localhost:2379", "localhost"),
            ("https://[::1]:2379/", Scheme::Https, "[::1]:2379", "::1"),
            ("https://u:p@db:2379/x?y", Scheme::Https, "db:2379", "db"),
            ("unix://localhost:m0", Scheme::Unix, "localhost:m0", "localhost:m0"),
            ("https://db.test.:2379", Scheme::Https, "db.test.:2379", "db.test"),
            ("unixs:///run/db:1", Scheme::Unixs, "/run/db:1", "db"),
            ("unix:/run/db", Scheme::Unix, "/run/db", "db"),
            ("localhost", Scheme::None, "localhost", "localhost"),
        ];
        for (given, scheme, authority, name) in cases {
            let endpoint = Endpoint::parse(given);
            assert_eq!(endpoint.scheme(), scheme, "{given}");
            assert_eq!(endpoint.authority(), authority, "{given}");
            assert_eq!(endpoint.server_name(), name, "{given}");
            assert_eq!(endpoint.given(), given);
        }
        assert_eq!(split_host_port("a:b:1"), None);
        assert_eq!(split_host_port("a:x"), None);
    }
}

//! The header fields of one request, in two buffers that are reused from call to call.

use crate::hpack::name::Name;
use crate::limits::SPARE_STREAM_BYTES;

#[derive(Clone, Copy, Debug)]
struct Pos {
    at: u32,
    name_len: u32,
    value_len: u32,
    name: Name,
}

/// The header fields of a request, pseudo-headers included, as received: binary fields (`-bin`) are still in base64.
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    bytes: Vec<u8>,
    fields: Vec<Pos>,
    deadline: Option<u64>,
}

impl Metadata {
    /// The first value of a field, by its lower-case name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let wanted = Name::of(name.as_bytes());
        self.fields
            .iter()
            .find(|p| p.name == wanted && self.name_of(p) == name.as_bytes())
            .map(|p| self.value_of(p))
    }

    /// All values of a field, by its lower-case name.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| *n == name.as_bytes()).map(|(_, v)| v)
    }

    /// All fields in wire order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|p| (self.name_of(p), self.value_of(p)))
    }

    /// `token`, the auth token of etcd's clients.
    pub fn token(&self) -> Option<&[u8]> {
        self.known(Name::Token)
    }

    /// `authorization`, where the JSON gateway and some clients put the token.
    pub fn authorization(&self) -> Option<&[u8]> {
        self.known(Name::Authorization)
    }

    /// Whether the caller asks for a leader (`hasleader: true`).
    pub fn has_leader(&self) -> bool {
        self.known(Name::HasLeader) == Some(b"true")
    }

    /// `client-api-version`. It need not be UTF-8.
    pub fn client_api_version(&self) -> Option<&[u8]> {
        self.known(Name::ClientApiVersion)
    }

    /// `user-agent`.
    pub fn user_agent(&self) -> Option<&[u8]> {
        self.known(Name::UserAgent)
    }

    /// `:authority`, or `host` where a client sends that instead.
    pub fn authority(&self) -> Option<&[u8]> {
        self.known(Name::Authority).or_else(|| self.known(Name::Host))
    }

    /// When the call ends by itself, on the clock of `receive`; from `grpc-timeout`.
    pub fn deadline_ms(&self) -> Option<u64> {
        self.deadline
    }

    pub(crate) fn known(&self, name: Name) -> Option<&[u8]> {
        self.fields.iter().find(|p| p.name == name).map(|p| self.value_of(p))
    }

    #[inline]
    pub(crate) fn push(&mut self, name: Name, name_bytes: &[u8], value: &[u8]) {
        self.fields.push(Pos {
            at: self.bytes.len() as u32,
            name_len: name_bytes.len() as u32,
            value_len: value.len() as u32,
            name,
        });
        self.bytes.extend_from_slice(name_bytes);
        self.bytes.extend_from_slice(value);
    }

    pub(crate) fn set_deadline(&mut self, deadline: Option<u64>) {
        self.deadline = deadline;
    }

    /// Empties it, keeping a bounded part of the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.fields.clear();
        self.deadline = None;
        if self.bytes.capacity() > SPARE_STREAM_BYTES {
            *self = Metadata::default();
        }
    }

    #[cfg(test)]
    pub(crate) fn footprint(&self) -> usize {
        self.bytes.capacity() + self.fields.capacity() * size_of::<Pos>()
    }

    fn name_of(&self, p: &Pos) -> &[u8] {
        &self.bytes[p.at as usize..][..p.name_len as usize]
    }

    fn value_of(&self, p: &Pos) -> &[u8] {
        &self.bytes[(p.at + p.name_len) as usize..][..p.value_len as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups() {
        let mut m = Metadata::default();
        for (n, v) in [("token", "a.1"), ("x", "1"), ("x", "2"), ("hasleader", "true"), ("host", "h")] {
            m.push(Name::of(n.as_bytes()), n.as_bytes(), v.as_bytes());
        }
        assert_eq!(m.token(), Some(&b"a.1"[..]));
        assert_eq!(m.get("token"), Some(&b"a.1"[..]));
        assert_eq!(m.get("x"), Some(&b"1"[..]));
        assert_eq!(m.get_all("x").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(m.get("y"), None);
        assert_eq!(m.authority(), Some(&b"h"[..]));
        assert!(m.has_leader());
        assert_eq!(m.iter().count(), 5);
        m.clear();
        assert!(!m.has_leader() && m.iter().next().is_none());
    }
}

//! Parameters of a request's path, as Go's `url.Query` reads them.

/// Keys and values in their order; what is wrongly escaped is left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Query {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty() && !part.contains(';'));
        let pairs = parts.filter_map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((unescape(key)?, unescape(value)?))
        });
        Query(pairs.collect())
    }

    /// Whether the key is there at all.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| known == key)
    }

    /// The first value of a key.
    pub(super) fn first(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// All values of a key.
    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = &tail[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unescaped_and_keys_may_repeat() {
        let query = Query::parse(Some("exclude=a%20b&verbose&exclude=c+d&bad=%zz&x=1;2"));
        assert_eq!(query.all("exclude").collect::<Vec<_>>(), ["a b", "c d"]);
        assert!(query.has("verbose") && !query.has("bad") && !query.has("x"));
        assert_eq!((query.first("exclude"), query.first("none")), (Some("a b"), None));
        assert_eq!(Query::parse(None), Query::default());
    }
}

//! Which release could read a log: a downgrade is refused while entries that need a newer one could be replayed.

use api::etcdserverpb::InternalRaftRequest;
use api::raftpb::{Entry, EntryType};
use api::version::{Minor, Version};
use api::{schema, versionpb, wire};

/// The oldest release that understands all of these entries; `None` if nothing in them asks for one.
///
/// Entries that are no v3 request (v2 requests of 3.4 and 3.5) need no newer release, and count for nothing.
pub fn minimal_version<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<Minor> {
    entries.into_iter().filter_map(of_entry).max()
}

fn of_entry(entry: &Entry) -> Option<Minor> {
    let data = entry.data.as_deref().filter(|data| !data.is_empty())?;
    if entry.r#type.unwrap_or(0) != EntryType::EntryNormal as i32 {
        // Configuration changes look the same in all releases since 3.0.
        return None;
    }
    let request = schema::of::<InternalRaftRequest>();
    let needed = versionpb::minimal_version(request, data).ok()?;
    // A test of the mechanism itself names the version that it wants to stand for.
    let named = request
        .fields
        .iter()
        .find(|field| field.name == "downgrade_version_test")
        .and_then(|field| wire::last_bytes(data, field.number))
        .and_then(|test| wire::last_bytes(test, 1))
        .and_then(|text| std::str::from_utf8(text).ok())
        .and_then(|text| text.parse::<Version>().ok())
        .map(Version::minor);
    needed.max(named)
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::{DowngradeVersionTestRequest, PutRequest};
    use api::membershippb::ClusterVersionSetRequest;
    use prost::Message;

    use super::*;

    fn entry(request: &InternalRaftRequest) -> Entry {
        Entry { data: Some(request.encode_to_vec().into()), ..Entry::default() }
    }

    #[test]
    fn the_newest_entry_decides() {
        let put = entry(&InternalRaftRequest { put: Some(PutRequest::default()), ..Default::default() });
        let set = entry(&InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest { ver: "3.7.0".to_owned() }),
            ..Default::default()
        });
        let test = |ver: &str| {
            entry(&InternalRaftRequest {
                downgrade_version_test: Some(DowngradeVersionTestRequest { ver: ver.to_owned() }),
                ..Default::default()
            })
        };
        let change = Entry { r#type: Some(1), data: Some(vec![0xff; 4].into()), ..Entry::default() };
        let v2 = Entry { data: Some(b"\x08\x01\x12\x03PUT\x1a\x03/0/".to_vec().into()), ..Entry::default() };
        assert_eq!(minimal_version([]), None);
        assert_eq!(minimal_version(&[Entry::default(), change, v2]), None);
        assert_eq!(minimal_version(&[put.clone(), set.clone()]), Some(Minor::new(3, 5)));
        assert_eq!(minimal_version(&[put, test("3.9.0"), set]), Some(Minor::new(3, 9)));
        assert_eq!(minimal_version(&[test("junk")]), Some(Minor::new(3, 6)));
    }
}

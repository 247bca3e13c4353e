//! Requests of the v2 store in logs of 3.4 and 3.5: two of them carry membership, the rest did something to a store
//! that no longer exists.

use api::etcdserverpb as pb;
use serde::Deserialize;

use super::{Applier, Context, Error, Failure, Turn};
use crate::membership::{VERSION_PATH, v2_member_of_attributes_path};

/// The value of an attributes request.
#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Option<Vec<String>>,
}

impl Applier {
    pub(super) fn v2_request(&mut self, at: Context<'_>, out: &mut Turn<'_>) -> Result<(), Failure> {
        let request: pb::Request = super::decode(at)?;
        if request.method() != "PUT" {
            return Ok(());
        }
        let path = request.path();
        if path == VERSION_PATH {
            return self.set_cluster_version(request.val(), at.index, out);
        }
        let Some(id) = v2_member_of_attributes_path(path) else { return Ok(()) };
        let attributes: Attributes = serde_json::from_str(request.val()).map_err(|error| Error::Entry {
            index: at.index,
            reason: format!("publishes attributes that are no JSON: {error}"),
        })?;
        self.set_attributes(id, &attributes.name, &attributes.client_urls.unwrap_or_default(), out);
        Ok(())
    }
}

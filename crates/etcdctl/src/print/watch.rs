//! Answers of a watch.

use api::etcdserverpb::WatchResponse;
use api::mvccpb::Event;
use api::mvccpb::event::EventType;
use etcdutl::cli::Outcome;
use etcdutl::json::{Writer, quoted};
use prost::Message;

use super::{Printer, header_json, kv_json};

fn kind(event: &Event) -> &'static str {
    if event.r#type == EventType::Delete as i32 { "DELETE" } else { "PUT" }
}

impl Printer {
    pub(crate) fn watch(&self, answer: &WatchResponse) -> Outcome {
        self.show(
            || {
                let mut text = Vec::new();
                for event in &answer.events {
                    text.extend_from_slice(kind(event).as_bytes());
                    text.push(b'\n');
                    for kv in event.prev_kv.iter().chain(&event.kv) {
                        self.kv_simple(&mut text, self.value_only, kv);
                    }
                }
                Some(text)
            },
            || Some(watch_json(answer)),
            || {
                let mut text = self.header_fields(answer.header.as_ref());
                for event in &answer.events {
                    text.push_str(&format!("\"Type\" : {}\n", kind(event)));
                    if let Some(kv) = &event.prev_kv {
                        self.kv_fields(&mut text, "Prev", kv);
                    }
                    self.kv_fields(&mut text, "", &event.kv.clone().unwrap_or_default());
                }
                Some(text)
            },
            || Some(answer.encode_to_vec()),
        )
    }
}

/// The names are those of a Go struct that never had others; all of them are always there.
fn watch_json(answer: &WatchResponse) -> String {
    let mut object = Writer::object();
    object.field("Header", header_json(&answer.header.unwrap_or_default()));
    if answer.events.is_empty() {
        object.field("Events", "null");
    } else {
        object.items("Events", answer.events.iter().map(event_json));
    }
    object.field("CompactRevision", answer.compact_revision).field("Canceled", answer.canceled);
    object.field("Created", answer.created).field("CancelReason", quoted(""));
    object.end()
}

fn event_json(event: &Event) -> String {
    let mut object = Writer::object();
    object.number("type", event.r#type);
    for (name, kv) in [("kv", &event.kv), ("prev_kv", &event.prev_kv)] {
        if let Some(kv) = kv {
            object.field(name, kv_json(kv));
        }
    }
    object.end()
}

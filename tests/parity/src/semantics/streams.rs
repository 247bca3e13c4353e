//! Short forms of what watches and keepalives answer, and the reads that wait for them.
//!
//! A watch response reads `ID [created] [canceled] [fragment] [compacted N] [event...] @REVISION [(reason)]`; without a
//! word between id and revision it is a progress notification. An event reads `key=value@mod` with `vN` where the
//! version is not 1, `cN` where the create revision is another one, `lN` for a lease; `key-@mod` is a delete;
//! `<...` after it is the previous pair.

use std::time::Duration;

use api::etcdserverpb::{
    LeaseKeepAliveRequest, LeaseKeepAliveResponse, WatchCreateRequest, WatchRequest, WatchResponse,
};
use api::mvccpb::event::EventType;
use api::mvccpb::{Event, KeyValue};

use super::answer::{Difference, Outcome, rev, same, text};
use super::request::{cancel, create, progress};
use super::stream::Stream;
use super::target::Target;

/// How long a stream is listened to where nothing may come. Go serves watchers that are behind every 100 ms.
pub const QUIET: Duration = Duration::from_millis(400);

fn pair(kv: &KeyValue) -> String {
    let mut shown = format!("{}={}@{}", text(&kv.key), text(&kv.value), kv.mod_revision);
    if kv.version != 1 {
        shown += &format!("v{}", kv.version);
    }
    if kv.create_revision != kv.mod_revision {
        shown += &format!("c{}", kv.create_revision);
    }
    if kv.lease != 0 {
        shown += &format!("l{}", kv.lease);
    }
    shown
}

/// An event in short form.
#[must_use]
pub fn event(event: &Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let bare = KeyValue { key: kv.key.clone(), mod_revision: kv.mod_revision, ..Default::default() };
    let mut shown = if event.r#type == EventType::Delete as i32 && kv == bare {
        format!("{}-@{}", text(&kv.key), kv.mod_revision)
    } else if event.r#type == EventType::Put as i32 {
        pair(&kv)
    } else {
        format!("{event:?}")
    };
    if let Some(prev) = &event.prev_kv {
        shown += &format!("<{}", pair(prev));
    }
    shown
}

/// A watch response in short form.
#[must_use]
pub fn response(answer: &WatchResponse) -> String {
    let mut words = vec![answer.watch_id.to_string()];
    let flags = [(answer.created, "created"), (answer.canceled, "canceled"), (answer.fragment, "fragment")];
    words.extend(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, word)| word.to_string()));
    if answer.compact_revision != 0 {
        words.push(format!("compacted {}", answer.compact_revision));
    }
    words.extend(answer.events.iter().map(event));
    words.push(format!("@{}", rev(&answer.header)));
    if !answer.cancel_reason.is_empty() {
        words.push(format!("({})", answer.cancel_reason));
    }
    words.join(" ")
}

/// What has to hold for one number, where one script covers several: the number goes in front of the difference.
pub trait At: Sized {
    /// Names the number.
    #[must_use]
    fn at(self, id: &str) -> Self;
}

impl<T> At for Result<T, Difference> {
    fn at(self, id: &str) -> Self {
        self.map_err(|difference| Difference(format!("{id}: {difference}")))
    }
}

/// A stream of watchers.
pub type Watchers = Stream<WatchRequest>;

impl Stream<WatchRequest> {
    /// The next response, in short form.
    ///
    /// # Errors
    /// When the stream ends or is silent.
    pub async fn next(&mut self) -> Result<String, Difference> {
        Ok(response(&self.message().await?))
    }

    /// The next response must be this one.
    ///
    /// # Errors
    /// When it is another, or none.
    pub async fn says(&mut self, expected: &str) -> Outcome {
        same("answer", self.next().await?, expected.to_string())
    }

    /// Sends a create request; the next response must be this one.
    ///
    /// # Errors
    /// When it is another, or none.
    pub async fn creates(&mut self, request: WatchCreateRequest, expected: &str) -> Outcome {
        let shown = format!("{request:?}");
        self.send(create(request));
        same(&shown, self.next().await?, expected.to_string())
    }

    /// Sends a create request, which must be granted with this id whatever the revision.
    ///
    /// # Errors
    /// When it is not.
    pub async fn opens(&mut self, request: WatchCreateRequest, id: i64) -> Outcome {
        let shown = format!("{request:?}");
        self.send(create(request));
        let said = self.next().await?;
        let said = said.split(" @").next().unwrap_or_default();
        same(&shown, said, format!("{id} created").as_str())
    }

    /// Sends a create request, which must be refused for this reason.
    ///
    /// # Errors
    /// When it is not.
    pub async fn refuses(&mut self, request: WatchCreateRequest, reason: &str) -> Outcome {
        let shown = format!("{request:?}");
        self.send(create(request));
        let answer = self.message().await?;
        let is_refusal =
            answer.watch_id == -1 && answer.created && answer.canceled && answer.compact_revision == 0;
        if is_refusal && answer.cancel_reason == reason {
            return Ok(());
        }
        Err(Difference(format!("{shown}: expected a refusal ({reason}), got {}", response(&answer))))
    }

    /// Asks to cancel a watcher.
    pub fn cancel(&self, id: i64) {
        self.send(cancel(id));
    }

    /// Asks for progress.
    pub fn ask_progress(&self) {
        self.send(progress());
    }

    /// Nothing may come for a moment.
    ///
    /// # Errors
    /// When something does.
    pub async fn quiet(&mut self) -> Outcome {
        match self.receive(QUIET).await {
            super::Received::Silence => Ok(()),
            super::Received::Message(answer) => {
                Err(Difference(format!("expected silence, got {}", response(&answer))))
            }
            super::Received::End(status) => {
                Err(Difference(format!("expected silence, the stream ended with {status}")))
            }
        }
    }
}

/// Options of a watch, to be chained.
pub trait WatchOptions {
    /// An id of the client's choice.
    #[must_use]
    fn id(self, id: i64) -> Self;
    /// Asks for previous pairs.
    #[must_use]
    fn prev(self) -> Self;
    /// Asks for periodic progress.
    #[must_use]
    fn notify(self) -> Self;
    /// Filters, by number.
    #[must_use]
    fn filters(self, filters: &[i32]) -> Self;
    /// Allows fragments.
    #[must_use]
    fn fragments(self) -> Self;
}

impl WatchOptions for WatchCreateRequest {
    fn id(self, watch_id: i64) -> Self {
        WatchCreateRequest { watch_id, ..self }
    }
    fn prev(self) -> Self {
        WatchCreateRequest { prev_kv: true, ..self }
    }
    fn notify(self) -> Self {
        WatchCreateRequest { progress_notify: true, ..self }
    }
    fn filters(self, filters: &[i32]) -> Self {
        WatchCreateRequest { filters: filters.to_vec(), ..self }
    }
    fn fragments(self) -> Self {
        WatchCreateRequest { fragment: true, ..self }
    }
}

impl Stream<LeaseKeepAliveRequest> {
    /// Renews a lease on this stream; the answer.
    ///
    /// # Errors
    /// When the stream ends or is silent.
    pub async fn renew(&mut self, id: i64) -> Result<LeaseKeepAliveResponse, Difference> {
        self.send(LeaseKeepAliveRequest { id });
        self.message().await
    }
}

impl Target {
    /// Opens a stream of watchers.
    #[must_use]
    pub fn watchers(&self) -> Watchers {
        self.open::<WatchRequest>()
    }

    /// Renews a lease once, on a stream of its own: the time to live of the answer, 0 for a lease that is not there.
    ///
    /// # Errors
    /// When the stream ends, is silent, or answers for another lease.
    pub async fn renew(&self, id: i64) -> Result<i64, Difference> {
        let answer = self.open::<LeaseKeepAliveRequest>().renew(id).await?;
        same("lease of the answer", answer.id, id)?;
        Ok(answer.ttl)
    }

    /// Many calls at a time, each in its turn from `request`.
    ///
    /// # Errors
    /// The first that does not work.
    pub async fn flood<R: client::Rpc>(&self, count: usize, request: impl Fn(usize) -> R) -> Outcome
    where
        R::Response: Send,
    {
        const AT_A_TIME: usize = 128;
        let channel = self.connection().await;
        let mut running = tokio::task::JoinSet::new();
        for number in 0..count {
            if running.len() == AT_A_TIME {
                finished(running.join_next().await)?;
            }
            let (channel, request) = (channel.clone(), request(number));
            running.spawn(async move { super::target::ask_on(&channel, request).await.map(drop) });
        }
        while !running.is_empty() {
            finished(running.join_next().await)?;
        }
        Ok(())
    }
}

type Joined = Option<Result<Result<(), super::Status>, tokio::task::JoinError>>;

fn finished(joined: Joined) -> Outcome {
    match joined {
        Some(Ok(Err(status))) => Err(Difference(format!("one of many calls: {status}"))),
        Some(Err(error)) => Err(Difference(format!("one of many calls: {error}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use api::etcdserverpb::ResponseHeader;

    use super::*;

    #[test]
    fn short_forms() {
        let kv = |value: &'static str, create, version, lease| KeyValue {
            key: "a".into(),
            value: value.into(),
            create_revision: create,
            mod_revision: 3,
            version,
            lease,
        };
        let put = |kv| Event { r#type: EventType::Put as i32, kv: Some(kv), prev_kv: None };
        assert_eq!(event(&put(kv("1", 3, 1, 0))), "a=1@3");
        assert_eq!(event(&put(kv("1", 2, 2, 7))), "a=1@3v2c2l7");
        let tombstone = KeyValue { key: "a".into(), mod_revision: 3, ..Default::default() };
        let delete = Event { r#type: 1, kv: Some(tombstone), prev_kv: Some(kv("1", 3, 1, 0)) };
        assert_eq!(event(&delete), "a-@3<a=1@3");
        let odd = Event { r#type: 1, kv: Some(kv("1", 3, 1, 0)), prev_kv: None };
        assert!(event(&odd).starts_with("Event"));
        let header = Some(ResponseHeader { revision: 6, ..Default::default() });
        let answer = WatchResponse { header, canceled: true, compact_revision: 4, ..Default::default() };
        assert_eq!(response(&answer), "0 canceled compacted 4 @6");
    }
}

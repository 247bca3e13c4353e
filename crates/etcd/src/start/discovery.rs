//! Founders that find each other through a cluster of etcd that runs already: the discovery service.
//!
//! Somebody has written there how many there will be. Each of them writes itself beside that, and waits until as many
//! as are wanted have done so; those who came first found the cluster.
//!
//! Invariants:
//! - Who is not among the first is told so, and founds nothing.
//! - While the service does not answer it is asked again, without end and ever more seldom, as by etcd.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use api::ids;
use client::{Client, Context, Credentials, Error, TlsSettings, Watch, WatchOptions};

use super::initial;
use crate::config::discovery::Service;
use crate::logging::{Field, Level, Logger};

const PREFIX: &str = "/_etcd/registry";
/// Waits double up to two to the power of this, in seconds.
const BACKOFF_POWER_MAX: u32 = 8;
/// Longest answer: a few founders are a few hundred bytes.
const ANSWER_MAX: usize = 4 << 20;
/// No cluster has as many members; a service that says so is wrong.
const SIZE_MAX: i64 = 10_000;

/// A founder as the service knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Founder {
    key: String,
    /// `name=url`, or several of them.
    urls: String,
    created: i64,
}

/// The founders that have shown up, those who came first in front.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Founders(Vec<Founder>);

impl Founders {
    /// Adds one. The error is the line that says why not.
    fn add(&mut self, founder: Founder) -> Result<(), &'static str> {
        if !founder.urls.contains('=') {
            return Err("invalid peer info returned from discovery service");
        }
        if self.0.iter().any(|known| known.key == founder.key) {
            return Err("found duplicate peer from discovery service");
        }
        let at = self.0.partition_point(|known| known.created <= founder.created);
        self.0.insert(at, founder);
        Ok(())
    }

    /// Whether there is no place left for the one with this key.
    fn is_full_for(&self, key: &str, size: usize) -> bool {
        let place = self.0.iter().position(|founder| founder.key == key).unwrap_or(self.0.len());
        place >= size
    }

    /// The first so many as a list.
    fn first(&self, size: usize) -> String {
        let urls: Vec<&str> = self.0.iter().take(size).map(|founder| founder.urls.as_str()).collect();
        urls.join(",")
    }
}

/// Founds a cluster with others, `own` being this member's part of the list; gives back the whole list.
pub(super) async fn join(service: &Service, logger: &Logger, id: u64, own: &str) -> Result<String, String> {
    let client = connect(service, logger).await.map_err(|error| error.to_string())?;
    let visit = Visit { client, service, logger, prefix: clean(&format!("{PREFIX}/{}", service.token)), id };
    let (list, failure) = match visit.join(own).await {
        Ok(list) if initial::parse(&list).is_err() => (list, Some("discovery: invalid peer URL".to_owned())),
        Ok(list) => (list, None),
        Err(why) => (String::new(), Some(why)),
    };
    let mut fields = vec![("cluster", (&list).into())];
    let Some(why) = failure else {
        visit.say(Level::Info, "discovery joined cluster successfully", fields);
        return Ok(list);
    };
    fields.push(("error", (&why).into()));
    visit.say(Level::Error, "discovery failed to join cluster", fields);
    Err(why)
}

async fn connect(service: &Service, logger: &Logger) -> Result<Client, Error> {
    let file = |path: &str| Some(path).filter(|path| !path.is_empty()).map(PathBuf::from);
    let tls = TlsSettings {
        ca: file(&service.cacert),
        cert: file(&service.cert),
        key: file(&service.key),
        skip_verify: service.skip_verify,
        server_name: None,
    };
    let wants_tls = !service.insecure_transport || tls != TlsSettings::default();
    // With a user and no password nobody logs in, as in etcd.
    let credentials = (!service.user.is_empty() && !service.password.is_empty())
        .then(|| Credentials::Password { name: service.user.clone(), password: service.password.clone() });
    let log = logger.clone();
    Client::connect(client::Config {
        endpoints: service.endpoints.clone(),
        tls: wants_tls.then_some(tls),
        credentials,
        dial_timeout: service.dial_timeout,
        keepalive_time: Some(service.keepalive_time).filter(|time| !time.is_zero()),
        keepalive_timeout: service.keepalive_timeout,
        max_answer_bytes: ANSWER_MAX,
        log: Some(Arc::new(move |line| say_client_line(&log, line))),
        ..client::Config::default()
    })
    .await
}

/// Lines of the client are lines of ours, under its name.
fn say_client_line(logger: &Logger, line: &client::LogLine) {
    let value = |value: &client::Field| match value {
        client::Field::Text(text) => text.into(),
        client::Field::Number(number) => (*number).into(),
    };
    let fields: Vec<Field<'_>> = line.fields.iter().map(|(name, field)| (*name, value(field))).collect();
    let level = Level::parse(line.level).unwrap_or(Level::Warn);
    logger.named(&line.logger, level, line.message, &fields);
}

/// A path without empty parts, `.` and `..`, as keys of the service are made.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What the service said when it was last asked.
struct Seen {
    founders: Founders,
    size: usize,
    revision: i64,
}

impl Seen {
    fn counts(&self) -> Vec<Field<'static>> {
        vec![("clusterSize", self.size.into()), ("found-peers", self.founders.0.len().into())]
    }
}

/// Why the service was not asked with success.
enum Miss {
    /// It says what will not change.
    Final(String),
    /// It may answer later.
    Passing,
}

/// One member's talk with the service.
struct Visit<'a> {
    client: Client,
    service: &'a Service,
    logger: &'a Logger,
    /// Below this lie all keys of the cluster.
    prefix: String,
    id: u64,
}

impl Visit<'_> {
    #[track_caller]
    fn say(&self, level: Level, text: &str, more: Vec<Field<'_>>) {
        let mut fields: Vec<Field<'_>> = vec![
            ("discovery-token", (&self.service.token).into()),
            ("discovery-endpoints", self.service.endpoints.join(",").into()),
        ];
        fields.extend(more);
        self.logger.named("", level, text, &fields);
    }

    fn members_prefix(&self) -> String {
        format!("{}/members", self.prefix)
    }

    fn key(&self) -> String {
        clean(&format!("{}/members/{}", self.prefix, ids::hex(self.id)))
    }

    async fn join(&self, own: &str) -> Result<String, String> {
        self.check().await?;
        self.register(own).await;
        loop {
            let mut seen = self.check().await?;
            if self.wait_for_others(&mut seen).await {
                return Ok(seen.founders.first(seen.size));
            }
        }
    }

    /// Asks until there is an answer.
    async fn check(&self) -> Result<Seen, String> {
        let mut tries = 0;
        loop {
            match self.look().await {
                Ok(seen) if seen.founders.is_full_for(&self.key(), seen.size) => {
                    return Err("discovery: cluster is full".into());
                }
                Ok(seen) => return Ok(seen),
                Err(Miss::Final(why)) => return Err(why),
                Err(Miss::Passing) => self.back_off(&mut tries, "cluster status check").await,
            }
        }
    }

    async fn look(&self) -> Result<Seen, Miss> {
        let size = self.size().await?;
        let prefix = self.members_prefix();
        let (key, range_end) = client::prefix_range(prefix.as_bytes());
        let range = RangeRequest { key: key.into(), range_end: range_end.into(), ..RangeRequest::default() };
        let answer = self.client.call(range, self.context()).await.map_err(|error| {
            let fields = vec![("membersKeyPrefix", prefix.into()), ("error", error.to_string().into())];
            self.say(Level::Warn, "failed to get cluster members from discovery service", fields);
            Miss::Passing
        })?;
        let mut founders = Founders::default();
        for kv in &answer.kvs {
            self.take(&mut founders, &kv.key, &kv.value, kv.create_revision);
        }
        Ok(Seen { founders, size, revision: answer.header.map_or(0, |header| header.revision) })
    }

    async fn size(&self) -> Result<usize, Miss> {
        let key = format!("{}/_config/size", self.prefix);
        let range = RangeRequest { key: key.clone().into_bytes().into(), ..RangeRequest::default() };
        let answer = self.client.call(range, self.context()).await.map_err(|error| {
            let fields = vec![("clusterSizeKey", key.into()), ("error", error.to_string().into())];
            self.say(Level::Warn, "failed to get cluster size from discovery service", fields);
            Miss::Passing
        })?;
        let Some(kv) = answer.kvs.first() else {
            return Err(Miss::Final("discovery: size key not found".into()));
        };
        size_of(&kv.value).ok_or_else(|| Miss::Final("discovery: size key is bad".into()))
    }

    /// Writes this member down.
    async fn register(&self, own: &str) {
        let (key, mut tries) = (self.key(), 0);
        loop {
            let put = PutRequest {
                key: key.clone().into_bytes().into(),
                value: own.to_owned().into_bytes().into(),
                ..PutRequest::default()
            };
            match self.client.call(put, self.context()).await {
                Ok(_) => {
                    let fields = vec![("memberKey", key.into()), ("memberInfo", own.into())];
                    return self.say(Level::Info, "register member itself successfully", fields);
                }
                Err(error) => {
                    let fields = vec![("memberKey", (&key).into()), ("error", error.to_string().into())];
                    self.say(Level::Warn, "failed to register members itself to the discovery service", fields);
                    self.back_off(&mut tries, "register member itself").await;
                }
            }
        }
    }

    /// Waits until there are enough of them. `false`: the service broke off, and must be asked anew.
    async fn wait_for_others(&self, seen: &mut Seen) -> bool {
        if seen.founders.0.len() < seen.size {
            self.say(Level::Info, "waiting for peers from discovery service", seen.counts());
            let (key, range_end) = client::prefix_range(self.members_prefix().as_bytes());
            let create = WatchCreateRequest {
                key: key.into(),
                range_end: range_end.into(),
                start_revision: seen.revision + 1,
                ..WatchCreateRequest::default()
            };
            let mut watch = Watch::new(&self.client, WatchOptions { create });
            while seen.founders.0.len() < seen.size {
                let answer = match watch.next().await {
                    Ok(Some(answer)) if !answer.canceled => answer,
                    _ => {
                        self.back_off(&mut 0, "waiting for peers").await;
                        return false;
                    }
                };
                for kv in answer.events.iter().filter_map(|event| event.kv.as_ref()) {
                    self.take(&mut seen.founders, &kv.key, &kv.value, kv.create_revision);
                }
            }
            self.say(Level::Info, "found all needed peers from discovery service", seen.counts());
        }
        true
    }

    /// Takes what the service holds about one founder.
    fn take(&self, founders: &mut Founders, key: &[u8], value: &[u8], created: i64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, urls) = (text(key), text(value));
        let fields = vec![("memberKey", (&key).into()), ("memberInfo", (&urls).into())];
        match founders.add(Founder { key, urls, created }) {
            Ok(()) => self.say(Level::Info, "found peer from discovery service", fields),
            Err(why) => self.say(Level::Warn, why, fields),
        }
    }

    fn context(&self) -> Context {
        Context::timeout(self.service.request_timeout)
    }

    async fn back_off(&self, tries: &mut u32, step: &str) {
        *tries = (*tries + 1).min(BACKOFF_POWER_MAX);
        let wait = Duration::from_secs(1 << *tries);
        let fields = vec![("reason", step.into()), ("backoff", wait.into())];
        self.say(Level::Warn, "retry connecting to discovery service", fields);
        tokio::time::sleep(wait).await;
    }
}

/// How many founders there will be.
fn size_of(value: &[u8]) -> Option<usize> {
    let size: i64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (1..=SIZE_MAX).contains(&size).then_some(size as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(key: &str, urls: &str, created: i64) -> Founder {
        Founder { key: key.into(), urls: urls.into(), created }
    }

    #[test]
    fn who_came_first_founds() {
        let mut founders = Founders::default();
        for (key, urls, created) in [("k3", "c=http://h:3", 9), ("k1", "a=http://h:1", 5), ("k2", "b=http://h:2", 7)] {
            founders.add(founder(key, urls, created)).unwrap();
        }
        assert_eq!(founders.add(founder("k2", "x=http://h:9", 1)), Err("found duplicate peer from discovery service"));
        assert_eq!(founders.add(founder("k4", "", 1)), Err("invalid peer info returned from discovery service"));
        assert_eq!(founders.first(2), "a=http://h:1,b=http://h:2");
        assert!(!founders.is_full_for("k2", 2) && founders.is_full_for("k3", 2));
        assert!(founders.is_full_for("new", 3) && !founders.is_full_for("new", 4));
    }

    #[test]
    fn sizes_are_numbers_above_zero() {
        for (text, size) in [("3", Some(3)), ("+3", Some(3)), ("0", None), ("-1", None), ("x", None), ("", None), (" 3", None)] {
            assert_eq!(size_of(text.as_bytes()), size, "{text:?}");
        }
        assert_eq!((size_of(b"99999999999"), size_of(b"\xff")), (None, None));
    }

    #[test]
    fn keys_are_paths() {
        assert_eq!(clean("/_etcd/registry/t/members"), "/_etcd/registry/t/members");
        assert_eq!(clean("/_etcd/registry/a//b/./c/../d/"), "/_etcd/registry/a/b/d");
        assert_eq!(clean("/_etcd/registry/../../../x"), "/x");
    }
}

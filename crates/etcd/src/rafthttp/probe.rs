//! Round trips and clocks: `GET /raft/probing` on every peer, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::http::Method;

use super::client::{self, Kept};
use super::peer::Peer;
use super::transport::Inner;
use crate::config::value::format_duration;

/// Time between two probes of a peer.
const EACH: Duration = Duration::from_secs(4);
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(4);
/// Time between two looks at what the probes found, and after one that found nobody.
const LOOK_EACH: Duration = Duration::from_secs(30);
const LOOK_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// A difference between clocks that is worth a line.
const DRIFT_MAX: Duration = Duration::from_secs(1);
/// Most bytes of an answer.
const ANSWER_MAX: usize = 4096;

/// etcd probes each peer over two kinds of connections, and has lines and measurements of both.
pub(super) const ROUND_TRIPPERS: [&str; 2] = ["ROUND_TRIPPER_SNAPSHOT", "ROUND_TRIPPER_RAFT_MESSAGE"];

/// What the probes of a peer found.
#[derive(Debug)]
struct Found {
    healthy: bool,
    error: String,
    /// Smoothed.
    round_trip: Duration,
    /// How far the clocks are apart.
    drift: Duration,
}

impl Found {
    fn record(&mut self, probed: Result<(Duration, Duration), String>) {
        match probed {
            Ok((round_trip, apart)) => {
                self.healthy = true;
                self.error.clear();
                self.round_trip = self.round_trip.mul_f64(0.875) + round_trip.mul_f64(0.125);
                self.drift = apart.saturating_sub(self.round_trip / 2);
            }
            Err(why) => {
                self.healthy = false;
                self.error = why;
            }
        }
    }
}

/// Probes a peer until it is stopped.
pub(super) async fn run(inner: Arc<Inner>, peer: Arc<Peer>, round_tripper: &'static str) {
    let mut found =
        Found { healthy: false, error: String::new(), round_trip: Duration::ZERO, drift: Duration::ZERO };
    let mut next = tokio::time::Instant::now() + EACH;
    let mut look = tokio::time::Instant::now() + LOOK_EACH;
    let mut kept = Kept::default();
    loop {
        tokio::select! {
            () = peer.stopped() => return,
            () = tokio::time::sleep_until(look) => {
                say(&inner, &peer, round_tripper, &found);
                peer.counts.round_trip.observe(found.round_trip);
                look += if found.healthy { LOOK_EACH } else { LOOK_AFTER_FAILURE };
                continue;
            }
            () = tokio::time::sleep_until(next) => {}
        }
        next = tokio::time::Instant::now() + EACH;
        tokio::select! {
            () = peer.stopped() => return,
            probed = probe(&inner, &peer, &mut kept) => found.record(probed),
        }
    }
}

fn say(inner: &Inner, peer: &Peer, round_tripper: &str, found: &Found) {
    let head = [("round-tripper-name", round_tripper.into()), ("remote-peer-id", peer.field())];
    let round_trip = ("rtt", format_duration(found.round_trip).into());
    if !found.healthy {
        let mut fields = head.to_vec();
        fields.extend([round_trip.clone(), ("error", (&found.error).into())]);
        inner.logger.warn("prober detected unhealthy status", &fields);
    }
    if found.drift > DRIFT_MAX {
        let mut fields = head.to_vec();
        fields.extend([("clock-drift", format_duration(found.drift).into()), round_trip]);
        inner.logger.warn("prober found high clock drift", &fields);
    }
}

/// One probe: the time until the answer, and how far the clock it shows is from ours.
async fn probe(inner: &Inner, peer: &Peer, kept: &mut Kept) -> Result<(Duration, Duration), String> {
    let url = peer.urls.lock().pick().ok_or("the peer has no address")?;
    let make = || client::request(Method::GET, &url, "/raft/probing", Body::empty());
    let start = Instant::now();
    let answer = kept.request(&inner.dialer, &url, make, (ANSWER_MAX, TIMEOUT)).await?;
    let took = start.elapsed();
    let shown: serde_json::Value = serde_json::from_slice(answer.body()).map_err(|error| error.to_string())?;
    let theirs = shown.get("Now").and_then(serde_json::Value::as_str).ok_or("the answer shows no time")?;
    let format = &time::format_description::well_known::Rfc3339;
    let theirs = time::OffsetDateTime::parse(theirs, format).map_err(|error| error.to_string())?;
    let theirs = SystemTime::from(theirs);
    let ours = SystemTime::now();
    let apart = ours.duration_since(theirs).unwrap_or_else(|early| early.duration());
    Ok((took, apart))
}

//! Random scripts on both servers: whatever is written, compacted, watched and cancelled, every watcher sees the same.
//!
//! A script goes in rounds. What happens within a round meets watchers that may still be behind, and how events are
//! cut into responses then depends on time: only their order for each watcher is compared. Between rounds everything
//! comes to rest; only then is there a compaction, a cancel, or a question for progress, whose answers would depend on
//! time otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::etcdserverpb::{RequestOp, WatchCreateRequest, WatchResponse};
use harness::{go_release, ours};
use parity::semantics::answer::rev;
use parity::semantics::dice::Dice;
use parity::semantics::request::{Op, PutOptions, compact, create, delete_span, grant, put, then, watch};
use parity::semantics::streams::{WatchOptions, Watchers, event};
use parity::semantics::{Difference, Received, Side, Target};

/// Scripts, each with a number that all its choices follow from.
const SCRIPTS: u64 = 4;
const ROUNDS: usize = 6;
const STEPS_PER_ROUND: usize = 14;
/// Longer than Go lets watchers wait that are behind.
const REST: Duration = Duration::from_millis(250);
const KEYS: [&str; 7] = ["a", "b", "ba", "c", "d", "\u{0}", "e"];
const ENDS: [&str; 6] = ["", "\u{0}", "b", "c", "bb", "z"];

/// What each watcher has seen, by id; refusals under -1.
type Seen = BTreeMap<i64, Vec<String>>;

/// One script on one server.
struct Run<'a> {
    t: &'a Target,
    dice: Dice,
    stream: Watchers,
    seen: Seen,
    current: i64,
    compacted: i64,
}

impl Run<'_> {
    fn note(&mut self, answer: &WatchResponse) {
        let seen = self.seen.entry(answer.watch_id).or_default();
        if answer.created || answer.canceled {
            let WatchResponse { created, canceled, compact_revision, cancel_reason, .. } = answer;
            seen.push(format!("created {created} canceled {canceled} {compact_revision} {cancel_reason}"));
        } else if answer.events.is_empty() {
            seen.push(format!("progress @{}", rev(&answer.header)));
        }
        seen.extend(answer.events.iter().map(event));
    }

    /// Until nothing has come for a while.
    async fn rest(&mut self) -> Result<(), Difference> {
        loop {
            match self.stream.receive(REST).await {
                Received::Message(answer) => self.note(&answer),
                Received::Silence => return Ok(()),
                Received::End(status) => return Err(Difference(format!("the stream ended with {status}"))),
            }
        }
    }

    fn watcher(&mut self) -> WatchCreateRequest {
        let dice = &mut self.dice;
        let start = match dice.below(4) {
            0 => 0,
            1 => self.current + 1,
            2 => self.compacted + dice.below(5) as i64 - 2,
            _ => self.current + 4 - dice.below(12) as i64,
        };
        let mut request = watch(dice.of(&KEYS), dice.of(&ENDS), start);
        if dice.once_in(3) {
            request = request.prev();
        }
        if dice.once_in(4) {
            request = request.filters(&[dice.below(3) as i32]);
        }
        if dice.once_in(4) {
            // Not -1, under which refusals stand.
            request = request.id(dice.below(10) as i64 + 1);
        }
        if dice.once_in(3) { request.fragments() } else { request }
    }

    fn write_op(&mut self, key: &str) -> RequestOp {
        let dice = &mut self.dice;
        if dice.once_in(3) {
            return delete_span(key, "").op();
        }
        let lease = if dice.once_in(3) { 7 } else { 0 };
        put(key, dice.below(100).to_string()).lease(lease).op()
    }

    async fn step(&mut self) -> Result<(), Difference> {
        if self.dice.once_in(3) {
            let request = self.watcher();
            self.stream.send(create(request));
            return Ok(());
        }
        let request = if self.dice.once_in(6) {
            then([delete_span(self.dice.of(&KEYS), self.dice.of(&ENDS)).op()])
        } else {
            let first = self.dice.below(KEYS.len() as u64) as usize;
            let count = 1 + self.dice.below(3) as usize;
            let keys: Vec<&str> = KEYS.iter().copied().cycle().skip(first).take(count).collect();
            then(keys.iter().map(|key| self.write_op(key)).collect::<Vec<_>>())
        };
        self.current = rev(&self.t.ok(request).await?.header);
        Ok(())
    }

    /// What is done while nothing else goes on.
    async fn between(&mut self) -> Result<(), Difference> {
        self.rest().await?;
        if self.dice.once_in(2) && self.current > self.compacted + 1 {
            let span = (self.current - self.compacted) as u64;
            self.compacted += 1 + self.dice.below(span) as i64;
            self.t.ok(compact(self.compacted)).await?;
        }
        self.stream.cancel(self.dice.below(8) as i64 - 1);
        self.rest().await?;
        self.stream.ask_progress();
        self.rest().await
    }
}

/// Runs one script from the revisions that the ones before have left behind.
async fn script(t: &Target, seed: u64, compacted: &mut i64) -> Result<Seen, Difference> {
    let stream = t.watchers();
    let current = t.revision().await?;
    let dice = Dice::new(seed);
    let mut run = Run { t, dice, stream, seen: Seen::new(), current, compacted: *compacted };
    for _ in 0..ROUNDS {
        for _ in 0..STEPS_PER_ROUND {
            run.step().await?;
        }
        run.between().await?;
    }
    *compacted = run.compacted;
    Ok(run.seen)
}

/// Go may leave out the previous pair of the first events of a watcher: what it leaves out is not compared.
fn alike(go: &str, ours: &str) -> bool {
    go == ours || (!go.contains('<') && ours.split('<').next() == Some(go))
}

fn differences(seed: u64, go: &Seen, ours: &Seen) -> Vec<String> {
    let ids = go.keys().chain(ours.keys().filter(|id| !go.contains_key(id)));
    let none = Vec::new();
    let mut found = Vec::new();
    for id in ids {
        let (go, ours) = (go.get(id).unwrap_or(&none), ours.get(id).unwrap_or(&none));
        let at = go.iter().zip(ours).position(|(go, ours)| !alike(go, ours));
        let Some(at) = at.or_else(|| (go.len() != ours.len()).then(|| go.len().min(ours.len()))) else { continue };
        let show = |seen: &[String]| seen[at.saturating_sub(2)..seen.len().min(at + 3)].join("; ");
        found.push(format!("script {seed}, watcher {id}, answer {at}:\n  go   {}\n  ours {}", show(go), show(ours)));
    }
    found
}

async fn all(side: Side, binaries: harness::Binaries) -> Vec<Result<Seen, Difference>> {
    let t = Target::start(side, &Arc::new(binaries), &[]).await;
    t.ok(grant(7, 6000)).await.unwrap_or_else(|difference| panic!("{difference}"));
    let mut compacted = 0;
    let mut seen = Vec::new();
    for seed in 1..=SCRIPTS {
        seen.push(script(&t, seed, &mut compacted).await);
    }
    seen
}

#[test]
fn random_scripts_look_alike() {
    let Some(go) = go_release("3.7.3") else { return };
    let run = |side, binaries| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
        runtime.block_on(all(side, binaries))
    };
    let (expected, seen) = std::thread::scope(|scope| {
        let expected = scope.spawn(|| run(Side::Go, go));
        let seen = run(Side::Ours, ours());
        (expected.join().expect("no panic"), seen)
    });
    let mut found = Vec::new();
    for (seed, (go, ours)) in (1..).zip(expected.iter().zip(&seen)) {
        match (go, ours) {
            (Ok(go), Ok(ours)) => found.extend(differences(seed, go, ours)),
            (Err(difference), _) => found.push(format!("script {seed} on go: {difference}")),
            (_, Err(difference)) => found.push(format!("script {seed} on ours: {difference}")),
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

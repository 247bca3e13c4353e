//! Threads, phases and the loop every client runs.
//!
//! Each thread has its own event loop, connections, clients and recorder; they
//! share only a schedule and a few counters. Order of events: every thread sets
//! up and says it is ready; the main thread fixes the schedule; clients run
//! through warm-up into the measured window; the recorders are merged.

use crate::h2::{Conn, RpcError};
use crate::net::{Endpoints, Pool};
use crate::opts::{Settings, Workload};
use crate::pace::Pacer;
use crate::procfs;
use crate::stats::{ClassDef, Recorder};
use crate::workloads;
use std::cell::{Cell, RefCell};
use std::ops::AsyncFnMut;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    /// Measurement starts here.
    pub(crate) from: Instant,
    /// And ends here, unless --total operations end it.
    pub(crate) until: Option<Instant>,
}

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) workload: Workload,
    /// The zero of timestamps that travel inside values.
    pub(crate) epoch: Instant,
    go: watch::Receiver<Option<Schedule>>,
    tickets: AtomicU64,
    seq: AtomicU64,
    stop: AtomicBool,
    fatal: Mutex<Option<String>>,
}

impl Shared {
    /// A number no other operation of this run gets.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        self.fatal.lock().unwrap().get_or_insert(what);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What an operation did: its class, and how many keys and bytes it moved.
pub(crate) struct Done {
    pub(crate) class: usize,
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Done {
    pub(crate) fn of(class: usize, items: u64, bytes: usize) -> Result<Done, RpcError> {
        Ok(Done { class, items, bytes: bytes as u64 })
    }
}

/// One thread's view of the run.
pub(crate) struct Ctx {
    pub(crate) shared: Arc<Shared>,
    pub(crate) thread: usize,
    pub(crate) pool: Pool,
    pub(crate) rec: RefCell<Recorder>,
    pub(crate) schedule: Cell<Option<Schedule>>,
    ready: RefCell<Option<mpsc::Sender<Result<(), String>>>>,
}

impl Ctx {
    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) async fn conn(&self, worker: usize) -> Result<Conn, RpcError> {
        self.pool.get(worker / self.settings().threads).await
    }

    /// This thread's share of `0..n`.
    pub(crate) fn share(&self, n: usize) -> impl Iterator<Item = usize> + use<> {
        (self.thread..n).step_by(self.settings().threads)
    }

    /// Set-up is over: waits for the other threads and for the schedule.
    pub(crate) async fn start(&self) -> Schedule {
        if let Some(tx) = self.ready.borrow_mut().take() {
            let _ = tx.send(Ok(()));
        }
        let mut go = self.shared.go.clone();
        // An error means the run was called off; then any schedule will do.
        let now = Instant::now();
        let s = match go.wait_for(Option::is_some).await {
            Ok(s) => s.unwrap_or(Schedule { start: now, from: now, until: Some(now) }),
            Err(_) => Schedule { start: now, from: now, until: Some(now) },
        };
        self.schedule.set(Some(s));
        tokio::time::sleep_until(s.start.into()).await;
        s
    }

    /// Whether an event at `t` belongs in the result.
    pub(crate) fn measured(&self, t: Instant) -> bool {
        self.schedule.get().is_some_and(|s| t >= s.from && s.until.is_none_or(|u| t <= u))
    }

    pub(crate) fn record(&self, class: usize, began: Instant, ended: Instant, items: u64, bytes: u64) {
        if self.measured(ended) {
            self.rec.borrow_mut().add(class, ended.saturating_duration_since(began), items, bytes);
        }
    }

    /// Counts an error; without --allow-errors it also ends the run.
    pub(crate) fn error(&self, e: &RpcError) {
        self.rec.borrow_mut().error(e.to_string());
        if !self.settings().allow_errors {
            self.shared.fail(e.to_string());
        }
    }

    fn claim(&self) -> bool {
        match self.settings().total {
            None => true,
            Some(n) => self.shared.tickets.fetch_add(1, Ordering::Relaxed) < n,
        }
    }
}

/// Runs `op` over and over until the run ends: as fast as it goes, or paced.
pub(crate) async fn client(
    ctx: &Ctx,
    pacer: Option<&Pacer>,
    mut op: impl AsyncFnMut() -> Result<Done, RpcError>,
) {
    let s = ctx.schedule.get().expect("started");
    let by_total = ctx.settings().total.is_some();
    loop {
        let due = match pacer {
            None => None,
            Some(p) => match p.next().await {
                None => break,
                due => due,
            },
        };
        let began = Instant::now();
        if ctx.shared.stopped() || s.until.is_some_and(|u| began >= u) {
            // Due but never sent: it has waited this long already.
            if let Some(d) = due {
                ctx.rec.borrow_mut().bump("backlog_at_end", 1.0);
                if let Some(u) = s.until {
                    ctx.record(0, d, u, 0, 0);
                }
                continue;
            }
            break;
        }
        let ticket = by_total && began >= s.from;
        if ticket && !ctx.claim() {
            if let Some(p) = pacer {
                p.end();
            }
            break;
        }
        match op().await {
            Ok(done) => {
                if ticket || !by_total {
                    let from = due.unwrap_or(began);
                    ctx.record(done.class, from, Instant::now(), done.items, done.bytes);
                }
            }
            Err(e) => {
                ctx.error(&e);
                if e.is_transport() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

/// Starts this thread's pacer when there is a --rate.
pub(crate) fn pacer(ctx: &Rc<Ctx>, rate: Option<f64>) -> Option<Rc<Pacer>> {
    let pacer = Rc::new(Pacer::new(rate?));
    let (p, ctx) = (pacer.clone(), ctx.clone());
    tokio::task::spawn_local(async move {
        let s = ctx.schedule.get().expect("started");
        let stop = || ctx.shared.stopped();
        if let Err(e) = p.run(s.start, s.until, stop).await {
            ctx.shared.fail(format!("pacer: {e}"));
            p.end();
        }
    });
    Some(pacer)
}

/// Runs this thread's share of --clients, `make` making each client's operation.
pub(crate) async fn clients<O>(ctx: &Rc<Ctx>, mut make: impl FnMut(usize) -> O)
where
    O: AsyncFnMut() -> Result<Done, RpcError> + 'static,
{
    let settings = ctx.settings();
    let pacer = pacer(ctx, settings.rate.map(|r| r / settings.threads as f64));
    let mut tasks = Vec::new();
    for worker in ctx.share(settings.clients) {
        let (ctx, pacer, op) = (ctx.clone(), pacer.clone(), make(worker));
        tasks.push(tokio::task::spawn_local(async move {
            client(&ctx, pacer.as_deref(), op).await;
        }));
    }
    for t in tasks {
        let _ = t.await;
    }
}

pub(crate) struct Outcome {
    pub(crate) recorder: Recorder,
    pub(crate) elapsed: f64,
    pub(crate) server: Option<(procfs::Sample, procfs::Sample, u64)>,
    pub(crate) client_cpu_s: f64,
    pub(crate) fatal: Option<String>,
}

fn thread_main(
    shared: &Arc<Shared>,
    endpoints: Arc<Endpoints>,
    thread: usize,
    defs: &[ClassDef],
    ready: &mpsc::Sender<Result<(), String>>,
) -> Recorder {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .event_interval(31)
        .build()
        .expect("event loop");
    let local = tokio::task::LocalSet::new();
    local.block_on(&rt, async {
        let settings = &shared.settings;
        let conns = (thread..settings.conns).step_by(settings.threads).count();
        let pool = match Pool::connect(endpoints, conns).await {
            Ok(p) => p,
            Err(e) => {
                let _ = ready.send(Err(e.to_string()));
                return Recorder::new(defs);
            }
        };
        let timeout = Duration::from_secs_f64(settings.timeout);
        let ctx = Rc::new(Ctx {
            shared: shared.clone(),
            thread,
            pool,
            rec: RefCell::new(Recorder::new(defs)),
            schedule: Cell::new(None),
            ready: RefCell::new(Some(ready.clone())),
        });
        let watchdog = ctx.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                watchdog.pool.for_each(|c| c.expire(timeout));
            }
        });
        if let Err(e) = workloads::run(&ctx).await {
            let _ = ready.send(Err(e.to_string()));
            ctx.shared.fail(e.to_string());
        }
        ctx.rec.replace(Recorder::new(defs))
    })
}

pub(crate) fn run(settings: Settings, workload: Workload) -> Result<Outcome, String> {
    let identity = settings.cert.as_deref().zip(settings.key.as_deref());
    let endpoints = Endpoints::new(&settings.endpoints, settings.cacert.as_deref(), identity)?;
    let endpoints = Arc::new(endpoints);
    let defs = workloads::classes(&workload);
    let (go_tx, go) = watch::channel(None);
    let threads = settings.threads;
    let pids = settings.server_pid.clone();
    let shared = Arc::new(Shared {
        settings,
        workload,
        epoch: Instant::now(),
        go,
        tickets: AtomicU64::new(0),
        seq: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        fatal: Mutex::new(None),
    });
    let (ready_tx, ready) = mpsc::channel();
    let handles: Vec<_> = (0..threads)
        .map(|t| {
            let (shared, endpoints, tx) = (shared.clone(), endpoints.clone(), ready_tx.clone());
            std::thread::spawn(move || thread_main(&shared, endpoints, t, defs, &tx))
        })
        .collect();
    drop(ready_tx);
    for _ in 0..threads {
        // On an error the other threads are still in set-up: just leave.
        ready.recv().unwrap_or_else(|_| Err("a thread ended early".into()))?;
    }

    let start = Instant::now() + Duration::from_millis(2);
    let from = start + Duration::from_secs_f64(shared.settings.warmup);
    let until = match shared.settings.total {
        None => Some(from + Duration::from_secs_f64(shared.settings.duration)),
        Some(_) => None,
    };
    go_tx.send_replace(Some(Schedule { start, from, until }));
    let all_done = || handles.iter().all(std::thread::JoinHandle::is_finished);
    sleep_until(from, all_done);
    let take = || if pids.is_empty() { Ok(None) } else { procfs::sample(&pids).map(Some) };
    let before = take();
    let cpu_before = own_cpu();
    let t0 = Instant::now();
    let peak = wait(&shared, until, &pids, all_done);
    let elapsed = t0.elapsed().as_secs_f64();
    let client_cpu_s = own_cpu() - cpu_before;
    let after = take();
    let mut recorder = Recorder::new(defs);
    for h in handles {
        recorder.merge(h.join().map_err(|_| "a generator thread panicked")?);
    }
    let server = match (before, after) {
        (Ok(Some(b)), Ok(Some(a))) => Some((b, a, peak.max(a.rss_kb))),
        (Err(e), _) | (_, Err(e)) if !shared.settings.allow_errors => return Err(e),
        _ => None,
    };
    let fatal = shared.fatal.lock().unwrap().take();
    Ok(Outcome { recorder, elapsed, server, client_cpu_s, fatal })
}

/// Waits for the end of the measured window, or of all threads; the highest memory seen on the way, in KiB.
fn wait(shared: &Shared, until: Option<Instant>, pids: &[u32], all_done: impl Fn() -> bool) -> u64 {
    let mut peak = 0;
    loop {
        let now = Instant::now();
        if !pids.is_empty() {
            peak = peak.max(procfs::rss_kb(pids));
        }
        let step = Duration::from_millis(if until.is_some() { 100 } else { 2 });
        match until {
            Some(u) if now >= u => break,
            Some(u) => sleep_until(u.min(now + step), &all_done),
            None => sleep_until(now + step, &all_done),
        }
        if all_done() || shared.stopped() {
            break;
        }
    }
    peak
}

fn sleep_until(t: Instant, cut: impl Fn() -> bool) {
    while !cut() {
        let left = t.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}

fn own_cpu() -> f64 {
    procfs::sample(&[std::process::id()]).map_or(0.0, |sample| sample.user_s + sample.sys_s)
}

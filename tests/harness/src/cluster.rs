//! Several members that know each other, each of any release.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Binaries, Fabric, Member, Options, Output, run};

/// Longest wait for something that the members agree on by themselves.
const AGREE_LIMIT: Duration = Duration::from_secs(30);

/// Lines of every member's log that are shown when a test fails.
const LOG_LINES: usize = 40;

/// A cluster on loopback. Its processes are killed when it is dropped.
pub struct Cluster {
    members: Vec<Member>,
    dir: PathBuf,
    /// Flags that all members get.
    flags: Vec<String>,
    etcdctl: PathBuf,
}

impl Cluster {
    /// Founds a cluster of these releases in `dir` and waits until all members serve. `flags` go to all of them.
    ///
    /// Panics with a log when one does not come up.
    pub fn start(releases: &[&Binaries], dir: &Path, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::place(releases, dir, flags);
        cluster.launch();
        cluster
    }

    /// The members of a cluster with their directories and ports, none of them running. [`Cluster::member_mut`] and
    /// [`Member::set_flags`] may change what they are started with.
    pub fn place(releases: &[&Binaries], dir: &Path, flags: &[&str]) -> Cluster {
        Cluster::place_where(releases, dir, flags, |_, binaries, dir| Member::place(binaries, dir, Options::default()))
    }

    /// The same on a network whose members can be cut off from each other; it has room for them all.
    pub fn place_on(fabric: &Fabric, releases: &[&Binaries], dir: &Path, flags: &[&str]) -> Cluster {
        Cluster::place_where(releases, dir, flags, |i, binaries, dir| {
            Member::place_in(fabric.room(i), binaries, dir, Options::default())
        })
    }

    fn place_where(
        releases: &[&Binaries],
        dir: &Path,
        flags: &[&str],
        place: impl Fn(usize, &Binaries, &Path) -> Member,
    ) -> Cluster {
        std::fs::create_dir_all(dir).expect("scratch is writable");
        let mut cluster = Cluster {
            members: Vec::new(),
            dir: dir.to_path_buf(),
            flags: flags.iter().map(ToString::to_string).collect(),
            etcdctl: releases[0].etcdctl.clone(),
        };
        for (i, binaries) in releases.iter().enumerate() {
            cluster.members.push(place(i, binaries, &cluster.dir.join(format!("m{i}"))));
        }
        for i in 0..cluster.members.len() {
            let flags = cluster.flags_of(i, "new");
            cluster.members[i].set_flags(flags);
        }
        cluster
    }

    /// Starts all members, and waits for all.
    pub fn launch(&mut self) {
        for member in &mut self.members {
            member.launch();
        }
        for member in &mut self.members {
            member.wait_until_ready();
        }
    }

    fn flags_of(&self, i: usize, state: &str) -> Vec<String> {
        let mut flags = vec![
            format!("--name=m{i}"),
            format!("--initial-cluster={}", self.initial_cluster()),
            format!("--initial-cluster-state={state}"),
        ];
        flags.extend(self.flags.iter().cloned());
        flags
    }

    /// What a member of this cluster is started with.
    pub fn flags(&self, i: usize) -> Vec<String> {
        self.flags_of(i, "new")
    }

    /// `m0=URL,m1=URL,...` of all members there are.
    pub fn initial_cluster(&self) -> String {
        let members = self.members.iter().enumerate();
        members.map(|(i, member)| format!("m{i}={}", member.peer_url())).collect::<Vec<_>>().join(",")
    }

    /// Adds a member as an administrator does: told to the cluster first, then started. Does not wait for it.
    pub fn join(&mut self, binaries: &Binaries, is_learner: bool) -> usize {
        self.join_after(binaries, is_learner, |_| ())
    }

    /// The same, with something to be done between.
    pub fn join_after(&mut self, binaries: &Binaries, is_learner: bool, between: impl FnOnce(&Member)) -> usize {
        let i = self.members.len();
        let member = Member::place(binaries, &self.dir.join(format!("m{i}")), Options::default());
        let url = format!("--peer-urls={}", member.peer_url());
        let name = format!("m{i}");
        let mut arguments = vec!["member", "add", &name, &url];
        if is_learner {
            arguments.push("--learner");
        }
        // Members must have been connected for a while before one more is let in.
        let added = self.retry(&arguments);
        assert!(added.contains(&format!("ETCD_NAME=\"{name}\"")), "{added}");
        assert!(added.contains("ETCD_INITIAL_CLUSTER_STATE=\"existing\""), "{added}");
        between(&member);
        self.members.push(member);
        let flags = self.flags_of(i, "existing");
        self.members[i].set_flags(flags);
        self.members[i].launch();
        i
    }

    /// Runs `etcdctl` until it works, for up to half a minute.
    pub fn retry(&self, arguments: &[&str]) -> String {
        let deadline = Instant::now() + AGREE_LIMIT;
        loop {
            let output = self.ctl(arguments);
            if output.code == 0 || Instant::now() > deadline {
                return output.ok();
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Forgets the last member, whose process must have ended.
    pub fn forget_last(&mut self) {
        let member = self.members.pop().expect("there is one");
        assert!(!member.is_running(), "it still runs");
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// One member.
    pub fn member(&self, i: usize) -> &Member {
        &self.members[i]
    }

    /// One member, to be stopped or started.
    pub fn member_mut(&mut self, i: usize) -> &mut Member {
        &mut self.members[i]
    }

    /// Client endpoints of the members that run, comma-joined.
    pub fn endpoints(&self) -> String {
        let running = self.members.iter().filter(|member| member.is_running());
        running.map(Member::endpoint).collect::<Vec<_>>().join(",")
    }

    /// Which `etcdctl` is used from now on.
    pub fn use_etcdctl(&mut self, binaries: &Binaries) {
        self.etcdctl = binaries.etcdctl.clone();
    }

    /// Runs `etcdctl` against all running members.
    pub fn ctl(&self, arguments: &[&str]) -> Output {
        self.ctl_at(&self.endpoints(), arguments)
    }

    /// Runs `etcdctl` against one member.
    pub fn ctl_on(&self, i: usize, arguments: &[&str]) -> Output {
        self.ctl_at(&self.members[i].endpoint(), arguments)
    }

    fn ctl_at(&self, endpoints: &str, arguments: &[&str]) -> Output {
        let endpoints = format!("--endpoints={endpoints}");
        let mut all = vec![endpoints.as_str()];
        all.extend(arguments);
        run(&self.etcdctl, &all)
    }

    /// A number of a member's status, by the name that `-w fields` gives it.
    pub fn field(&self, i: usize, name: &str) -> Option<u64> {
        let output = self.ctl_on(i, &["endpoint", "status", "-w", "fields"]);
        let key = format!("\"{name}\" :");
        let line = output.stdout.lines().find(|line| line.trim_start().starts_with(&key))?.to_string();
        line.split(':').nth(1)?.trim().trim_matches('"').parse().ok()
    }

    /// The id of a member.
    pub fn id(&self, i: usize) -> u64 {
        self.field(i, "MemberID").expect("a running member says who it is")
    }

    /// Which member leads, as seen by those that run. Waits until they agree.
    ///
    /// Panics after half a minute.
    pub fn leader(&self) -> usize {
        let deadline = Instant::now() + AGREE_LIMIT;
        while Instant::now() < deadline {
            let running: Vec<usize> = (0..self.len()).filter(|i| self.members[*i].is_running()).collect();
            let views: Vec<Option<u64>> = running.iter().map(|i| self.field(*i, "Leader")).collect();
            if let Some(Some(leader)) = views.first()
                && *leader != 0
                && views.iter().all(|view| view == &Some(*leader))
                && let Some(i) = running.iter().find(|i| self.field(**i, "MemberID") == Some(*leader))
            {
                return *i;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no leader that all running members agree on after {AGREE_LIMIT:?}");
    }

    /// Waits until all running members have the same hash at the same revision, and returns both.
    ///
    /// Panics after half a minute.
    pub fn agree(&self) -> (u64, u64) {
        let deadline = Instant::now() + AGREE_LIMIT;
        let mut seen = Vec::new();
        while Instant::now() < deadline {
            let running = (0..self.len()).filter(|i| self.members[*i].is_running());
            seen = running.map(|i| self.hash(i)).collect();
            if let Some(Some(first)) = seen.first()
                && seen.iter().all(|hash| hash.as_ref() == Some(first))
            {
                return *first;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("members differ in hash or revision: {seen:x?}");
    }

    /// Hash and revision of one member.
    pub fn hash(&self, i: usize) -> Option<(u64, u64)> {
        let output = self.ctl_on(i, &["endpoint", "hashkv", "-w", "json"]);
        let number = |name: &str| -> Option<u64> {
            let at = output.stdout.find(&format!("\"{name}\":"))? + name.len() + 3;
            let digits: String = output.stdout[at..].chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        };
        Some((number("hash")?, number("revision")?))
    }

    /// Waits until a member has applied all that the leader has committed: the way to ask a learner, which answers
    /// little else.
    ///
    /// Panics after half a minute.
    pub fn in_step(&self, i: usize) {
        self.until("the member is in step", |cluster| {
            let committed = cluster.field(cluster.leader(), "RaftIndex");
            committed.is_some() && cluster.field(i, "RaftAppliedIndex") >= committed
        });
    }

    /// Waits until a condition holds.
    ///
    /// Panics after half a minute, with these words.
    pub fn until(&self, what: &str, mut holds: impl FnMut(&Cluster) -> bool) {
        let deadline = Instant::now() + AGREE_LIMIT;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {AGREE_LIMIT:?}: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (i, member) in self.members.iter().enumerate() {
            if !member.has_log() {
                continue;
            }
            let log = member.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the log of member {i} ({}):", member.binaries().label);
            lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

//! Real Go releases to compare with and to form clusters with, built as ordinary Go modules.
//!
//! They lie outside the tree, in `${XDG_CACHE_HOME:-~/.cache}/etcd-peers/VERSION`, and are built once. A build goes
//! to a folder of another name first: a folder that has its final name is complete.

use std::path::{Path, PathBuf};

use crate::shell::{Cmd, Doing, Failure, Result};

/// A release and the bbolt that comes with it.
struct Peer {
    version: &'static str,
    bbolt: Option<&'static str>,
}

const PEERS: &[Peer] = &[
    Peer { version: "3.7.3", bbolt: Some("1.5.0") },
    Peer { version: "3.6.16", bbolt: Some("1.4.3") },
    Peer { version: "3.5.35", bbolt: None },
];

/// The release that Debian packages (`etcd-server`, `etcd-client`); nobody else still builds it.
const DEBIAN: &str = "3.4.23";

/// A conformance test of HTTP/2 servers, in `etcd-peers/h2spec-VERSION/h2spec`.
const H2SPEC: &str = "2.2.1";

/// Modules of one etcd release. All are pinned: a newer one would otherwise be drawn in.
const MODULES: &[&str] = &["server", "etcdctl", "etcdutl", "api", "client", "client/pkg", "pkg"];

pub(crate) fn run(versions: &[String]) -> Result<()> {
    let known = |v: &String| v == DEBIAN || v == "h2spec" || PEERS.iter().any(|p| p.version == v);
    if let Some(unknown) = versions.iter().find(|v| !known(v)) {
        return Err(Failure::new(format!("no such peer: {unknown}")));
    }
    for peer in PEERS {
        if versions.is_empty() || versions.iter().any(|v| v == peer.version) {
            ensure(peer.version)?;
            println!("{}: {}", peer.version, folder(peer.version)?.display());
        }
    }
    if versions.is_empty() || versions.iter().any(|v| v == "h2spec") {
        println!("h2spec: {}", h2spec()?.display());
    }
    match debian() {
        Some(path) => println!("{DEBIAN}: {}", path.display()),
        None => println!("{DEBIAN}: missing; on Debian 12: apt-get install etcd-server etcd-client"),
    }
    Ok(())
}

/// Before tests: builds what is missing where Go is installed. Where it is not, one line says what is not compared;
/// under CI that is a failure.
pub(crate) fn for_tests() -> Result<()> {
    let mut missing = Vec::new();
    for peer in PEERS {
        if let Err(error) = ensure(peer.version) {
            missing.push(format!("{} ({error})", peer.version));
        }
    }
    if let Err(error) = h2spec() {
        missing.push(format!("h2spec ({error})"));
    }
    if debian().is_none() {
        missing.push(format!("{DEBIAN} (apt-get install etcd-server etcd-client)"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let text = format!("SKIPPED: not compared with Go etcd: {}", missing.join(", "));
    if std::env::var_os("CI").is_some_and(|ci| ci == "true") {
        return Err(Failure::new(text));
    }
    eprintln!("\n*** {text}\n");
    Ok(())
}

/// Builds a release unless it is there.
pub(crate) fn ensure(version: &str) -> Result<()> {
    let peer = PEERS.iter().find(|p| p.version == version).ok_or_else(|| Failure::new(version))?;
    let folder = folder(version)?;
    if folder.join("etcdutl").exists() {
        return Ok(());
    }
    need_go()?;
    build(peer, &folder)
}

fn need_go() -> Result<()> {
    Cmd::new("go").args(["version"]).output().map(drop).map_err(|_| Failure::new("Go is not installed"))
}

/// Builds h2spec unless it is there.
fn h2spec() -> Result<PathBuf> {
    let folder = folder(&format!("h2spec-{H2SPEC}"))?;
    let program = folder.join("h2spec");
    if !program.exists() {
        need_go()?;
        eprintln!("building h2spec {H2SPEC}");
        std::fs::create_dir_all(&folder).doing(folder.display())?;
        let package = format!("github.com/summerwind/h2spec/cmd/h2spec@v{H2SPEC}+incompatible");
        let bin = folder.to_str().ok_or_else(|| Failure::new("the cache's path is not UTF-8"))?;
        Cmd::new("go").args(["install", &package]).env("GOBIN", bin).env("CGO_ENABLED", "0").output()?;
    }
    Ok(program)
}

fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(home).ok_or_else(|| Failure::new("neither XDG_CACHE_HOME nor HOME is set"))?;
    Ok(cache.join("etcd-peers"))
}

fn folder(version: &str) -> Result<PathBuf> {
    Ok(cache()?.join(version))
}

/// Debian's binary, if it is the release we know.
fn debian() -> Option<PathBuf> {
    let path = Path::new("/usr/bin/etcd");
    let version = Cmd::new(path).args(["--version"]).output().ok()?;
    version.starts_with(&format!("etcd Version: {DEBIAN}\n")).then(|| path.to_owned())
}

fn build(peer: &Peer, folder: &Path) -> Result<()> {
    eprintln!("building Go etcd {}; this happens once and takes a minute or two", peer.version);
    let partial = folder.with_extension(format!("partial-{}", std::process::id()));
    let source = partial.join("source");
    std::fs::create_dir_all(&source).doing(source.display())?;
    std::fs::write(source.join("go.mod"), "module peers\n\ngo 1.24\n").doing("go.mod")?;
    std::fs::write(source.join("tools.go"), imports(peer)).doing("tools.go")?;

    let go = |arguments: &[&str]| {
        Cmd::new("go")
            .args(arguments)
            .dir(&source)
            .env("GOFLAGS", "-buildvcs=false")
            .env("CGO_ENABLED", "0")
            .output()
    };
    let modules = modules(peer);
    let mut get = vec!["get"];
    get.extend(modules.iter().map(String::as_str));
    go(&get)?;
    go(&["mod", "tidy"])?;
    for (program, package) in programs(peer) {
        let out = partial.join(program);
        let out = out.to_str().ok_or_else(|| Failure::new("the cache's path is not UTF-8"))?;
        go(&["build", "-trimpath", "-ldflags", "-s -w", "-o", out, package])?;
    }
    std::fs::remove_dir_all(&source).doing(source.display())?;
    // Left over from a version of this chore that did not build everything, or from nobody: it lacks etcdutl.
    let _gone = std::fs::remove_dir_all(folder);
    std::fs::rename(&partial, folder).doing(folder.display())
}

fn programs(peer: &Peer) -> Vec<(&'static str, &'static str)> {
    let mut programs = vec![
        ("etcd", "go.etcd.io/etcd/server/v3"),
        ("etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
        ("etcdutl", "go.etcd.io/etcd/etcdutl/v3"),
    ];
    if peer.bbolt.is_some() {
        programs.push(("bbolt", "go.etcd.io/bbolt/cmd/bbolt"));
    }
    programs
}

fn modules(peer: &Peer) -> Vec<String> {
    let mut names = MODULES.to_vec();
    if peer.version.starts_with("3.5.") {
        names.push("raft");
    }
    let mut modules: Vec<String> =
        names.iter().map(|name| format!("go.etcd.io/etcd/{name}/v3@v{}", peer.version)).collect();
    modules.extend(peer.bbolt.map(|version| format!("go.etcd.io/bbolt@v{version}")));
    modules
}

/// A file that imports every program, so that `go mod tidy` keeps what they need.
fn imports(peer: &Peer) -> String {
    let mut text = "//go:build tools\n\npackage peers\n\nimport (\n".to_owned();
    for (_, package) in programs(peer) {
        text.push_str(&format!("\t_ \"{package}\"\n"));
    }
    text.push_str(")\n");
    text
}

//! `snapshot`.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use api::etcdserverpb::SnapshotRequest;
use client::{Client, Config, Context, Error};
use etcdutl::cli::{Command, Exit, INTERRUPTED, Invocation, Outcome, out};
use etcdutl::quantity;
use sha2::{Digest, Sha256};

use crate::global::{Session, block_on, connect};
use crate::log;

pub(super) static COMMAND: Command = Command {
    name: "snapshot",
    short: "Saves, checks and restores the database of a member",
    examples: "  # Save the database of the member at the default endpoint
  etcdctl snapshot save /backup/etcd-snapshot.db

  # Of another one, with TLS
  etcdctl --endpoints=https://127.0.0.1:2379 --cacert=ca.crt --cert=etcd.crt --key=etcd.key snapshot save FILE

  # With a login
  etcdctl --user=root --password=password123 snapshot save FILE

  # Into a file named after the time
  etcdctl snapshot save /backup/etcd-$(date +%Y%m%d_%H%M%S).db",
    group: super::MAINTENANCE,
    children: &[&etcdutl::command::RESTORE, &SAVE, &etcdutl::command::STATUS],
    ..Command::EMPTY
};

static SAVE: Command = Command {
    name: "save",
    usage: "<filename>",
    short: "Saves the database of a member to a file",
    run: Some(save),
    ..Command::EMPTY
};

const CALLER: &str = "etcdctl/snapshot.rs";

fn save(invocation: &Invocation) -> Outcome {
    let [path] = &invocation.arguments[..] else {
        return Err(Exit::arguments("snapshot save expects one argument <filename>"));
    };
    let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
    let session = Session::open(invocation)?;
    let context = session.context_if_given();
    block_on(async {
        let interrupted = |why: String| Exit::new(INTERRUPTED, why);
        let endpoints = &session.config.endpoints;
        if endpoints.len() != 1 {
            let text = format!(
                "snapshot must be requested to one selected node, not multiple [{}]",
                endpoints.join(" ")
            );
            return Err(interrupted(text));
        }
        let client = connect(Config { logger: "client".into(), ..session.config.clone() }).await?;
        let version = download(&client, context, &endpoints[0], &path).await.map_err(interrupted)?;
        out(format!("Snapshot saved at {}\n", path.display()))?;
        if version.is_empty() { Ok(()) } else { out(format!("Server version {version}\n")) }
    })
}

/// Fetches into a file beside the wanted one, which appears only once it is complete and synced.
async fn download(client: &Client, context: Context, endpoint: &str, path: &Path) -> Result<String, String> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let shown = part.display().to_string();
    let file = private_file(&part)
        .map_err(|error| format!("could not open {shown} (open {shown}: {})", words_of(&error)))?;
    let info = |message: &str, fields: &[(&str, &str)]| log::line("info", "", CALLER, message, fields);
    info("created temporary db file", &[("path", &shown)]);
    let started = Instant::now();
    let fetched = fetch(client, context, endpoint, file).await;
    let (size, version) = match fetched {
        Ok(fetched) => fetched,
        Err(why) => {
            // What was fetched is of no use; the reason to tell is the first one.
            drop(fs::remove_file(&part));
            return Err(why);
        }
    };
    let (size, took) = (quantity::bytes(size), quantity::duration(started.elapsed()));
    let fields = [("endpoint", endpoint), ("size", &size), ("took", &took), ("etcd-version", &version)];
    info("fetched snapshot", &fields);
    fs::rename(&part, path).map_err(|error| {
        let (to, why) = (path.display(), words_of(&error));
        let why = if path.is_dir() { "file exists" } else { &why };
        format!("could not rename {shown} to {to} (rename {shown} {to}: {why})")
    })?;
    info("saved", &[("path", &path.display().to_string())]);
    Ok(version)
}

/// The database holds everything, users' password hashes included.
fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// Writes the stream to the file and syncs it; gives its size and the server's storage version.
async fn fetch(
    client: &Client,
    context: Context,
    endpoint: &str,
    mut file: File,
) -> Result<(u64, String), String> {
    let mut stream = client.stream(SnapshotRequest {}, context).await.map_err(|error| error.to_string())?;
    log::line("info", "client", CALLER, "opened snapshot stream; downloading", &[]);
    log::line("info", "", CALLER, "fetching snapshot", &[("endpoint", endpoint)]);
    let (mut size, mut version) = (0, String::new());
    let mut check = Check::default();
    loop {
        let next = stream.message();
        let message = match context.deadline {
            None => next.await,
            Some(deadline) => tokio::time::timeout_at(deadline, next)
                .await
                .map_err(|_| Error::DeadlineExceeded.to_string())?,
        };
        let Some(part) = message.map_err(|status| Error::of_stream(&status).to_string())? else { break };
        if version.is_empty() {
            version = part.version;
        }
        size += part.blob.len() as u64;
        check.take(&part.blob);
        file.write_all(&part.blob).map_err(|error| words_of(&error))?;
    }
    check.verify()?;
    log::line("info", "client", CALLER, "completed snapshot read; closing", &[]);
    file.sync_all().map_err(|error| words_of(&error))?;
    // The size told is that of the database.
    Ok((size.saturating_sub(Check::LENGTH as u64), version))
}

/// The last bytes of a stream are the SHA-256 of all before them.
#[derive(Default)]
struct Check {
    hash: Sha256,
    tail: Vec<u8>,
}

impl Check {
    const LENGTH: usize = 32;

    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let known = self.tail.len().saturating_sub(Check::LENGTH);
        self.hash.update(&self.tail[..known]);
        self.tail.drain(..known);
    }

    fn verify(self) -> Result<(), String> {
        if self.hash.finalize()[..] == self.tail[..] {
            return Ok(());
        }
        Err("the snapshot is damaged: its checksum does not match; save it again".into())
    }
}

fn words_of(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split_once(" (os error").map_or(text.as_str(), |(words, _)| words);
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_over_any_pieces() {
        let body: Vec<u8> = (0..1000_u32).map(|n| n as u8).collect();
        let whole = [body.clone(), Sha256::digest(&body).to_vec()].concat();
        for piece in [1, 7, 31, 32, 33, 999, 2000] {
            let mut check = Check::default();
            whole.chunks(piece).for_each(|part| check.take(part));
            assert_eq!(check.verify(), Ok(()));
        }
        let mut check = Check::default();
        check.take(&whole[1..]);
        assert!(check.verify().is_err());
        assert!(Check::default().verify().is_err());
    }
}

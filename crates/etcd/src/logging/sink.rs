//! Where lines go: standard error, standard output, files (rotated or not), the journal of systemd.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Level, Line};

/// How one log file is rotated (`--log-rotation-config-json`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rotation {
    /// Bytes after which a new file is begun.
    pub(crate) max_bytes: u64,
    /// Backups older than this many days are removed; 0 keeps all.
    pub(crate) max_age_days: u64,
    /// Backups beyond this number are removed; 0 keeps all.
    pub(crate) max_backups: usize,
    /// Backup names carry local time.
    pub(crate) local_time: bool,
    /// Backups are compressed with gzip.
    pub(crate) compress: bool,
}

impl Rotation {
    /// Reads the JSON of the flag; the errors are etcd's.
    pub(crate) fn parse(text: &str) -> Result<Rotation, String> {
        let json: serde_json::Value =
            serde_json::from_str(text).map_err(|error| match error.classify() {
                serde_json::error::Category::Eof => {
                    "improperly formatted log rotation config: unexpected end of JSON input".to_string()
                }
                _ => format!("improperly formatted log rotation config: {error}"),
            })?;
        let number = |key: &str| match json.get(key) {
            None => Ok(0),
            Some(value) => value.as_u64().ok_or_else(|| wrong_type(key, value, "int")),
        };
        let flag = |key: &str| match json.get(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| wrong_type(key, value, "bool")),
        };
        let megabytes = number("maxsize")?;
        Ok(Rotation {
            max_bytes: if megabytes == 0 { 100 } else { megabytes } << 20,
            max_age_days: number("maxage")?,
            max_backups: number("maxbackups")? as usize,
            local_time: flag("localtime")?,
            compress: flag("compress")?,
        })
    }
}

/// As Go's JSON decoder says it.
fn wrong_type(key: &str, value: &serde_json::Value, wanted: &str) -> String {
    let kind = match value {
        serde_json::Value::Null => "null".to_string(),
        serde_json::Value::Bool(_) => "bool".to_string(),
        serde_json::Value::Number(number) if wanted == "int" => format!("number {number}"),
        serde_json::Value::Number(_) => "number".to_string(),
        serde_json::Value::String(_) => "string".to_string(),
        serde_json::Value::Array(_) => "array".to_string(),
        serde_json::Value::Object(_) => "object".to_string(),
    };
    format!(
        "invalid log rotation config: json: cannot unmarshal {kind} into Go struct field \
         logRotationConfig.Logger.{key} of type {wanted}"
    )
}

/// One place that lines go to.
pub(super) enum Sink {
    Stderr,
    Stdout,
    File(File),
    Rotated(Rotated),
    Journal(UnixDatagram),
}

/// Opens what `--log-outputs` names. Also says whether lines are sampled: all but the journal are.
pub(super) fn open(outputs: &[String], rotation: Option<&Rotation>) -> Result<(Vec<Sink>, bool), String> {
    let mut outputs: Vec<&str> = outputs.iter().map(String::as_str).collect();
    outputs.sort_unstable();
    outputs.dedup();
    if outputs.contains(&"/dev/null") {
        outputs = vec!["/dev/null"];
    }
    let files = outputs.iter().filter(|o| !matches!(**o, "default" | "stderr" | "stdout" | "systemd/journal")).count();
    if rotation.is_some() && files != 1 {
        return Err("--log-outputs requires a single file path when --log-rotate-config-json is defined".into());
    }
    let mut sinks = Vec::new();
    for output in &outputs {
        sinks.push(match *output {
            "default" | "stderr" => Sink::Stderr,
            "stdout" => Sink::Stdout,
            "systemd/journal" => Sink::Journal(open_journal()?),
            path => match rotation {
                Some(rotation) => Sink::Rotated(Rotated::open(Path::new(path), rotation.clone())?),
                None => Sink::File(open_file(Path::new(path), 0o666)?),
            },
        });
    }
    if sinks.is_empty() {
        sinks.push(Sink::Stderr);
    }
    let samples = !sinks.iter().any(|sink| matches!(sink, Sink::Journal(_)));
    Ok((sinks, samples))
}

fn open_file(path: &Path, mode: u32) -> Result<File, String> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)
        .map_err(|error| {
            let path = path.display();
            format!("open sink \"{path}\": open {path}: {}", crate::start::system_words(&error))
        })
}

fn open_journal() -> Result<UnixDatagram, String> {
    let refused = |error| format!("journald is not enabled: {error}");
    let socket = UnixDatagram::unbound().map_err(refused)?;
    socket.connect("/run/systemd/journal/socket").map_err(refused)?;
    Ok(socket)
}

impl Sink {
    /// Writes one encoded line. A line that cannot be written is lost: there is nowhere left to say so.
    pub(super) fn write(&mut self, line: &Line<'_>, encoded: &str) {
        let _lost = match self {
            Sink::Stderr => std::io::stderr().lock().write_all(encoded.as_bytes()),
            Sink::Stdout => std::io::stdout().lock().write_all(encoded.as_bytes()),
            Sink::File(file) => file.write_all(encoded.as_bytes()),
            Sink::Rotated(rotated) => rotated.write(encoded.as_bytes()),
            Sink::Journal(socket) => {
                let sent = socket.send(journal_record(line, encoded).as_bytes()).map(drop);
                sent.or_else(|_| std::io::stderr().lock().write_all(encoded.as_bytes()))
            }
        };
    }
}

fn journal_record(line: &Line<'_>, encoded: &str) -> String {
    let priority = match line.level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::DPanic | Level::Panic | Level::Fatal => 2,
    };
    let package = line.caller.split('/').next().unwrap_or("etcd");
    let program = std::env::args_os().next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or_else(|| "etcd".into(), |name| name.to_string_lossy());
    format!(
        "PRIORITY={priority}\nPACKAGE={package}\nSYSLOG_IDENTIFIER={program}\nMESSAGE={}\n",
        encoded.trim_end()
    )
}

/// A file that is renamed away when it has grown to its bound.
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    size: u64,
    rotation: Rotation,
}

impl Rotated {
    fn open(path: &Path, rotation: Rotation) -> Result<Rotated, String> {
        let file = open_file(path, 0o600)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len());
        Ok(Rotated { path: path.to_path_buf(), file, size, rotation })
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        if self.size + bytes.len() as u64 > self.rotation.max_bytes && self.size > 0 {
            self.rotate()?;
        }
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> std::io::Result<()> {
        let now = if self.rotation.local_time {
            time::OffsetDateTime::now_local().unwrap_or_else(|_| time::OffsetDateTime::now_utc())
        } else {
            time::OffsetDateTime::now_utc()
        };
        let (stem, extension) = self.name_parts();
        let stamp = format!(
            "{:04}-{:02}-{:02}T{:02}-{:02}-{:02}.{:03}",
            now.year(), u8::from(now.month()), now.day(), now.hour(), now.minute(), now.second(), now.millisecond()
        );
        let backup = self.path.with_file_name(format!("{stem}-{stamp}{extension}"));
        std::fs::rename(&self.path, &backup)?;
        self.file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
        self.size = 0;
        if self.rotation.compress {
            compress(&backup)?;
        }
        self.remove_old()
    }

    fn name_parts(&self) -> (String, String) {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.rsplit_once('.') {
            Some((stem, extension)) => (stem.to_string(), format!(".{extension}")),
            None => (name, String::new()),
        }
    }

    fn remove_old(&self) -> std::io::Result<()> {
        let (stem, _) = self.name_parts();
        let dir = self.path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut backups: Vec<PathBuf> = std::fs::read_dir(dir)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{stem}-20")))
            .map(|entry| entry.path())
            .collect();
        backups.sort();
        let beyond = match self.rotation.max_backups {
            0 => 0,
            keep => backups.len().saturating_sub(keep),
        };
        let age = Duration::from_secs(self.rotation.max_age_days * 24 * 3600);
        for (i, backup) in backups.iter().enumerate() {
            let written = std::fs::metadata(backup).and_then(|metadata| metadata.modified());
            let is_old = !age.is_zero()
                && written.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since > age));
            if i < beyond || is_old {
                std::fs::remove_file(backup)?;
            }
        }
        Ok(())
    }
}

fn compress(backup: &Path) -> std::io::Result<()> {
    let contents = std::fs::read(backup)?;
    let packed = backup.with_file_name(format!("{}.gz", backup.file_name().unwrap_or_default().to_string_lossy()));
    let mut encoder = flate2::write::GzEncoder::new(File::create(packed)?, flate2::Compression::default());
    encoder.write_all(&contents)?;
    encoder.finish()?;
    std::fs::remove_file(backup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let rotation =
            Rotation { max_bytes: 100, max_age_days: 0, max_backups: 2, local_time: false, compress: false };
        let mut rotated = Rotated::open(&dir.path().join("e.log"), rotation).unwrap();
        for _ in 0..8 {
            rotated.write(&[b'x'; 60]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        let names = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(names, 3, "the live file and two backups");
    }

    #[test]
    fn the_rotation_flag_is_json() {
        let parsed = Rotation::parse("{\"maxsize\": 1, \"compress\": true}").unwrap();
        assert_eq!((parsed.max_bytes, parsed.compress), (1 << 20, true));
        assert!(Rotation::parse("{").unwrap_err().starts_with("improperly formatted log rotation config"));
        assert!(Rotation::parse("{\"maxsize\": \"x\"}").unwrap_err().starts_with("invalid log rotation config"));
    }

    #[test]
    fn the_journal_gets_the_whole_line_and_what_it_sorts_by() {
        let fields = [];
        let line = Line { level: Level::Warn, unix_nanos: 0, logger: "", caller: "member/log.rs:7", text: "x", fields: &fields };
        let record = journal_record(&line, "{\"msg\":\"x\"}\n");
        assert!(record.starts_with("PRIORITY=4\nPACKAGE=member\nSYSLOG_IDENTIFIER=etcd"), "{record}");
        assert!(record.ends_with("\nMESSAGE={\"msg\":\"x\"}\n"), "{record}");
    }

    #[test]
    fn outputs_are_opened_once_each() {
        let names = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(open(&names(&["stderr", "stdout", "stderr"]), None).unwrap().0.len(), 2);
        assert_eq!(open(&names(&["/dev/null", "stdout"]), None).unwrap().0.len(), 1);
        assert!(open(&names(&["/no/such/dir/x"]), None).is_err());
    }
}

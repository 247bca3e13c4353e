//! Takes the packed directories of `tests/data/vectors` apart.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Where the vectors are.
pub(crate) fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/vectors")
}

/// The files of a data directory that concern the log, by name.
pub(crate) struct Directory {
    pub(crate) segments: Vec<Segment>,
    pub(crate) snapshots: Vec<(String, Vec<u8>)>,
}

/// A segment. Of the zeros at its end only a few are kept.
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) len: u64,
}

impl Segment {
    fn new(name: String, mut bytes: Vec<u8>) -> Segment {
        const ZEROS: [u8; 4096] = [0; 4096];
        let len = bytes.len() as u64;
        while bytes.ends_with(&ZEROS) {
            bytes.truncate(bytes.len() - ZEROS.len() / 2);
        }
        Segment { name, bytes, len }
    }
}

/// What is said about a vector.
pub(crate) fn expected(name: &str) -> Value {
    let text = std::fs::read_to_string(vectors().join(format!("{name}.expected.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All files of a packed vector, by path.
pub(crate) fn unpack_all(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let packed = std::fs::File::open(vectors().join(format!("{name}.tar.zst"))).unwrap();
    let mut decoder = zstd::Decoder::new(packed).unwrap();
    decoder.window_log_max(27).unwrap();
    let mut files = Vec::new();
    for entry in tar::Archive::new(decoder).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::with_capacity(entry.size() as usize);
            entry.read_to_end(&mut bytes).unwrap();
            files.push((entry.path().unwrap().into_owned(), bytes));
        }
    }
    files.sort();
    files
}

/// The log and the snapshots of a packed data directory.
pub(crate) fn unpack(name: &str) -> Directory {
    let mut directory = Directory { segments: Vec::new(), snapshots: Vec::new() };
    for (path, bytes) in unpack_all(name) {
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        if file.ends_with(".wal") {
            directory.segments.push(Segment::new(file, bytes));
        } else if file.ends_with(".snap") {
            directory.snapshots.push((file, bytes));
        }
    }
    directory
}

//! Files whose bytes somebody chose: opening, reading, checking and changing them ends in a value or in an error that
//! names file and place. Never a panic, never more memory than the file's own size asks for.

use std::path::Path;
use std::sync::Arc;

use disk::mem::MemDisk;
use disk::{Disk, OpenMode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::meta::{META_PAGE_USED, Meta};
use crate::page::{FLAG_BRANCH, FLAG_LEAF, HEADER, Header};
use crate::tests::support::{Changes, PATH, open, puts, small};
use crate::{Batch, Db, Error, Op, Options, View};

/// A few files to spoil: different page sizes, shallow and deep, fresh and worn.
fn originals() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for (seed, page_size, commits) in
        [(1, 4096, 8), (2, 1024, 10), (3, 16 << 10, 3), (4, 4096, 0), (5, 1024, 25)]
    {
        let disk = MemDisk::new();
        let mut db = open(&disk, &Options { page_size, ..small() }).unwrap();
        let mut changes = Changes::new(seed);
        changes.value_max = 400;
        for _ in 0..commits {
            db.commit(&changes.next()).unwrap();
        }
        let view = db.reader().view();
        let mut bytes = vec![0; view.stream_len() as usize];
        view.read_chunk(0, &mut bytes).unwrap();
        files.push(bytes);
    }
    files
}

fn page_size_of(bytes: &[u8]) -> usize {
    Meta::decode(bytes.first_chunk::<META_PAGE_USED>().unwrap()).unwrap().page_size as usize
}

fn number(rng: &mut SmallRng, near: u64) -> u64 {
    match rng.random_range(0..6) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.random(),
        3 => near.wrapping_add(rng.random_range(0..5)).wrapping_sub(2),
        4 => 1 << rng.random_range(0..64),
        _ => rng.random_range(0..300),
    }
}

/// Writes a chosen number over a field of a page: header, element, or anything.
fn spoil_page(rng: &mut SmallRng, bytes: &mut [u8]) {
    let page_size = page_size_of(bytes);
    let pages = bytes.len() / page_size;
    let start = rng.random_range(2..pages.max(3)) % pages * page_size;
    let page = &mut bytes[start..start + page_size];
    let header = Header::decode(page.first_chunk().unwrap());
    let live = header.flags == FLAG_LEAF || header.flags == FLAG_BRANCH;
    let (at, len) = match rng.random_range(0..8) {
        0 => (0, 8),
        1 => (8, 2),
        2 => (10, 2),
        3 => (12, 4),
        4 | 5 if live && header.count > 0 => {
            let element = rng.random_range(0..usize::from(header.count));
            (HEADER + element * 16 + rng.random_range(0..4) * 4, 4)
        }
        6 if header.flags == FLAG_BRANCH && header.count > 0 => {
            (HEADER + rng.random_range(0..usize::from(header.count)) * 16 + 8, 8)
        }
        _ => (rng.random_range(0..page_size - 8), rng.random_range(1..8)),
    };
    if at + len > page_size {
        return;
    }
    let mut old = [0; 8];
    old[..len].copy_from_slice(&page[at..at + len]);
    let new = number(rng, u64::from_le_bytes(old));
    page[at..at + len].copy_from_slice(&new.to_le_bytes()[..len]);
}

/// Changes a field of the metas and makes the checksum right again, as only an attacker would.
fn spoil_meta(rng: &mut SmallRng, bytes: &mut [u8]) {
    let page_size = page_size_of(bytes);
    for slot in 0..2 {
        let start = slot * page_size;
        let mut meta = Meta::decode(bytes[start..].first_chunk::<META_PAGE_USED>().unwrap()).unwrap();
        match rng.random_range(0..6) {
            0 => meta.root = number(rng, meta.root),
            1 => meta.freelist = number(rng, 2),
            2 => meta.high_water = number(rng, meta.high_water),
            3 => meta.txid = number(rng, meta.txid),
            4 => meta.page_size = number(rng, u64::from(meta.page_size)) as u32,
            _ => {}
        }
        bytes[start..start + META_PAGE_USED].copy_from_slice(&meta.encode(slot as u64));
    }
}

/// An error must say where. Lengths and names of keys are the caller's and have no place.
fn judge<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::Corrupt(corruption)) => {
            let text = Error::Corrupt(corruption).to_string();
            assert!(text.starts_with("/db is damaged at byte "), "{text}");
            None
        }
        Err(Error::IncompatibleValue { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

fn read_all(view: &View, rng: &mut SmallRng) {
    let Some(names) = judge(view.bucket_names()) else { return };
    for name in names {
        let Some(Some(bucket)) = judge(view.bucket(name)) else { continue };
        let mut cursor = bucket.cursor();
        let mut steps = 0;
        while let Some(Some((key, _))) = judge(cursor.next()) {
            steps += 1;
            assert!(steps < 2_000_000, "a cursor without end");
            if rng.random_range(0..20) == 0 {
                judge(bucket.get(key));
                judge(view.get_by_directory(key));
                view.prefetch(key);
                view.prefetch_entry(key);
                judge(bucket.cursor().seek(key));
            }
        }
        let mut cursor = bucket.cursor();
        while let Some(Some(_)) = judge(cursor.prev()) {}
        let mut leaves = bucket.leaves();
        while let Some(Some(leaf)) = judge(leaves.next()) {
            for i in 0..leaf.len() {
                judge(leaf.entry(i));
            }
        }
    }
}

fn use_file(bytes: &[u8], rng: &mut SmallRng) -> bool {
    let disk = MemDisk::new();
    let file = disk.open(Path::new(PATH), OpenMode::Create, 0o600).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    drop(file);
    let shared: Arc<dyn Disk> = Arc::new(disk);
    let Some(mut db) = judge(Db::open(&shared, Path::new(PATH), small())) else { return false };
    let view = db.reader().view();
    read_all(&view, rng);
    let _ = crate::check::check_db(&db);
    let mut batch = puts(b"key", &[(b"new", b"value")]);
    for _ in 0..rng.random_range(0..30) {
        let key = crate::tests::support::revision_key(rng.random_range(0..900), 0);
        let op = if rng.random() { Op::Delete } else { Op::Put(vec![1; 50].into()) };
        batch.bucket(b"key").changes.push((key.into(), op));
    }
    batch.bucket(b"key").changes.sort_by(|a, b| a.0.cmp(&b.0));
    batch.bucket(b"key").changes.dedup_by(|a, b| a.0 == b.0);
    batch.bucket(b"auth").delete = true;
    judge(db.commit(&batch));
    judge(db.commit(&puts(b"lease", &[(b"a", &[2; 9000])])));
    judge(db.commit(&Batch::default()));
    drop(view);
    for _ in 0..200 {
        match judge(db.defragment_step()) {
            Some(progress) if !progress.done => {}
            _ => break,
        }
    }
    read_all(&db.reader().view(), rng);
    true
}

#[test]
fn spoilt_pages_are_errors_and_not_panics() {
    let originals = originals();
    let mut opened = 0;
    for seed in 0..3000 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = originals[seed as usize % originals.len()].clone();
        for _ in 0..rng.random_range(1..4) {
            spoil_page(&mut rng, &mut bytes);
        }
        opened += u32::from(use_file(&bytes, &mut rng));
    }
    assert!((300..2900).contains(&opened), "{opened} of 3000 spoilt files were opened");
}

#[test]
fn spoilt_metas_and_short_files_are_errors_and_not_panics() {
    let originals = originals();
    for seed in 0..1500 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = originals[seed as usize % originals.len()].clone();
        match seed % 3 {
            0 => spoil_meta(&mut rng, &mut bytes),
            1 => bytes.truncate(rng.random_range(1..bytes.len())),
            _ => {
                let at = rng.random_range(0..2 * page_size_of(&bytes));
                bytes[at] ^= 1 << rng.random_range(0..8);
            }
        }
        use_file(&bytes, &mut rng);
    }
}

#[test]
fn noise_is_not_a_database() {
    for seed in 0..300 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut bytes = vec![0; rng.random_range(1..40_000)];
        rng.fill(&mut bytes[..]);
        assert!(!use_file(&bytes, &mut rng));
    }
}

/// The error of a file that is something else says so.
#[test]
fn the_error_says_what_is_wrong() {
    let open_bytes = |bytes: &[u8]| {
        let disk = MemDisk::new();
        let file = disk.open(Path::new(PATH), OpenMode::Create, 0o600).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        drop(file);
        open(&disk, &small()).map(|_| ()).unwrap_err().to_string()
    };
    let original = originals().swap_remove(0);
    let text = open_bytes(b"this is a text file, and a rather short one");
    assert!(text.contains("damaged at byte 0: no meta page found; this is not a database file"), "{text}");
    let text = open_bytes(&original[..original.len() - 4096]);
    assert!(text.contains("it was cut short"), "{text}");
    let mut later = original.clone();
    for slot in 0..2 {
        let start = slot * 4096 + 16;
        later[start + 4] = 3;
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in &later[start..start + 56] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        later[start + 56..start + 64].copy_from_slice(&hash.to_le_bytes());
    }
    let text = open_bytes(&later);
    assert!(text.contains("format version 3"), "{text}");
    let mut torn = original;
    torn[30] ^= 1;
    torn[4096 + 30] ^= 1;
    let text = open_bytes(&torn);
    assert!(text.contains("neither meta page has a valid checksum"), "{text}");
}

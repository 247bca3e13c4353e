//! Logs that nobody wrote: an error or a shorter log, never a panic, never more memory than the file is long.

use proptest::prelude::*;

use super::*;

fn spoilt_disk(spoil: impl FnOnce(&mut Vec<u8>)) -> MemDisk {
    let disk = MemDisk::new();
    let mut wal = create(&disk);
    fill(&mut wal, 1, 12, 450);
    wal.save_snapshot(&snapshot(10, 1)).unwrap();
    drop(wal);
    let path = dir().join(names(&disk).last().unwrap());
    let file = disk.open(&path, OpenMode::ReadWrite, 0).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    spoil(&mut bytes);
    file.set_len(0).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    drop(file);
    disk
}

fn look(disk: &MemDisk) {
    let report = crate::verify(disk, dir()).unwrap();
    let _ = crate::snapshot_records(disk, dir());
    let read = crate::read(disk, dir(), &beginning());
    match open(disk, &beginning()) {
        Ok((mut wal, replay)) => {
            assert_eq!(replay.entries, read.unwrap().entries);
            let last = wal.last_index();
            fill(&mut wal, last + 1, last + 2, 10);
            drop(wal);
            // Opened once, it must open again: nothing half-believed is left behind.
            let (_, again) = open(disk, &beginning()).unwrap();
            assert!(!again.repaired);
        }
        Err(error @ (Error::Corrupt { .. } | Error::Torn { .. })) => {
            assert!(read.is_err(), "{error}");
            assert!(!report.problems.is_empty() || report.torn.is_some(), "{error}");
        }
        Err(error) => panic!("{error}"),
    }
}

proptest! {
    #[test]
    fn any_bytes_in_a_segment(
        at in any::<prop::sample::Index>(), junk in prop::collection::vec(any::<u8>(), 1..100),
    ) {
        look(&spoilt_disk(|bytes| {
            let at = at.index(bytes.len());
            let len = junk.len().min(bytes.len() - at);
            bytes[at..at + len].copy_from_slice(&junk[..len]);
        }));
    }

    #[test]
    fn any_length(len in 0..5000_usize) {
        look(&spoilt_disk(|bytes| bytes.resize(len, 0)));
    }

    #[test]
    fn records_with_right_checksums_and_any_content(
        records in prop::collection::vec((1..6_u8, prop::collection::vec(any::<u8>(), 0..30)), 1..8),
    ) {
        let mut out = Vec::new();
        let mut encoder = crate::encoder::Encoder::default();
        for (kind, data) in records {
            match crate::record::Kind::of(i64::from(kind)).unwrap() {
                crate::record::Kind::Crc => encoder.put_crc(&mut out),
                kind => encoder.put(kind, &data, &mut out),
            }
        }
        let disk = MemDisk::new();
        disk.create_dir_all(dir(), 0o700).unwrap();
        let path = dir().join("0000000000000000-0000000000000000.wal");
        disk.open(&path, OpenMode::Create, 0o600).unwrap().write_all_at(&out, 0).unwrap();
        let _ = crate::verify(&disk, dir()).unwrap();
        let _ = crate::snapshot_records(&disk, dir());
        let _ = crate::read(&disk, dir(), &beginning());
        let _ = open(&disk, &beginning());
    }

    #[test]
    fn any_snapshot_file(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = crate::snap::decode(&Bytes::from(bytes));
    }

    #[test]
    fn a_spoilt_snapshot_file(at in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let whole = crate::snap::encode(&api::raftpb::Snapshot {
            data: Some(Bytes::from_static(b"{}")),
            metadata: Some(api::raftpb::SnapshotMetadata {
                conf_state: snapshot(1, 1).conf_state,
                index: Some(1),
                term: Some(1),
            }),
        });
        let mut bytes = whole.clone();
        bytes[at.index(whole.len())] ^= 1_u8 << bit;
        // A bit in a tag can make the checksum's field unknown or its number longer, but never another snapshot.
        if let Ok(found) = crate::snap::decode(&Bytes::from(bytes)) {
            prop_assert_eq!(crate::snap::encode(&found), whole);
        }
    }
}

#[test]
fn a_record_that_claims_more_than_the_file_holds() {
    for claimed in [1_u64 << 40, (1 << 56) - 1, u64::MAX >> 1] {
        look(&spoilt_disk(|bytes| {
            let end = bytes.len() - 512;
            bytes[end..end + 8].copy_from_slice(&claimed.to_le_bytes());
        }));
        let disk = spoilt_disk(|bytes| bytes[..8].copy_from_slice(&claimed.to_le_bytes()));
        assert!(crate::read(&disk, dir(), &beginning()).is_err() || claimed > 0);
        look(&disk);
    }
}

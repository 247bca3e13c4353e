//! Files written in one pass.

use std::path::Path;
use std::sync::Arc;

use disk::Disk;
use disk::mem::MemDisk;

use crate::bulk::{BulkWriter, copy};
use crate::tests::support::{Changes, check, dump, open, small};
use crate::{Db, Error, Options};

#[test]
fn a_copy_has_the_content_and_no_free_page() {
    for (seed, page_size, leaf_pages, pad) in
        [(1, 4096, 4, 0), (2, 1024, 1, 300), (3, 1024, 3, 900), (4, 16384, 1, 0)]
    {
        let disk = MemDisk::new();
        let options = Options { page_size, leaf_pages, ..small() };
        let mut db = open(&disk, &options).unwrap();
        let mut changes = Changes::new(seed);
        changes.key_pad = pad;
        for _ in 0..25 {
            db.commit(&changes.next()).unwrap();
        }
        let shared: Arc<dyn Disk> = Arc::new(disk);
        let len = copy(&db.reader().view(), &shared, Path::new("/copy"), &options).unwrap();
        let copied = Db::open(&shared, Path::new("/copy"), options).unwrap();
        check(&copied, "copy");
        assert_eq!(copied.txid(), db.txid());
        assert!(dump(&copied.reader().view()) == changes.model, "seed {seed}");
        assert_eq!((copied.sizes().total, copied.sizes().in_use), (len, len));
    }
}

#[test]
fn an_empty_file_and_wrong_order() {
    let disk = MemDisk::new();
    BulkWriter::create(&disk, Path::new("/empty"), &small()).unwrap().finish(1).unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    check(&Db::open(&shared, Path::new("/empty"), small()).unwrap(), "empty");
    let mut writer = BulkWriter::create(&disk, Path::new("/wrong"), &small()).unwrap();
    writer.bucket(b"b", 0, &mut |push| push(b"k", b"v")).unwrap();
    assert!(matches!(writer.bucket(b"a", 0, &mut |_| Ok(())), Err(Error::Unsorted { .. })));
    let mut twice = |push: &mut crate::bulk::Push<'_>| {
        push(b"k", b"v")?;
        push(b"k", b"v")
    };
    assert!(matches!(writer.bucket(b"c", 0, &mut twice), Err(Error::Unsorted { .. })));
    drop(writer);
    assert!(matches!(
        Db::open(&shared, Path::new("/wrong"), Options { read_only: true, ..small() }),
        Err(Error::Corrupt(_))
    ));
}

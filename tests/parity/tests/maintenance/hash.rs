//! HashKV over writes and compactions. The hashes stand here as numbers: they depend on the writes alone.

use api::ErrorCode;
use api::etcdserverpb::HashKvRequest;
use parity::semantics::answer::{holds, rev};
use parity::semantics::request::{compact, compact_physical, put};
use parity::semantics::{Difference, Group, Outcome, Side, Target, same};

use crate::fresh::HASH_OF_NOTHING;

/// Of the ten writes at revision 8.
const AT_8: u32 = 1_028_128_889;
/// The same, compacted at 5.
const AT_8_COMPACTED: u32 = 3_575_199_313;
/// At revision 5, before it was compacted.
const AT_5: u32 = 3_816_155_474;

pub(super) fn groups() -> Vec<Group> {
    let ten = Group::fresh("hashes").case("CM-006", cm_006).case("CM-007", cm_007).case("CM-008", cm_008);
    let zero = Group::fresh("a compaction at 0").case("CM-019", cm_019);
    vec![ten, zero]
}

/// Hash, compact revision, revision of the hash, revision of the store.
async fn hash_kv(t: &Target, revision: i64) -> Result<(u32, i64, i64, i64), Difference> {
    let answer = t.ok(HashKvRequest { revision }).await?;
    Ok((answer.hash, answer.compact_revision, answer.hash_revision, rev(&answer.header)))
}

async fn cm_006(t: &Target) -> Outcome {
    for number in 0..10 {
        t.ok(put(format!("k{}", number % 4), number.to_string())).await?;
    }
    same("hash at 8", hash_kv(t, 8).await?, (AT_8, -1, 8, 11))?;
    t.ok(put("k0", "more")).await?;
    same("hash at 8", hash_kv(t, 8).await?, (AT_8, -1, 8, 12))
}

async fn cm_007(t: &Target) -> Outcome {
    t.ok(compact_physical(5)).await?;
    t.refused(HashKvRequest { revision: 4 }, ErrorCode::Compacted).await?;
    same("hash at 8", hash_kv(t, 8).await?, (AT_8_COMPACTED, 5, 8, 12))?;
    holds("another hash than before", AT_8 != AT_8_COMPACTED, AT_8)
}

/// The hash that the compaction itself took is remembered: with the compact revision from before.
async fn cm_008(t: &Target) -> Outcome {
    same("hash at 5", hash_kv(t, 5).await?, (AT_5, -1, 5, 12))
}

/// Go remembers the hash of a compaction at 0 under revision 0, which asks for the newest; we answer what is asked.
async fn cm_019(t: &Target) -> Outcome {
    t.ok(compact(0)).await?;
    for value in ["1", "2", "3"] {
        t.ok(put("a", value)).await?;
    }
    t.ok(compact_physical(3)).await?;
    let newest = hash_kv(t, 4).await?;
    let expected = match t.side() {
        Side::Go => (HASH_OF_NOTHING, -1, 0, 4),
        Side::Ours => newest,
    };
    same("hash at 0", hash_kv(t, 0).await?, expected)?;
    same("hash at 4", newest, (1_619_834_972, 3, 4, 4))
}

//! Is this file what the format says? Everything a reader relies on, and what only the writer knows on top.

use crate::db::Db;
use crate::error::{Corruption, Error};
use crate::view::View;
use crate::walk::Walk;

pub use crate::walk::Report;

/// One thing that is wrong with a file.
pub type Violation = Corruption;

/// Walks all of a view: every page reached once, within bounds, trees of even depth, keys in order. Pages that
/// nothing reaches are free, which a view alone cannot tell from lost ones.
pub fn check(view: &View) -> Result<Report, Vec<Violation>> {
    let state = view.state();
    let walk = walk(view)?;
    let mut violations = walk.violations;
    if !state.directory.places().eq(walk.places.iter().copied()) {
        violations.push(Corruption {
            path: view.path().to_path_buf(),
            offset: 0,
            what: format!(
                "the leaf directory ({} leaves) is not that of the tree ({} leaves)",
                state.directory.len(),
                walk.places.len()
            )
            .into(),
        });
    }
    if violations.is_empty() { Ok(walk.report) } else { Err(violations) }
}

fn walk(view: &View) -> Result<Walk<'_>, Vec<Violation>> {
    let state = view.state();
    match Walk::run(&state.pages, &state.meta, state.directory_bucket, true) {
        Ok(walk) => Ok(walk),
        Err(Error::Corrupt(corruption)) => Err(vec![*corruption]),
        Err(error) => Err(vec![Corruption {
            path: view.path().to_path_buf(),
            offset: 0,
            what: error.to_string().into(),
        }]),
    }
}

/// [`check`] of the newest state, and of the writer's accounts: every page is either reached, or free, or waiting to
/// be free, and only one of these; the sizes are what the walk counts.
pub fn check_db(db: &Db) -> Result<Report, Vec<Violation>> {
    let view = db.reader().view();
    let report = check(&view)?;
    let walk = walk(&view)?;
    let state = view.state();
    let mut violations = Vec::new();
    let mut wrong = |page: u64, what: String| {
        violations.push(state.pages.corrupt_at(page, what));
    };
    let mut pending = vec![false; state.meta.high_water as usize];
    for page in db.pending.iter().flat_map(|(_, extents)| extents).flat_map(|e| e.start..e.end()) {
        // A page freed before the high-water mark was lowered below it cannot be: lowering takes free pages only.
        match pending.get_mut(page as usize) {
            Some(seen) if !*seen => *seen = true,
            _ => wrong(page, format!("page {page} waits to be free twice, or lies beyond the end")),
        }
    }
    for page in 0..state.meta.high_water {
        let ways = [walk.is_used(page), db.free.is_free(page), pending[page as usize]];
        if ways.iter().filter(|way| **way).count() != 1 {
            let [used, free, waiting] = ways;
            wrong(page, format!("page {page}: reached {used}, free {free}, waiting to be free {waiting}"));
        }
    }
    let page_size = u64::from(state.meta.page_size);
    let sizes = db.sizes();
    if sizes.live != walk.report.pages_in_use * page_size || sizes.total != view.stream_len() {
        wrong(0, format!("{sizes:?}, but {} pages are live", walk.report.pages_in_use));
    }
    if violations.is_empty() { Ok(report) } else { Err(violations) }
}

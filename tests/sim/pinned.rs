//! Plans that once failed: each still passes now, and still fails with the fault that it was found with.

use std::path::PathBuf;

use super::mutants::find;
use super::plan::Plan;
use super::run::play;
use crate::election::mutant::switch;

/// Goal: what was found stays found. Method: every plan of `pinned`; its `# mutant` line names what must make it fail.
#[test]
fn pinned_plans_pass_and_still_fail_with_their_mutant() {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../sim/pinned");
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).expect("pinned plans").map(|e| e.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("text");
        let plan = Plan::parse(&text);
        assert_eq!(play(&plan, false).violation, None, "{}", path.display());
        if let Some(word) = text.lines().find_map(|line| line.strip_prefix("# mutant ")) {
            let violation = switch::with(Some(find(word)), || play(&plan, false)).violation;
            assert!(violation.is_some(), "{}: passes with {word}", path.display());
        }
    }
}

/// Goal: a plan survives its text form, so that what a failure prints replays it. Method: there and back.
#[test]
fn a_plan_reads_back_as_it_was_written() {
    for seed in 0..500 {
        let plan = Plan::of(seed);
        assert_eq!(Plan::parse(&plan.to_string()), plan);
    }
}

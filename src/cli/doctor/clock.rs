//! Checks the clock, which the times in documents, `not_before` and `deadline` depend on.

use super::finding::Finding::{self, Good, Warning};
use crate::sys;

pub(super) fn finding() -> Finding {
    judge(sys::clock_is_synchronised())
}

fn judge(synchronised: Option<bool>) -> Finding {
    const LEASES: &str = "leases are measured by another one, which never jumps";
    match synchronised {
        Some(true) => Good(format!("the clock is synchronised; {LEASES}")),
        Some(false) => Warning(format!(
            "the clock is not synchronised, so times may be wrong, and not_before and deadline come early or late ({LEASES}); \
             synchronise it: timedatectl set-ntp true (in a container, that of the machine)"
        )),
        None => Warning(format!(
            "the kernel does not tell whether the clock is synchronised ({LEASES}); see: timedatectl, date"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_nobody_sets_is_no_matter_of_leases() {
        assert!(matches!(judge(Some(true)), Good(_)));
        for unsure in [Some(false), None] {
            assert!(
                matches!(judge(unsure), Warning(said) if said.contains("leases") && said.contains("timedatectl"))
            );
        }
    }
}

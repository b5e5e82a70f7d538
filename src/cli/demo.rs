//! x
use super::Failure;
#[derive(clap::Args)]
pub(super) struct Arguments {}
pub(super) fn run(_a: &Arguments) -> Result<(), Failure> {
    Ok(())
}

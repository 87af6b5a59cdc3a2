//! One file per verb of `cargo lab`: its arguments, its help and what it prints.

pub(crate) mod boot;
pub(crate) mod fetch;
pub(crate) mod image;
pub(crate) mod install;
pub(crate) mod lint;
pub(crate) mod package;
pub(crate) mod size;
pub(crate) mod test;
pub(crate) mod visitor;
pub(crate) mod vm;

use lab::fault::Fault;

/// Turns what is wrong with an argument into a fault.
#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
pub(crate) fn usage(error: lexopt::Error) -> Fault {
    Fault::Usage(error.to_string())
}

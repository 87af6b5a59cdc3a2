//! `cargo lab visitor`: the process in a visitor's network namespace.

use std::process::ExitCode;

use lab::fault::Fault;
use lab::visitor;
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Carries frames between its standard input, a socket, and an interface that it makes.

Usage: cargo lab visitor IP

  IP              the program `ip` of iproute2

`cargo lab vm` runs it in a network namespace, for programs such as ssh that visit
a machine from there. It is of no use by itself.
";

/// Reads the argument and carries.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    match parser.next().map_err(usage)? {
        Some(Value(ip)) => {
            visitor::carry(&ip.to_string_lossy())?;
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(usage(other.unexpected())),
        None => Err(Fault::Usage("IP is missing".to_owned())),
    }
}

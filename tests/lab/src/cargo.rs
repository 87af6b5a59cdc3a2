//! Cargo, run by a program that cargo runs: in the project, into the same build directory.
//!
//! Its own output is the progress that a person sees, so it is passed on as it comes; what the
//! tests print goes to standard error too, because standard output is for the verb's own result.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress::{self, Step};

/// Starts a command line of cargo.
///
/// Nothing is built anew because of who asks: the directory and the profile are the caller's.
pub(crate) fn command(lab: &Lab, verb: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(lab.project()).arg(verb);
    // These build nothing and do not know the option.
    if !matches!(verb, "fmt" | "tree") {
        command.arg("--target-dir").arg(lab.target());
    }
    command
}

/// Runs a command line to its end and passes its output on; a failure names `what`.
pub(crate) fn run(command: &mut Command, what: &str) -> Result<(), Fault> {
    if progress::is_quiet() {
        return progress::run(command).map(|_| ());
    }
    let step = Step::begin(what);
    let program = command.get_program().to_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(Fault::file("run", Path::new(&program)))?;
    if !status.success() {
        return Err(Fault::Program {
            command: what.to_owned(),
            ended: format!("failed ({status})"),
            // It stands above, whole.
            said: String::new(),
        });
    }
    step.end();
    Ok(())
}

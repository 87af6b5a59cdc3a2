//! `cargo lab vm`: the promises that only a whole boot can show.

use std::process::ExitCode;

use lab::fault::Fault;
use lab::fetch::Lab;
use lab::vm::{self, Kept, PROMISES};
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Boots a real kernel with preroot as its initramfs, once or twice for each promise,
and looks whether it is kept.

Usage: cargo lab vm [OPTION]... [NAME]...

  NAME            a promise; default: all
  --list          list the promises
  --jobs N        so many machines side by side (default: one more than there are
                  processors, 6 at most)
  --keep-going    go on after one that is broken

The emulator needs no KVM. A broken promise shows what preroot said, the end of the
console and what the platform heard. `cargo lab boot` shows a single boot.

Exit codes: 0 all were kept; 1 one was broken, and is named; 2 used wrongly.
";

/// Reads the arguments and boots.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let (mut wanted, mut keep_going) = (Vec::new(), false);
    let mut jobs = vm::side_by_side();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("list") => {
                for promise in PROMISES {
                    println!("{:<40} {}", promise.name, promise.about);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Long("keep-going") => keep_going = true,
            Long("jobs") => {
                let value = parser.value().and_then(ValueExt::string).map_err(usage)?;
                jobs = match value.parse() {
                    Ok(number @ 1..=64) => number,
                    _ => {
                        return Err(Fault::Usage(format!(
                            "--jobs {value}: a number from 1 to 64 is needed"
                        )));
                    }
                };
            }
            Value(name) => {
                let name = name.to_string_lossy().into_owned();
                if !PROMISES.iter().any(|promise| promise.name == name) {
                    return Err(Fault::Usage(format!("there is no promise `{name}`")));
                }
                wanted.push(name);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let (kept, broken) = vm::run(&Lab::open()?, &wanted, jobs, keep_going, &tell)?;
    println!("{kept} passed, {broken} failed");
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Tells of one promise.
pub(crate) fn tell(kept: &Kept) {
    let took = kept.took.as_secs_f32();
    match &kept.broken {
        None => println!("ok     {} {took:.1} s", kept.name),
        Some(broken) => println!("FAILED {} {took:.1} s\n{broken}", kept.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_promise_is_refused_by_name() {
        let fault = run(lexopt::Parser::from_iter(["vm", "more_money"])).unwrap_err();
        assert!(
            fault.is_usage() && fault.to_string().contains("more_money"),
            "{fault}"
        );
    }
}

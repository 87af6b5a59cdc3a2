//! `cargo lab lint`: the checks that read the code and run none of it.

use std::process::ExitCode;
use std::time::Instant;

use lab::fault::Fault;
use lab::fetch::Lab;
use lab::lint::CHECKS;
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Reads the code: format, clippy, documentation, `unsafe`, shell files, manual pages,
pages.

Usage: cargo lab lint [OPTION]... [CHECK]...

  CHECK           fmt, unsafe, shell, manual, pages, clippy, doc; default: all, in this
                  order
  --list          say what each does

Every warning is an error, and every check is run even if one before it fails.
What is missing is fetched into target/lab/; nothing is installed.

Exit codes: 0 nothing was found; 1 something was, and is shown; 2 used wrongly.
";

/// Reads the arguments and checks.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let mut wanted = Vec::new();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("list") => {
                for check in CHECKS {
                    println!("{:<8} {}", check.name, check.about);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Value(name) => {
                let name = name.to_string_lossy().into_owned();
                if !CHECKS.iter().any(|check| check.name == name) {
                    return Err(Fault::Usage(format!("there is no check `{name}`")));
                }
                wanted.push(name);
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    Ok(if check(&Lab::open()?, &wanted) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the checks of these names, or all, and tells how each went; says whether all found nothing.
pub(crate) fn check(lab: &Lab, wanted: &[String]) -> bool {
    let mut clean = true;
    for check in CHECKS {
        if !wanted.is_empty() && !wanted.iter().any(|name| name == check.name) {
            continue;
        }
        let start = Instant::now();
        let result = check.run(lab);
        let took = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => println!("ok     {:<8} {took:.1} s", check.name),
            Err(fault) => {
                clean = false;
                println!("FAILED {:<8} {took:.1} s: {fault}", check.name);
            }
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_is_named_in_the_help_in_its_order() {
        let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
        assert!(HELP.contains(&names.join(", ")), "{names:?}");
    }

    #[test]
    fn unknown_check_is_refused_by_name() {
        let fault = run(lexopt::Parser::from_iter(["lint", "spelling"])).unwrap_err();
        assert!(
            fault.is_usage() && fault.to_string().contains("spelling"),
            "{fault}"
        );
    }
}

//! `cargo lab test`: everything that must hold before a change lands, in the order of what it costs.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::fault::Fault;
use lab::fetch::Lab;
use lab::{progress, units, vm};
use lexopt::prelude::*;

use super::{lint, size, usage};

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Passes everything that must hold before a change lands.

Usage: cargo lab test [OPTION]...

  --only STEP,..  these steps only: lint, unit, other, size, vm
  --keep-going    go on after a step that failed
  --list          say what each step does

What the tests need and the system lacks is fetched into target/lab/; nothing is
installed. No test is skipped, but for those that the emulator of the step `other`
is too old for and those in a whole Debian where none can be made: they are named.
The last line is `N passed, N failed`, which counts the steps, and in place of the
step `vm` its boots.

Exit codes: 0 all passed; 1 something failed, and is named; 2 used wrongly.
";

/// How many things passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
}

impl Tally {
    /// Counts a step that is one thing.
    fn one(passed: bool) -> Self {
        Self {
            passed: usize::from(passed),
            failed: usize::from(!passed),
        }
    }
}

/// One step.
struct Step {
    name: &'static str,
    about: &'static str,
    run: fn(&Lab, keep_going: bool) -> Result<Tally, Fault>,
}

/// Every step, the cheapest first.
static STEPS: [Step; 5] = [
    Step {
        name: "lint",
        about: "format, clippy, documentation, `unsafe`, shell files, manual (cargo lab lint)",
        run: |lab, _| Ok(Tally::one(lint::check(lab, &[]))),
    },
    Step {
        name: "unit",
        about: "all tests of the workspace on this machine, namespaces included",
        run: |lab, _| units::on_host(lab).map(|()| Tally::one(true)),
    },
    Step {
        name: "other",
        about: "the library's tests on the other processor, emulated",
        run: |lab, _| units::on_other(lab).map(|()| Tally::one(true)),
    },
    Step {
        name: "size",
        about: "bytes, memory and system calls within their budgets (cargo lab size)",
        run: |lab, _| size::measure(lab, size::Settings::default()).map(Tally::one),
    },
    Step {
        name: "vm",
        about: "whole boots (cargo lab vm)",
        run: |lab, keep_going| {
            let (passed, failed) =
                vm::run(lab, &[], vm::side_by_side(), keep_going, &super::vm::tell)?;
            Ok(Tally { passed, failed })
        },
    },
];

/// Reads the arguments and runs the steps.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let (mut only, mut keep_going) = (Vec::new(), false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("list") => {
                for step in &STEPS {
                    println!("{:<6} {}", step.name, step.about);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Long("keep-going") => keep_going = true,
            Long("only") => {
                let list = parser.value().and_then(ValueExt::string).map_err(usage)?;
                only.extend(list.split(',').map(str::to_owned));
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    if let Some(name) = only
        .iter()
        .find(|name| !STEPS.iter().any(|step| step.name == **name))
    {
        return Err(Fault::Usage(format!("there is no step `{name}`")));
    }
    let lab = Lab::open()?;
    let total = pass(&STEPS, &only, keep_going, &lab);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs the steps of these names, or all, up to the first that fails, and tells how each went.
fn pass(steps: &[Step], only: &[String], keep_going: bool, lab: &Lab) -> Tally {
    let mut total = Tally::default();
    let mut lines: Vec<String> = Vec::new();
    for step in steps {
        if !only.is_empty() && !only.iter().any(|name| name == step.name) {
            continue;
        }
        if total.failed > 0 && !keep_going {
            lines.push(format!("not run {}", step.name));
            continue;
        }
        progress::say(format_args!("step {}: {}", step.name, step.about));
        let start = Instant::now();
        let tally = (step.run)(lab, keep_going).unwrap_or_else(|fault| {
            println!("FAILED {}: {fault}", step.name);
            Tally::one(false)
        });
        total.passed += tally.passed;
        total.failed += tally.failed;
        let line = told(step.name, tally, start.elapsed());
        println!("{line}");
        lines.push(line);
    }
    println!("\nsteps");
    for line in &lines {
        println!("  {line}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    total
}

/// Tells how a step went.
fn told(name: &str, tally: Tally, took: Duration) -> String {
    let verdict = if tally.failed == 0 {
        "ok     "
    } else {
        "FAILED "
    };
    let counts = if tally.passed + tally.failed > 1 {
        format!(" ({} passed, {} failed)", tally.passed, tally.failed)
    } else {
        String::new()
    };
    format!("{verdict}{name:<6} {:>6.1} s{counts}", took.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> [Step; 3] {
        let step = |name, run| Step {
            name,
            about: "",
            run,
        };
        [
            step("good", |_, _| Ok(Tally::one(true))),
            step("bad", |_, _| Err(Fault::Usage("bad luck".to_owned()))),
            step("many", |_, _| {
                Ok(Tally {
                    passed: 3,
                    failed: 0,
                })
            }),
        ]
    }

    #[test]
    fn first_failure_ends_it_unless_it_is_to_go_on() {
        let lab = Lab::open().unwrap();
        let counts = |only: &[String], keep_going| {
            let tally = pass(&steps(), only, keep_going, &lab);
            (tally.passed, tally.failed)
        };
        assert_eq!(counts(&[], false), (1, 1));
        assert_eq!(counts(&[], true), (4, 1));
        assert_eq!(
            counts(&["good".to_owned(), "many".to_owned()], false),
            (4, 0)
        );
    }

    #[test]
    fn counts_are_told_where_a_step_is_more_than_one_thing() {
        let took = Duration::from_millis(1500);
        assert_eq!(
            told("unit", Tally::one(true), took),
            "ok     unit      1.5 s"
        );
        let two = Tally {
            passed: 1,
            failed: 1,
        };
        assert_eq!(
            told("vm", two, took),
            "FAILED vm        1.5 s (1 passed, 1 failed)"
        );
    }

    #[test]
    fn every_step_is_named_in_the_help_in_its_order() {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        assert!(HELP.contains(&names.join(", ")), "{names:?}");
    }

    #[test]
    fn unknown_step_is_refused_by_name() {
        let fault = run(lexopt::Parser::from_iter(["test", "--only", "lint,luck"])).unwrap_err();
        assert!(
            fault.is_usage() && fault.to_string().contains("luck"),
            "{fault}"
        );
    }
}

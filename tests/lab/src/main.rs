//! `cargo lab`: every tool of this project behind one command.
//!
//! The table of verbs and nothing else; each verb reads its own arguments in `command/`.

mod command;

use std::fmt::Write as _;
use std::process::ExitCode;

use lab::fault::Fault;
use lab::{progress, visitor};

/// The command line was used wrongly.
const WRONG_USE: u8 = 2;

/// One thing that `cargo lab` does.
struct Verb {
    /// The word for it.
    name: &'static str,
    /// What it does, in one line.
    about: &'static str,
    /// What `--help` shows.
    help: &'static str,
    /// Reads the arguments behind the word and does it.
    run: fn(lexopt::Parser) -> Result<ExitCode, Fault>,
}

/// Everything that `cargo lab` does.
static VERBS: &[Verb] = &[
    Verb {
        name: "boot",
        about: "boot preroot, or any whole disk, on the simulated platform",
        help: command::boot::HELP,
        run: command::boot::run,
    },
    Verb {
        name: "fetch",
        about: "fetch what the other verbs would fetch when they need it",
        help: command::fetch::HELP,
        run: command::fetch::run,
    },
    Verb {
        name: "image",
        about: "make a disk image of a Debian with an agent, which boots by itself",
        help: command::image::HELP,
        run: command::image::run,
    },
    Verb {
        name: "install",
        about: "lay preroot, its units, hooks and manual pages where a package lays them",
        help: command::install::HELP,
        run: command::install::run,
    },
    Verb {
        name: "lint",
        about: "read the code: format, clippy, documentation, `unsafe`, shell files, manual",
        help: command::lint::HELP,
        run: command::lint::run,
    },
    Verb {
        name: "package",
        about: "build a package of preroot for Debian and Ubuntu",
        help: command::package::HELP,
        run: command::package::run,
    },
    Verb {
        name: "size",
        about: "measure bytes, memory and system calls of preroot against their budgets",
        help: command::size::HELP,
        run: command::size::run,
    },
    Verb {
        name: "test",
        about: "pass everything: lint, tests on both processors, size, whole boots",
        help: command::test::HELP,
        run: command::test::run,
    },
    Verb {
        name: visitor::VERB,
        about: "carry frames for a visitor of a machine; `vm` runs it by itself",
        help: command::visitor::HELP,
        run: command::visitor::run,
    },
    Verb {
        name: "vm",
        about: "boot whole machines, one or two for each promise",
        help: command::vm::HELP,
        run: command::vm::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let program = arguments.next().unwrap_or_else(|| "lab".into());
    let Some(word) = arguments.next() else {
        eprint!("{}", overview());
        return ExitCode::from(WRONG_USE);
    };
    let word = word.to_string_lossy().into_owned();
    let rest: Vec<_> = arguments.collect();
    if matches!(word.as_str(), "--help" | "-h" | "help") {
        let asked = rest.first().and_then(|word| verb(&word.to_string_lossy()));
        print!(
            "{}",
            asked.map_or_else(overview, |verb| verb.help.to_owned())
        );
        return ExitCode::SUCCESS;
    }
    let Some(verb) = verb(&word) else {
        progress::line(format_args!(
            "there is no `{word}`; `cargo lab --help` lists what there is"
        ));
        return ExitCode::from(WRONG_USE);
    };
    if rest
        .iter()
        .take_while(|word| *word != "--")
        .any(|word| word == "--help" || word == "-h")
    {
        print!("{}", verb.help);
        return ExitCode::SUCCESS;
    }
    match (verb.run)(lexopt::Parser::from_iter(
        std::iter::once(program).chain(rest),
    )) {
        Ok(code) => code,
        Err(fault) if fault.is_usage() => {
            let name = verb.name;
            progress::line(format_args!(
                "{fault}; `cargo lab {name} --help` shows how it is used"
            ));
            ExitCode::from(WRONG_USE)
        }
        Err(fault) => {
            progress::line(format_args!("{fault}"));
            ExitCode::FAILURE
        }
    }
}

/// Finds a verb by its word.
fn verb(word: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|verb| verb.name == word)
}

/// Shows all verbs.
fn overview() -> String {
    let mut text = "Azure on a desk.\n\nUsage: cargo lab VERB [OPTION]...\n\n".to_owned();
    for verb in VERBS {
        let _ = writeln!(text, "  {:<8} {}", verb.name, verb.about);
    }
    text + "\nEach has a --help. What they fetch and build stays in target/lab/.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_in_the_overview_and_shows_its_own_use() {
        for verb in VERBS {
            assert!(overview().contains(verb.about));
            assert!(
                verb.help
                    .contains(&format!("Usage: cargo lab {}", verb.name))
            );
        }
    }
}

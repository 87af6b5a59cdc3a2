//! `cargo lab image`: a whole disk with one agent, for a machine of one's own or for `cargo lab boot --disk`.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::fault::Fault;
use lab::fetch::Lab;
use lab::image::{self, Agent, FIRMWARE, Firmware, Format};
use lab::progress;
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Makes a disk image of a small Debian that one agent provisions, and that boots by itself.

Usage: cargo lab image --agent AGENT --output FILE [OPTION]...

  --agent AGENT     preroot     from an initramfs by initramfs-tools; no other agent
                    cloud-init  Debian's package, which finds Azure by itself
                    waagent     Debian's package, which provisions by itself
  --output FILE     where to put it; a file that is there is replaced
  --format FORMAT   raw (with holes), qcow2, or vhd (of fixed size, as Azure takes it);
                    default: as FILE ends, else raw
  --firmware NAME   bios (default), a VM of the first generation, or uefi, the second

The image has 600 MiB, a partition table, GRUB, the distribution's cloud kernel and an ext4
root. Its kernel writes to ttyS0, and a login prompt comes there; nobody can log in before
the agent has made a user. It is a machine to try things on, not to keep: it is the same for
all who make it, its host keys of before provisioning included. That of preroot names the
desk's network card, as docs/desk.md tells, and finds none on Azure.

Made once and kept in target/lab/ until its recipe, or preroot, changes. It needs an x86_64
machine with APT; nothing is installed, and root is not needed where namespaces are allowed.

Exit codes: 0 made; 1 not, and the reason is shown; 2 used wrongly.
";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    agent: Agent,
    output: PathBuf,
    format: Format,
    firmware: Firmware,
}

/// Reads the arguments and makes it.
pub(crate) fn run(parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let wish = parse(parser)?;
    let directory = wish.output.parent().unwrap_or(&wish.output);
    if !directory.is_dir() {
        return Err(Fault::Content {
            path: directory.to_owned(),
            why: "there is no such directory".to_owned(),
        });
    }
    let lab = Lab::open()?;
    let made = image::make(&lab, wish.agent, wish.firmware)?;
    image::write(&lab, &made, wish.format, &wish.output)?;
    progress::say(format_args!(
        "{} for {}, {}: {}",
        wish.agent.name(),
        wish.firmware.name(),
        wish.format.name(),
        wish.output.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// Reads the arguments.
fn parse(mut parser: lexopt::Parser) -> Result<Wish, Fault> {
    let (mut agent, mut output, mut format) = (None, None, None);
    let mut firmware = Firmware::Bios;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("agent") => {
                let known = Agent::ALL.map(Agent::name);
                agent = Some(one_of(&mut parser, "--agent", Agent::parse, &known)?);
            }
            Long("format") => {
                let known = Format::ALL.map(Format::name);
                format = Some(one_of(&mut parser, "--format", Format::parse, &known)?);
            }
            Long("firmware") => {
                let known = FIRMWARE.map(|(word, _)| word);
                firmware = one_of(&mut parser, "--firmware", Firmware::parse, &known)?;
            }
            Long("output") => output = Some(PathBuf::from(parser.value().map_err(usage)?)),
            other => return Err(usage(other.unexpected())),
        }
    }
    let missing = |option: &str| Fault::Usage(format!("{option} is missing"));
    let agent = agent.ok_or_else(|| missing("--agent"))?;
    let output = output.ok_or_else(|| missing("--output"))?;
    if output.file_name().is_none() || output.is_dir() {
        let output = output.display();
        return Err(Fault::Usage(format!("--output {output}: this is no file")));
    }
    let output = std::path::absolute(&output).map_err(Fault::file("find", &output))?;
    let ending = output.extension().and_then(|ending| ending.to_str());
    let format = format.or_else(|| ending.and_then(Format::parse));
    Ok(Wish {
        agent,
        output,
        format: format.unwrap_or(Format::Raw),
        firmware,
    })
}

/// Reads a name that is one of a few.
fn one_of<T>(
    parser: &mut lexopt::Parser,
    option: &str,
    parse: fn(&str) -> Option<T>,
    known: &[&str],
) -> Result<T, Fault> {
    let name = parser.value().and_then(ValueExt::string).map_err(usage)?;
    parse(&name).ok_or_else(|| {
        let known = known.join(", ");
        Fault::Usage(format!("{option} {name}: there are {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Wish, Fault> {
        parse(lexopt::Parser::from_iter(
            std::iter::once(&"image").chain(words),
        ))
    }

    fn refused(words: &[&str]) -> String {
        let fault = parsed(words).unwrap_err();
        assert!(fault.is_usage(), "{fault}");
        fault.to_string()
    }

    #[test]
    fn every_name_is_in_the_help() {
        for agent in Agent::ALL {
            assert!(HELP.contains(&format!(" {}  ", agent.name())), "{agent:?}");
        }
        let names = Format::ALL.map(Format::name);
        for name in names.into_iter().chain(FIRMWARE.map(|(word, _)| word)) {
            assert!(HELP.contains(&format!(" {name} (")) || HELP.contains(&format!(" {name},")));
        }
    }

    #[test]
    fn unknown_name_is_refused_with_those_there_are() {
        for (words, known) in [
            (["--agent", "ignition"], "cloud-init"),
            (["--format", "vmdk"], "qcow2"),
            (["--firmware", "coreboot"], "uefi"),
        ] {
            let said = refused(&words);
            assert!(said.contains(words[1]) && said.contains(known), "{said}");
        }
    }

    #[test]
    fn nothing_is_made_without_an_agent_and_a_file() {
        assert!(refused(&["--agent", "waagent"]).contains("--output"));
        assert!(refused(&["--output", "/nowhere/x"]).contains("--agent"));
        for no_file in ["", "/", "/tmp", ".."] {
            let said = refused(&["--agent", "waagent", "--output", no_file]);
            assert!(said.contains("no file"), "{said}");
        }
    }

    #[test]
    fn format_is_as_the_file_ends_unless_it_is_named() {
        let format = |words: &[&str]| {
            let words = [&["--agent", "preroot", "--output"], words].concat();
            parsed(&words).unwrap().format
        };
        assert_eq!(format(&["/x/a.vhd"]), Format::Vhd);
        assert_eq!(format(&["/x/a.qcow2"]), Format::Qcow2);
        assert_eq!(format(&["/x/a.img"]), Format::Raw);
        assert_eq!(format(&["/x/a.vhd", "--format", "raw"]), Format::Raw);
    }
}

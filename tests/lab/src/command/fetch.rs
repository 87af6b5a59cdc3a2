//! `cargo lab fetch`: brings things here before they are needed, as for a journey without network.

use std::process::ExitCode;

use lab::arch::Arch;
use lab::debian::{self, Flavour};
use lab::distro::Distro;
use lab::fault::Fault;
use lab::fetch::{Lab, known_programs};
use lab::kernel::Kernel;
use lab::{progress, rootfs};
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Fetches what the other verbs would fetch when they need it, into target/lab/.

Usage: cargo lab fetch [OPTION]... [THING]...

  THING           `kernel`, `root` (the root disk), `debian` (a whole system as after its
                  installation), `debian-agents` (the same with cloud-init and waagent),
                  `debian-networks` (the same with all network managers),
                  `debian-generators` (the same with dracut and initramfs-tools),
                  `debian-read-only` (the same for a root that is never written to),
                  `distro` (a disk of that with preroot, and each initramfs beside it),
                  `uefi` (for whole disks), or a program such as mkudffs; default: all
                  that `cargo lab boot` needs of a machine it makes itself
  --arch ARCH     for which machine: x86_64 (default), aarch64; a whole system and the
                  programs are this one's
  --list          list the programs that can be fetched

Nothing is installed. A program that the system has is taken from there; with
LAB_IGNORE_PATH=1 in the environment it is fetched all the same.
";

/// Reads the arguments and fetches.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let mut arch = Arch::X86_64;
    let mut things = Vec::new();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("arch") => arch = super::boot::arch(&mut parser)?,
            Long("list") => {
                known_programs().for_each(|program| println!("{program}"));
                return Ok(ExitCode::SUCCESS);
            }
            Value(thing) => things.push(thing.to_string_lossy().into_owned()),
            other => return Err(usage(other.unexpected())),
        }
    }
    if things.is_empty() {
        things = vec![
            "kernel".to_owned(),
            "root".to_owned(),
            arch.traits().system.to_owned(),
        ];
    }
    let lab = Lab::open()?;
    for thing in things {
        let at = match thing.as_str() {
            "kernel" => Kernel::fetch(&lab, arch)?.image,
            "root" => rootfs::image(&lab, arch)?,
            "debian" => debian::archive(&lab, Flavour::Plain)?,
            "debian-agents" => debian::archive(&lab, Flavour::WithAgents)?,
            "debian-networks" => debian::archive(&lab, Flavour::WithNetworks)?,
            "debian-generators" => debian::archive(&lab, Flavour::WithGenerators)?,
            "debian-read-only" => debian::archive(&lab, Flavour::ReadOnly)?,
            "distro" => Distro::make(&lab)?.disk(),
            "uefi" => lab.uefi()?.0,
            program if known_programs().any(|known| known == program) => {
                lab.tool(program)?.program().to_owned()
            }
            other => return Err(Fault::Usage(format!("there is no `{other}` to fetch"))),
        };
        progress::say(format_args!("{thing}: {}", at.display()));
    }
    Ok(ExitCode::SUCCESS)
}

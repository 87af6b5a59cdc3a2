//! `cargo lab boot`: the arguments of one boot, and the summary at its end.

mod disk;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lab::arch::Arch;
use lab::boot::{self, Disc, Options, Outcome};
use lab::fault::Fault;
use lab::platform::{Platform, Scenario};
use lab::progress;
use lab::qemu::{Bus, Firmware, VIRTIO};
use lab::whole;
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Boots a real kernel with preroot as its initramfs on the simulated platform, shows
its console, and checks what its real init found. With --disk: boots a whole disk
image with whatever agent it has, and tells what Azure would say of it.

Usage: cargo lab boot [OPTION]...
       cargo lab boot --disk IMAGE [--disk IMAGE]... [OPTION]...

What boots
  --arch ARCH         x86_64 (default) or aarch64
  --kernel FILE       this kernel; default: the distribution's cloud kernel, fetched
  --modules DIR       the modules of that kernel, as /lib/modules/VERSION
  --initramfs FILE    this initramfs; default: packed around the preroot that is built
  --without LIST      modules to leave out of the initramfs, such as udf,isofs
  --root-disk FILE    a raw disk image with the root, which is copied and not changed;
                      default: a small one of the distribution's own files. Without a
                      file system at its very start, name the root with --append
  --append ARGS       further kernel arguments; may be repeated

In place of all these: a whole disk (docs/desk.md)
  --disk IMAGE        boots by its own boot loader, x86_64; raw, VHD, VHDX, qcow2 or
                      whatever qemu-img reads. It is not written to. May be repeated:
                      each is booted in its turn, and their timelines stand one above
                      the other
  --firmware KIND     bios or uefi; default: as the partition table has it
  --bus BUS           what the disk hangs on: virtio (default), scsi or sata
  --nic MODEL         the network card: virtio-net-pci (default), e1000, or another
                      one of the emulator's
  --memory MIB        memory of the machine (default: 1024)
  --agent-log         read the agents' own logs off the disk afterwards

What the platform says
  --disc FILE|none    this image in the CD-ROM drive, or an empty drive;
                      default: an image made around the document
  --ovf FILE          this document as ovf-env.xml; default: tests/lab/data/ovf-env.xml.
                      With --disc: what the machine must become; without, nothing is
                      expected of its identity
  --scenario NAME|FILE  what the platform is like (default: healthy); none: nobody is
                      at the other end of the cable
  --latency MS        added to each frame, one way (default: 0)
  --pcap FILE         write every frame to this file

How it runs
  --timeout SECONDS   how long the machine may run (default: 120; with --disk 600)
  --cpus N            processors of the machine (default: 1)
  --qemu ARGS         further arguments of the emulator; may be repeated
  --keep              keep the working directory and say where it is
  --quiet             show no console and no progress, only the verdict
  --verbose           show what the platform heard, even when all went well

Exit codes: 0 the real init found all that the disc asked for, and the platform accepted
Ready; with --disk: the platform accepted Ready of each; 1 something was missing or wrong,
and is named; 2 used wrongly.
";

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Quiet,
    Normal,
    Verbose,
}

/// Reads the arguments, boots, and tells how it went.
pub(crate) fn run(parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let (wanted, detail) = parse(parser)?;
    progress::set_quiet(detail == Detail::Quiet);
    let options = match wanted {
        Wanted::Kernel(options) => options,
        Wanted::Disks(disks) => return disk::run(&disks, detail),
    };
    let outcome = boot::run(&options)?;
    print(&outcome, &options, detail);
    Ok(if outcome.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is to be booted.
#[derive(Debug)]
enum Wanted {
    /// A kernel with an initramfs.
    Kernel(Box<Options>),
    /// Whole disks, one after the other.
    Disks(Vec<whole::Options>),
}

/// Options that say how something boots that a whole disk brings itself.
const NOT_WITH_DISK: [&str; 7] = [
    "arch",
    "kernel",
    "modules",
    "initramfs",
    "without",
    "root-disk",
    "append",
];

/// Options that only a whole disk has a use for.
const ONLY_WITH_DISK: [&str; 5] = ["firmware", "bus", "nic", "memory", "agent-log"];

/// Reads the arguments.
fn parse(mut parser: lexopt::Parser) -> Result<(Wanted, Detail), Fault> {
    let mut options = Options {
        console: true,
        ..Options::default()
    };
    let mut disk = whole::Options::new("");
    let (mut disks, mut given) = (Vec::new(), Vec::new());
    let (mut detail, mut latency, mut limit) = (Detail::Normal, None, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        if let Long(name) = argument {
            given.push(name.to_owned());
        }
        match argument {
            Long("arch") => options.arch = arch(&mut parser)?,
            Long("kernel") => options.kernel = Some(file(&mut parser)?),
            Long("modules") => options.modules = Some(file(&mut parser)?),
            Long("initramfs") => options.initramfs = Some(file(&mut parser)?),
            Long("without") => {
                let list = text(&mut parser)?;
                options.without.extend(list.split(',').map(str::to_owned));
            }
            Long("root-disk") => options.root_disk = Some(file(&mut parser)?),
            Long("append") => options.append.push(text(&mut parser)?),
            Long("disk") => disks.push(file(&mut parser)?),
            Long("firmware") => {
                disk.firmware = Some(one_of(
                    &mut parser,
                    "--firmware",
                    "bios and uefi",
                    Firmware::parse,
                )?);
            }
            Long("bus") => {
                disk.bus = one_of(&mut parser, "--bus", "virtio, scsi and sata", Bus::parse)?;
            }
            Long("nic") => disk.nic = nic(&text(&mut parser)?)?,
            Long("memory") => disk.memory = number(&mut parser, "--memory", 65_536)?.max(64) as u32,
            Long("agent-log") => {
                disk.agent_log = true;
                // What an agent does last it does when people can log in already.
                disk.settle = Duration::from_secs(20);
            }
            Long("disc") => {
                let value = file(&mut parser)?;
                let empty = value.as_os_str() == "none";
                options.disc = if empty {
                    Disc::Empty
                } else {
                    Disc::Image(value)
                };
            }
            Long("ovf") => options.document = Some(file(&mut parser)?),
            Long("scenario") => options.scenario = scenario(&text(&mut parser)?)?,
            Long("latency") => {
                latency = Some(Duration::from_millis(number(
                    &mut parser,
                    "--latency",
                    60_000,
                )?));
            }
            Long("pcap") => options.pcap = Some(file(&mut parser)?),
            Long("timeout") => {
                limit = Some(Duration::from_secs(number(
                    &mut parser,
                    "--timeout",
                    86_400,
                )?));
            }
            Long("cpus") => options.cpus = number(&mut parser, "--cpus", 8)?.max(1) as u8,
            Long("qemu") => options.emulator.extend(emulator(&text(&mut parser)?)?),
            Long("keep") => options.keep = true,
            Long("quiet") | Short('q') => detail = Detail::Quiet,
            Long("verbose") | Short('v') => detail = Detail::Verbose,
            other => return Err(usage(other.unexpected())),
        }
    }
    if let (Some(latency), Some(scenario)) = (latency, &mut options.scenario) {
        scenario.link.latency = latency;
    }
    options.console = detail != Detail::Quiet;
    agree(&given, disks.len())?;
    if disks.is_empty() {
        options.time_limit = limit.unwrap_or(options.time_limit);
        return Ok((Wanted::Kernel(Box::new(options)), detail));
    }
    let common = whole::Options {
        disc: options.disc,
        document: options.document,
        scenario: options.scenario,
        pcap: options.pcap,
        emulator: options.emulator,
        cpus: options.cpus,
        time_limit: limit.unwrap_or(disk.time_limit),
        keep: options.keep,
        console: options.console,
        ..disk
    };
    let each = disks.into_iter().map(|image| whole::Options {
        image,
        ..common.clone()
    });
    Ok((Wanted::Disks(each.collect()), detail))
}

/// Refuses options that make no sense together.
fn agree(given: &[String], disks: usize) -> Result<(), Fault> {
    let has = |names: &[&str]| {
        let found = given.iter().find(|name| names.contains(&name.as_str()));
        found.cloned()
    };
    if disks == 0 {
        return match has(&ONLY_WITH_DISK) {
            Some(name) => Err(Fault::Usage(format!(
                "--{name} is for a whole disk: --disk IMAGE names one"
            ))),
            None => Ok(()),
        };
    }
    if let Some(name) = has(&NOT_WITH_DISK) {
        return Err(Fault::Usage(format!(
            "--{name} and --disk do not go together: a whole disk brings its own kernel, \
             initramfs, arguments and root"
        )));
    }
    if disks > 1 && has(&["pcap"]).is_some() {
        return Err(Fault::Usage(
            "--pcap takes the frames of one machine: give one --disk".to_owned(),
        ));
    }
    Ok(())
}

/// Takes arguments of the emulator apart; a network of the host is refused.
///
/// On a machine that is itself in Azure, an agent would find the platform's real addresses through it
/// and report for that machine.
fn emulator(arguments: &str) -> Result<Vec<String>, Fault> {
    let words: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
    let is_network = |word: &&String| {
        let name = word.trim_start_matches('-');
        word.starts_with('-') && ["nic", "net", "netdev"].contains(&name)
    };
    match words.iter().find(is_network) {
        Some(word) => Err(Fault::Usage(format!(
            "--qemu {word}: a machine here has the simulated platform's network and no other"
        ))),
        None => Ok(words),
    }
}

/// Takes the name of a network card; what else the emulator would read into it is refused.
fn nic(name: &str) -> Result<String, Fault> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(is_plain) {
        return Err(Fault::Usage(format!(
            "--nic {name}: the emulator's name of a network card is needed, such as e1000"
        )));
    }
    Ok(if name == "virtio" { VIRTIO } else { name }.to_owned())
}

/// Takes one of a few words.
fn one_of<T>(
    parser: &mut lexopt::Parser,
    name: &str,
    known: &str,
    read: fn(&str) -> Option<T>,
) -> Result<T, Fault> {
    let value = text(parser)?;
    read(&value).ok_or_else(|| Fault::Usage(format!("{name} {value}: there are {known}")))
}

/// Reads the name of a processor.
pub(crate) fn arch(parser: &mut lexopt::Parser) -> Result<Arch, Fault> {
    let name = text(parser)?;
    Arch::parse(&name)
        .ok_or_else(|| Fault::Usage(format!("--arch {name}: there are x86_64 and aarch64")))
}

/// Takes a scenario by its name, or from a file.
fn scenario(name: &str) -> Result<Option<Scenario>, Fault> {
    if name == "none" {
        return Ok(None);
    }
    if let Some(scenario) = Scenario::named(name) {
        return Ok(Some(scenario));
    }
    let path = PathBuf::from(name);
    if !path.exists() {
        let names = Scenario::names().join(", ");
        return Err(Fault::Usage(format!(
            "--scenario {name}: neither a file nor one of none, {names}"
        )));
    }
    let text = std::fs::read_to_string(&path).map_err(Fault::file("read", &path))?;
    let wrong = |error: lab::platform::ScenarioError| Fault::Content {
        path,
        why: error.to_string(),
    };
    Scenario::parse(&text).map(Some).map_err(wrong)
}

/// Reads a file's name; it is not looked at yet.
fn file(parser: &mut lexopt::Parser) -> Result<PathBuf, Fault> {
    let value = PathBuf::from(parser.value().map_err(usage)?);
    // cargo runs us where the caller is, but our children run elsewhere.
    if value.as_os_str() == "none" {
        return Ok(value);
    }
    std::path::absolute(&value).map_err(Fault::file("find", &value))
}

/// Reads a word.
fn text(parser: &mut lexopt::Parser) -> Result<String, Fault> {
    parser.value().and_then(ValueExt::string).map_err(usage)
}

/// Reads a number that has a bound.
fn number(parser: &mut lexopt::Parser, name: &str, most: u64) -> Result<u64, Fault> {
    let value = text(parser)?;
    match value.parse() {
        Ok(number) if number <= most => Ok(number),
        _ => Err(Fault::Usage(format!(
            "{name} {value}: a number up to {most} is needed"
        ))),
    }
}

/// Prints the timeline and the verdict.
fn print(outcome: &Outcome, options: &Options, detail: Detail) {
    if detail == Detail::Verbose || (detail == Detail::Normal && !outcome.passed()) {
        println!("\nWhat the platform heard and said");
        let journal = outcome.platform.iter().flat_map(Platform::journal);
        journal.for_each(|entry| println!("  {entry}"));
    }
    if detail != Detail::Quiet {
        let mut timeline = outcome.words.lines("status").peekable();
        if timeline.peek().is_some() {
            println!("\nTimeline");
            timeline.for_each(|line| println!("  {line}"));
        }
        println!("\nVerdict");
    }
    for check in &outcome.checks {
        if detail != Detail::Quiet || !check.passed {
            println!("  {check}");
        }
    }
    let verdict = if outcome.passed() { "passed" } else { "FAILED" };
    println!(
        "boot {verdict}, {:.1} s in the emulator",
        outcome.took.as_secs_f32()
    );
    if options.keep {
        println!("kept: {}", outcome.directory().display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<(Wanted, Detail), Fault> {
        parse(lexopt::Parser::from_iter(
            std::iter::once(&"boot").chain(words),
        ))
    }

    fn parsed(words: &[&str]) -> Result<(Options, Detail), Fault> {
        match read(words)? {
            (Wanted::Kernel(options), detail) => Ok((*options, detail)),
            (Wanted::Disks(_), _) => panic!("no disk was named"),
        }
    }

    fn disks(words: &[&str]) -> Vec<whole::Options> {
        match read(words).unwrap() {
            (Wanted::Disks(disks), _) => disks,
            (Wanted::Kernel(_), _) => panic!("a disk was named"),
        }
    }

    #[test]
    fn whole_disks_have_more_time_and_memory_and_share_the_rest() {
        let words = ["--disk", "/a", "--nic=e1000", "--disk", "/b", "--cpus=2"];
        let [first, second] = &disks(&words)[..] else {
            panic!("two were named");
        };
        assert_eq!(first.image, PathBuf::from("/a"));
        assert_eq!(second.image, PathBuf::from("/b"));
        for disk in [first, second] {
            assert_eq!(disk.time_limit, Duration::from_mins(10));
            assert_eq!((disk.memory, disk.cpus), (1024, 2));
            assert_eq!((disk.nic.as_str(), disk.bus), ("e1000", Bus::Virtio));
        }
        let given = &disks(&["--disk=/a", "--timeout=60", "--firmware=uefi"])[0];
        assert_eq!(given.time_limit, Duration::from_mins(1));
        assert_eq!(given.firmware, Some(Firmware::Uefi));
    }

    #[test]
    fn option_that_a_whole_disk_has_no_use_for_is_refused() {
        for name in NOT_WITH_DISK {
            let option = format!("--{name}=aarch64");
            for words in [["--disk=/a", &option], [&option, "--disk=/a"]] {
                let fault = read(&words).unwrap_err();
                assert!(fault.is_usage(), "{name}: {fault}");
                let said = fault.to_string();
                assert!(
                    said.contains(&format!("--{name}")) && said.contains("--disk"),
                    "{said}"
                );
            }
        }
    }

    #[test]
    fn option_of_a_whole_disk_is_refused_without_one() {
        for option in [
            "--firmware=bios",
            "--bus=scsi",
            "--nic=e1000",
            "--memory=512",
            "--agent-log",
        ] {
            let fault = read(&[option]).unwrap_err();
            assert!(fault.is_usage() && fault.to_string().contains("--disk"));
        }
    }

    #[test]
    fn frames_of_two_machines_do_not_go_to_one_file() {
        assert_eq!(disks(&["--disk=/a", "--pcap=/p"]).len(), 1);
        let fault = read(&["--disk=/a", "--disk=/b", "--pcap=/p"]).unwrap_err();
        assert!(fault.is_usage() && fault.to_string().contains("--pcap"));
    }

    #[test]
    fn emulator_is_given_no_network_of_the_host() {
        for arguments in ["-nic user", "-m 2048 -netdev user,id=n", "--net nic"] {
            let fault = read(&["--qemu", arguments]).unwrap_err();
            assert!(fault.is_usage(), "{arguments}");
        }
        let (options, _) = parsed(&["--qemu", "-m 2048 -s"]).unwrap();
        assert_eq!(options.emulator, ["-m", "2048", "-s"]);
    }

    #[test]
    fn network_card_cannot_bring_a_network_along() {
        assert!(read(&["--disk=/a", "--nic=e1000,netdev=x"]).is_err());
        assert!(read(&["--disk=/a", "--nic="]).is_err());
        assert_eq!(disks(&["--disk=/a", "--nic=virtio"])[0].nic, VIRTIO);
    }

    #[test]
    fn unknown_option_is_named() {
        let fault = parsed(&["--no-such"]).unwrap_err();
        assert!(fault.is_usage());
        assert!(fault.to_string().contains("--no-such"));
    }

    #[test]
    fn option_without_its_value_is_refused() {
        assert!(parsed(&["--kernel"]).unwrap_err().is_usage());
    }

    #[test]
    fn number_out_of_bounds_is_refused_with_the_bound() {
        let fault = parsed(&["--timeout", "soon"]).unwrap_err().to_string();
        assert!(
            fault.contains("--timeout soon") && fault.contains("86400"),
            "{fault}"
        );
        assert!(parsed(&["--latency", "60001"]).is_err());
    }

    #[test]
    fn disc_none_is_an_empty_drive_and_no_file() {
        assert_eq!(parsed(&["--disc", "none"]).unwrap().0.disc, Disc::Empty);
        let (options, _) = parsed(&["--disc", "/x/none"]).unwrap();
        assert_eq!(options.disc, Disc::Image("/x/none".into()));
    }

    #[test]
    fn lists_add_up() {
        let (options, _) =
            parsed(&["--append", "a=1 b", "--append", "c", "--without=udf,isofs"]).unwrap();
        assert_eq!(options.append, ["a=1 b", "c"]);
        assert_eq!(options.without, ["udf", "isofs"]);
    }

    #[test]
    fn every_option_that_is_read_is_in_the_help() {
        let source = include_str!("boot.rs");
        let options = source
            .split("Long(\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next());
        for option in
            options.filter(|option| option.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        {
            assert!(HELP.contains(&format!("--{option}")), "{option}");
        }
    }
}

//! The command line of the initramfs builder: arguments, the table, exit codes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use initramfs::{Compression, Image, Recipe, modules};
use lexopt::prelude::*;

const HELP: &str = "\
Packs preroot as /init, with the kernel modules it needs, into an initramfs.

Usage: initramfs --preroot FILE --modules DIR --output FILE [OPTION]...

  --preroot FILE      the preroot program (static), which becomes /init
  --modules DIR       the kernel's module directory: /lib/modules/VERSION
  --output FILE       the initramfs to write
  --compress HOW      gzip (default: every kernel takes it), zstd (smaller; Linux 5.9
                      or later with CONFIG_RD_ZSTD), none

Which modules, each with all that it depends on:
  --root-fs NAME,..   file systems of the root; fails when the kernel does not have one
                      (default: those of ext4,xfs,btrfs,erofs,squashfs that it has)
  --without NAME,..   leave these out
  --with NAME,..      take these too; fails when the kernel does not have one
  --only NAME,..      take these in place of the default set and --root-fs
                      (an empty NAME takes none)
  --list              show what would be packed, and write nothing; needs no --preroot

  --file HOST=PATH    put the file HOST at the absolute PATH; may be repeated
  --help, --version

The default set, of which missing ones are named and not fatal:
";

const EXAMPLES: &str = "
Examples:
  initramfs --preroot preroot --modules /lib/modules/$(uname -r) --output initrd.img
  initramfs --preroot preroot --modules /lib/modules/$(uname -r) --output azure.img \\
            --root-fs ext4 --without virtio_blk,virtio_scsi,virtio_net --compress zstd

Exit codes: 0 done, 100 used wrongly, 111 failed.
";

const WRONG_USE: u8 = 100;
const FAILED: u8 = 111;

struct Options {
    recipe: Recipe,
    output: Option<PathBuf>,
}

enum Task {
    Help,
    Version,
    Pack(Box<Options>),
}

fn main() -> ExitCode {
    let task = match parse(env::args_os()) {
        Ok(task) => task,
        Err(error) => {
            eprintln!("initramfs: {error}; initramfs --help shows how it is used");
            return ExitCode::from(WRONG_USE);
        }
    };
    let outcome = match task {
        Task::Help => print_help(),
        Task::Version => writeln!(io::stdout(), "initramfs {}", env!("CARGO_PKG_VERSION")),
        Task::Pack(options) => match run(&options) {
            Ok(printed) => printed,
            Err(fault) => {
                eprintln!("initramfs: {fault}");
                return ExitCode::from(FAILED);
            }
        },
    };
    match outcome {
        // `initramfs --help | head` is no failure.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("initramfs: cannot print: {error}");
            ExitCode::from(FAILED)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Task, lexopt::Error> {
    let mut parser = lexopt::Parser::from_iter(arguments);
    let (mut preroot, mut directory, mut output) = (None, None, None);
    let mut request = modules::Request::default();
    let (mut files, mut compression, mut list) = (Vec::new(), Compression::default(), false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("preroot") => preroot = Some(PathBuf::from(parser.value()?)),
            Long("modules") => directory = Some(PathBuf::from(parser.value()?)),
            Long("output") | Short('o') => output = Some(PathBuf::from(parser.value()?)),
            Long("compress") => compression = parser.value()?.parse()?,
            Long("root-fs") => request.root_file_systems = Some(names(&mut parser)?),
            Long("without") => request.without.extend(names(&mut parser)?),
            Long("with") => request.with.extend(names(&mut parser)?),
            Long("only") => {
                request
                    .only
                    .get_or_insert_default()
                    .extend(names(&mut parser)?);
            }
            Long("file") => {
                let value = parser.value()?.string()?;
                // The path in the archive starts with a slash; the host's may have a `=` in it.
                let at = value
                    .rfind("=/")
                    .ok_or("--file wants HOST=PATH, PATH being absolute")?;
                files.push((PathBuf::from(&value[..at]), value[at + 1..].to_owned()));
            }
            Long("list") => list = true,
            Long("help") | Short('h') => return Ok(Task::Help),
            Long("version") | Short('V') => return Ok(Task::Version),
            other => return Err(other.unexpected()),
        }
    }
    if list {
        output = None;
    } else if output.is_none() {
        return Err("--output is missing".into());
    }
    if !list && preroot.is_none() {
        return Err("--preroot is missing".into());
    }
    let modules = directory.ok_or("--modules is missing")?;
    let recipe = Recipe {
        preroot,
        modules,
        request,
        files,
        compression,
    };
    Ok(Task::Pack(Box::new(Options { recipe, output })))
}

fn names(parser: &mut lexopt::Parser) -> Result<Vec<String>, lexopt::Error> {
    let list = parser.value()?.string()?;
    Ok(list
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .map(Into::into)
        .collect())
}

/// Packs, writes and tells; what it returns inside is whether the telling worked.
fn run(options: &Options) -> Result<io::Result<()>, String> {
    if let Some(output) = &options.output {
        refuse_to_overwrite_input(&options.recipe, output)?;
    }
    let image = initramfs::pack(&options.recipe).map_err(|fault| fault.to_string())?;
    for warning in &image.warnings {
        eprintln!("initramfs: warning: {warning}");
    }
    if let Some(output) = &options.output {
        initramfs::save(&image.bytes, output).map_err(|fault| fault.to_string())?;
    }
    Ok(tell(&image, options))
}

fn refuse_to_overwrite_input(recipe: &Recipe, output: &Path) -> Result<(), String> {
    let Ok(target) = fs::canonicalize(output) else {
        return Ok(());
    };
    let inputs = recipe
        .files
        .iter()
        .map(|(source, _)| source)
        .chain(&recipe.preroot);
    for input in inputs {
        if fs::canonicalize(input).is_ok_and(|input| input == target) {
            return Err(format!(
                "{} is to be packed: write elsewhere",
                output.display()
            ));
        }
    }
    Ok(())
}

fn tell(image: &Image, options: &Options) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let home = format!("lib/modules/{}/", image.release);
    writeln!(out, "kernel {}", image.release)?;
    for (name, size) in &image.packed {
        writeln!(
            out,
            "{size:>10}  {}",
            name.strip_prefix(&home).unwrap_or(name)
        )?;
    }
    let mut parts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, size) in &image.packed {
        let part = match name.strip_prefix(&home) {
            Some(path) if path.contains('/') => "modules",
            Some(_) => "index of modules",
            None if name == "init" => "preroot",
            None => "further files",
        };
        *parts.entry(part).or_default() += size;
    }
    writeln!(out)?;
    for (part, size) in parts {
        writeln!(out, "{size:>10}  {part}")?;
    }
    writeln!(out, "{:>10}  archive", image.archive_size)?;
    let compression = options.recipe.compression;
    writeln!(out, "{:>10}  initramfs ({compression})", image.bytes.len())?;
    if !image.builtin.is_empty() {
        writeln!(out, "built into the kernel: {}", image.builtin.join(" "))?;
    }
    match &options.output {
        Some(output) => writeln!(out, "written to {}", output.display()),
        None => writeln!(out, "nothing written, as --list says"),
    }
}

fn print_help() -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(HELP.as_bytes())?;
    for (purpose, names) in modules::DEFAULT {
        writeln!(out, "  {purpose:<18}  {}", names.join(" "))?;
    }
    writeln!(
        out,
        "  {:<18}  {}",
        "root",
        modules::ROOT_FILE_SYSTEMS.join(" ")
    )?;
    out.write_all(EXAMPLES.as_bytes())
}

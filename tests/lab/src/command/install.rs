//! `cargo lab install`: lays the product where a package lays it.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::arch::Arch;
use lab::fault::Fault;
use lab::fetch::Lab;
use lab::install::{self, Generator, How};
use lab::{product, progress};
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Lays the program, its units, manual pages, completions, and what a generator of initramfs images needs of it at the
places where a package has them, for packagers and for who builds an image.

Usage: cargo lab install --destdir DIR --for GENERATOR [OPTION]...

  --destdir DIR     the root of the system; made if it is missing. `/` is this system
  --for GENERATOR   dracut, mkinitcpio or initramfs-tools; more than once for several
  --program FILE    lay this program; default: the release build for this processor
  --force           replace what is there with another content

What is laid, in every case and for each generator:

  usr/bin/preroot
  usr/lib/systemd/system/preroot-{ready,lease}.service, enabled by links in
      multi-user.target.wants/; both begin with a condition, and do nothing without need
  usr/share/man/man8/preroot.8, man5/preroot.conf.5
  usr/share/{bash-completion/completions/preroot,zsh/site-functions/_preroot,
      fish/vendor_completions.d/preroot.fish}
  dracut            usr/lib/dracut/modules.d/55preroot/
  mkinitcpio        usr/lib/initcpio/{install,hooks}/preroot
  both              usr/lib/systemd/system/preroot{,-prefetch,-failed}.service, which
                    they put into the initramfs
  initramfs-tools   usr/share/initramfs-tools/{hooks,scripts/*}/preroot

Everything is laid, or nothing. What is there already stays; nothing is removed. The image
is not built: docs/initramfs.md tells how, and what is in it. A way over a symbolic link
below DIR is refused, since it may lead out of it.

Prints one line for each part: its mode, or `link`; its place; ` (was there)`.

Exit codes: 0 laid; 1 not, and the reason is shown; 2 used wrongly.
";

/// Reads the arguments and lays.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let mut root: Option<PathBuf> = None;
    let mut program: Option<PathBuf> = None;
    let mut generators = Vec::new();
    let mut force = false;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("destdir") => root = Some(parser.value().map_err(usage)?.into()),
            Long("program") => program = Some(parser.value().map_err(usage)?.into()),
            Long("for") => generators.push(generator(&mut parser)?),
            Long("force") => force = true,
            other => return Err(usage(other.unexpected())),
        }
    }
    let root = root.ok_or_else(|| Fault::Usage("--destdir is missing".to_owned()))?;
    if root.as_os_str().is_empty() {
        return Err(Fault::Usage("--destdir names nothing".to_owned()));
    }
    if generators.is_empty() {
        return Err(Fault::Usage("--for is missing".to_owned()));
    }
    let lab = Lab::open()?;
    let program = match program {
        Some(program) => program,
        None => product::build(&lab, host()?)?,
    };
    for laid in install::lay(lab.project(), &program, &generators, &root, force)? {
        let was = if laid.already { " (was there)" } else { "" };
        match laid.how {
            How::Mode(mode) => println!("{mode:04o} {}{was}", laid.to),
            How::Link(target) => println!("link {} -> {target}{was}", laid.to),
        }
    }
    for generator in generators {
        progress::say(format_args!("next: {}", generator.next()));
    }
    Ok(ExitCode::SUCCESS)
}

fn host() -> Result<Arch, Fault> {
    Arch::host().ok_or_else(|| Fault::Missing {
        what: "a release build for this processor".to_owned(),
        fix: "name a program with --program".to_owned(),
    })
}

fn generator(parser: &mut lexopt::Parser) -> Result<Generator, Fault> {
    let name = parser
        .value()
        .map_err(usage)?
        .to_string_lossy()
        .into_owned();
    Generator::parse(&name).ok_or_else(|| {
        let known = Generator::ALL.map(Generator::name).join(", ");
        Fault::Usage(format!("there is nothing for `{name}`, only for {known}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let words = ["install"].iter().chain(arguments);
        let fault = run(lexopt::Parser::from_iter(words)).unwrap_err();
        assert!(fault.is_usage(), "{fault}");
        fault.to_string()
    }

    #[test]
    fn every_generator_is_in_the_help() {
        for generator in Generator::ALL {
            assert!(HELP.contains(&format!("\n  {}", generator.name())));
        }
    }

    #[test]
    fn unknown_generator_is_refused_by_name() {
        let said = refused(&["--destdir", "/nowhere", "--for", "booster"]);
        assert!(
            said.contains("booster") && said.contains("dracut"),
            "{said}"
        );
    }

    #[test]
    fn nothing_is_laid_by_default() {
        assert!(refused(&["--for", "dracut"]).contains("--destdir"));
        assert!(refused(&["--destdir", "/nowhere"]).contains("--for"));
        // What a recipe passes when its variable is not set.
        assert!(refused(&["--destdir", "", "--for", "dracut"]).contains("--destdir"));
    }
}

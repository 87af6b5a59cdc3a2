//! `cargo lab package`: builds a package of the product.

use std::path::PathBuf;
use std::process::ExitCode;

use lab::arch::Arch;
use lab::fault::Fault;
use lab::fetch::Lab;
use lab::package::Recipe;
use lab::product;
use lexopt::prelude::*;

use super::usage;

/// What `--help` shows.
pub(crate) const HELP: &str = "\
Builds a package of preroot, of the release build, and prints where it is.

Usage: cargo lab package deb [OPTION]...

  deb             preroot_VERSION_ARCH.deb, for Debian 12 and later, and Ubuntu
  --output DIR    put it there; default: target/lab/package/
  --arch ARCH     for which machine: x86_64, aarch64; default: this one's
  --program FILE  pack this program; default: the release build

It needs neither root nor debhelper, only dpkg-deb. The same tree gives the same bytes:
nothing in the package is newer than the last commit, or than SOURCE_DATE_EPOCH. DEBEMAIL
and DEBFULLNAME say who answers for it. docs/packaging.md tells what is in it.

Exit codes: 0 built; 1 not, and the reason is shown; 2 used wrongly.
";

/// Reads the arguments and builds.
pub(crate) fn run(mut parser: lexopt::Parser) -> Result<ExitCode, Fault> {
    let (mut kind, mut output, mut program, mut arch) = (None, None, None, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Long("output") => output = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("program") => program = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Long("arch") => arch = Some(super::boot::arch(&mut parser)?),
            Value(name) if kind.is_none() => kind = Some(name.to_string_lossy().into_owned()),
            other => return Err(usage(other.unexpected())),
        }
    }
    match kind.as_deref() {
        Some("deb") => {}
        Some(other) => return Err(Fault::Usage(format!("there is no `{other}`, only `deb`"))),
        None => return Err(Fault::Usage("which package? there is `deb`".to_owned())),
    }
    let lab = Lab::open()?;
    let arch = arch.or_else(Arch::host).ok_or_else(|| Fault::Missing {
        what: "a release build for this processor".to_owned(),
        fix: "name another with --arch".to_owned(),
    })?;
    let program = match program {
        Some(program) => program,
        None => product::build(&lab, arch)?,
    };
    let output = output.unwrap_or_else(|| lab.directory().join("package"));
    let package = Recipe::new(&lab, &program, arch).build(&lab, &output)?;
    println!("{}", package.display());
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> String {
        let words = ["package"].iter().chain(arguments);
        let fault = run(lexopt::Parser::from_iter(words)).unwrap_err();
        assert!(fault.is_usage(), "{fault}");
        fault.to_string()
    }

    #[test]
    fn kind_is_asked_for_and_unknown_ones_are_refused_by_name() {
        assert!(refused(&[]).contains("deb"));
        assert!(refused(&["rpm"]).contains("rpm"));
        assert!(refused(&["deb", "rpm"]).contains("rpm"));
    }
}

//! The package in use: what becomes of a Debian that gets it, and what lintian says of it.
//!
//! Both are done by scripts in namespaces, with Debian's own programs; what they find is given as it is,
//! to be judged by a test.

use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::debian;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, remove_directory};
use crate::kernel::Kernel;
use crate::progress;

const SYSTEM: &str = include_str!("../../data/package.sh");
const LINTIAN: &str = include_str!("../../data/lintian.sh");

/// A directory of a trial, which goes with it.
struct Work(PathBuf);

impl Work {
    fn new(lab: &Lab, name: &str) -> Result<Self, Fault> {
        let path = lab
            .directory()
            .join(format!("package-{}-{name}.work", std::process::id()));
        remove_directory(&path)?;
        create_directory(&path)?;
        Ok(Self(path))
    }

    /// Runs a script with these arguments as root in namespaces, and gives what it said.
    fn run(&self, lab: &Lab, script: &str, arguments: &[&Path]) -> Result<String, Fault> {
        let path = self.0.join("script.sh");
        fs::write(&path, script).map_err(Fault::file("write", &path))?;
        let mut command = debian::inside(&lab.tool("unshare")?, &lab.tool("mke2fs")?);
        progress::run(command.arg(&path).args(arguments).arg(&self.0))
    }

    /// Downloads packages and all that they need; they are in the directory that it gives.
    fn packages(&self, lab: &Lab, names: &[&str]) -> Result<PathBuf, Fault> {
        let directory = self.0.join("packages");
        create_directory(&directory)?;
        let _lock = lab.lock()?;
        let apt = Apt::for_guest(lab, debian::host()?)?;
        if !names.is_empty() {
            for archive in apt.with_dependencies(names)? {
                let to = directory.join(archive.file_name().unwrap_or_default());
                fs::hard_link(&archive, to).map_err(Fault::file("link", &archive))?;
            }
        }
        Ok(directory)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let _ = remove_directory(&self.0);
    }
}

/// What was found: the step of the trial, the name of the fact, its value.
#[derive(Debug)]
pub struct Facts(Vec<[String; 3]>);

impl Facts {
    fn parse(text: &str) -> Self {
        let facts = text.lines().filter_map(|line| {
            let (step, fact) = line.strip_prefix("@@ ")?.split_once(' ')?;
            let (name, value) = fact.split_once('=')?;
            Some([step, name, value].map(str::to_owned))
        });
        Self(facts.collect())
    }

    /// Gives all values of a fact in a step, in their order.
    pub fn of(&self, step: &str, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|[of, named, _]| of == step && named == name)
            .map(|[_, _, value]| value.as_str())
            .collect()
    }
}

/// Installs `old` in a Debian's archive, upgrades to `new`, removes and purges, and tells what each did.
///
/// `generator` is Debian's package of what makes the initramfs there, if something shall.
pub fn in_debian(
    lab: &Lab,
    archive: &Path,
    generator: Option<&str>,
    old: &Path,
    new: &Path,
) -> Result<Facts, Fault> {
    let name = generator.unwrap_or("none");
    let work = Work::new(lab, name)?;
    let kernel = Kernel::fetch(lab, debian::host()?)?;
    let packages = work.packages(lab, generator.as_slice())?;
    let release = kernel.modules.file_name().unwrap_or_default();
    let tree = kernel.image.parent().and_then(Path::parent);
    let tree = tree.unwrap_or(Path::new("/"));
    let arguments = [
        archive,
        Path::new(name),
        &packages,
        old,
        new,
        tree,
        Path::new(release),
    ];
    work.run(lab, SYSTEM, &arguments)
        .map(|said| Facts::parse(&said))
}

/// Gives what lintian says of a package, but for what its overrides explain: a line each.
pub fn lintian(lab: &Lab, package: &Path) -> Result<Vec<String>, Fault> {
    let work = Work::new(lab, "lintian")?;
    let packages = work.packages(lab, &["?essential", "lintian"])?;
    let said = work.run(lab, LINTIAN, &[&packages, package])?;
    Ok(said.lines().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_given_by_step_and_name_in_their_order() {
        let facts = Facts::parse("noise\n@@ one a=1\n@@ two a=2\n@@ one a=3=4\n@@ one b=5\n");
        assert_eq!(facts.of("one", "a"), ["1", "3=4"]);
        assert_eq!(facts.of("two", "b"), [""; 0]);
    }
}

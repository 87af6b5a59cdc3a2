//! Downloads packages with APT, installs none, and touches nothing of the system.
//!
//! APT gets its own lists, its own cache and, for the machine that boots, its own empty list of
//! installed packages, all below `target/lab/apt/`; the sources, keys and proxies are the
//! system's. So it works for an ordinary user and gives the same as root, and it can read the
//! packages of another architecture.

use std::cell::Cell;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, count, create_directory, ignores_system, remove_directory};
use crate::progress::{self, Step};

/// Lists that are older are fetched again: an archive drops old versions when new ones come.
const STALE: Duration = Duration::from_hours(24);

/// The system's list of installed packages.
const INSTALLED: &str = "/var/lib/dpkg/status";

/// Releases by their code names, the one that came next, and who signs both.
const NEXT: [(&str, &str, &str); 2] = [
    (
        "bookworm",
        "trixie",
        "/usr/share/keyrings/debian-archive-keyring.gpg",
    ),
    (
        "jammy",
        "noble",
        "/usr/share/keyrings/ubuntu-archive-keyring.gpg",
    ),
];

/// Where an APT of our own keeps its things, and what it takes as installed.
#[derive(Debug)]
pub(crate) struct Apt {
    directory: PathBuf,
    archives: PathBuf,
    configuration: PathBuf,
    /// With nothing installed, if what is installed is no help.
    fallback: Option<PathBuf>,
    architecture: &'static str,
    updated: Cell<bool>,
}

/// One package file that APT would download.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Archive {
    name: String,
    version: String,
    file: String,
    size: u64,
}

impl Apt {
    /// Opens APT for programs that run here: what the system has is not downloaded.
    pub(crate) fn for_tools(lab: &Lab) -> Result<Self, Fault> {
        let arch = Arch::host().ok_or_else(|| Fault::Missing {
            what: format!("a package archive for {}", std::env::consts::ARCH),
            fix: "use an x86_64 or aarch64 machine".to_owned(),
        })?;
        let mut apt = Self::for_guest(lab, arch)?;
        if !ignores_system() && Path::new(INSTALLED).is_file() {
            let bare = apt.configuration.clone();
            apt.configuration = apt.configure("tools", Path::new(INSTALLED))?;
            apt.fallback = Some(bare);
        }
        Ok(apt)
    }

    /// Opens APT for the machine that boots: nothing is installed there.
    pub(crate) fn for_guest(lab: &Lab, arch: Arch) -> Result<Self, Fault> {
        let architecture = arch.traits().debian;
        let directory = lab.directory().join("apt").join(architecture);
        Self::open(directory, architecture, None)
    }

    /// Opens APT for a machine of the release after the system's, from where the system has its own.
    pub(crate) fn for_next_guest(lab: &Lab, arch: Arch) -> Result<Self, Fault> {
        let own = Self::for_guest(lab, arch)?;
        own.update(STALE)?;
        let mut targets = Command::new("apt-get");
        targets.arg("-c").arg(&own.configuration);
        targets.args(["indextargets", "Created-By: Packages"]);
        let (next, line) = next_source(&progress::run(&mut targets)?).ok_or_else(|| {
            let known: Vec<_> = NEXT.iter().map(|(release, ..)| *release).collect();
            Fault::Missing {
                what: "the release after this system's".to_owned(),
                fix: format!("use a machine that has APT with {}", known.join(" or ")),
            }
        })?;
        let name = format!("{}-{next}", own.architecture);
        let directory = lab.directory().join("apt").join(name);
        create_directory(&directory)?;
        let sources = directory.join("sources.list");
        fs::write(&sources, line).map_err(Fault::file("write", &sources))?;
        Self::open(directory, own.architecture, Some(&sources))
    }

    /// Opens APT with nothing installed, and with the system's sources or these.
    fn open(
        directory: PathBuf,
        architecture: &'static str,
        sources: Option<&Path>,
    ) -> Result<Self, Fault> {
        let archives = directory.join("archives");
        for part in ["lists/partial", "archives", "cache/none/partial"] {
            create_directory(&directory.join(part))?;
        }
        let empty = directory.join("nothing-installed");
        fs::write(&empty, "").map_err(Fault::file("write", &empty))?;
        let mut apt = Self {
            directory,
            archives,
            configuration: PathBuf::new(),
            fallback: None,
            architecture,
            updated: Cell::new(false),
        };
        apt.configuration = apt.configure("guest", &empty)?;
        if let Some(sources) = sources {
            let file = fs::OpenOptions::new().append(true).open(&apt.configuration);
            let more = format!(
                "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\n",
                sources.display()
            );
            file.and_then(|mut file| file.write_all(more.as_bytes()))
                .map_err(Fault::file("write", &apt.configuration))?;
        }
        Ok(apt)
    }

    /// Writes an APT configuration that is read after the system's own.
    fn configure(&self, name: &str, status: &Path) -> Result<PathBuf, Fault> {
        let path = self.directory.join(name).with_extension("conf");
        let at = |part: &str| self.directory.join(part).display().to_string();
        // The hooks would clean up the system's caches, and the further indexes are large. The
        // archives are kept where APT does not see them: it leaves those out of what it lists.
        let text = format!(
            "#clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n\
             #clear DPkg::Post-Invoke;\n\
             #clear DPkg::Pre-Install-Pkgs;\n\
             #clear APT::Architectures;\n\
             APT::Architecture \"{arch}\";\n\
             APT::Architectures {{ \"{arch}\"; }};\n\
             APT::Sandbox::User \"root\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
             Acquire::IndexTargets::deb::CNF::DefaultEnabled \"false\";\n\
             Acquire::Retries \"3\";\n\
             Debug::NoLocking \"1\";\n\
             Dir::State \"{state}\";\n\
             Dir::State::lists \"{lists}\";\n\
             Dir::State::status \"{status}\";\n\
             Dir::Cache \"{cache}\";\n\
             Dir::Cache::archives \"none\";\n\
             Dir::Cache::pkgcache \"{name}.pkgcache.bin\";\n\
             Dir::Cache::srcpkgcache \"{name}.srcpkgcache.bin\";\n",
            arch = self.architecture,
            state = at(""),
            lists = at("lists"),
            status = status.display(),
            cache = at("cache"),
        );
        fs::write(&path, text).map_err(Fault::file("write", &path))?;
        Ok(path)
    }

    /// Downloads packages and all that they depend on.
    pub(crate) fn with_dependencies(&self, packages: &[&str]) -> Result<Vec<PathBuf>, Fault> {
        self.with_dependencies_but(packages, |_| true)
    }

    /// Downloads packages and those that they depend on that are wanted, each by its name.
    pub(crate) fn with_dependencies_but(
        &self,
        packages: &[&str],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<PathBuf>, Fault> {
        let resolve = |configuration: &Path| {
            Self::archives(configuration, |apt| {
                apt.args(["install", "--yes", "--no-install-recommends"])
                    .args(packages)
            })
        };
        self.fetched(packages, || {
            let mut archives = match (resolve(&self.configuration), &self.fallback) {
                // Held or half-installed packages of the system can stand in the way, and a
                // program that is hidden from PATH can be installed all the same.
                (Err(_), Some(bare)) => resolve(bare)?,
                (Ok(found), Some(bare)) if found.is_empty() => resolve(bare)?,
                (found, _) => found?,
            };
            archives.retain(|archive| wanted(&archive.name));
            Ok(archives)
        })
    }

    /// Downloads just these packages.
    pub(crate) fn alone(&self, packages: &[&str]) -> Result<Vec<PathBuf>, Fault> {
        self.fetched(packages, || {
            Self::archives(&self.configuration, |apt| {
                apt.arg("download").args(packages)
            })
        })
    }

    /// Gives one field of the newest version of a package, if there is such a package.
    pub(crate) fn field(&self, package: &str, field: &str) -> Result<Option<String>, Fault> {
        self.update(STALE)?;
        let mut command = Command::new("apt-cache");
        command
            .arg("-c")
            .arg(&self.configuration)
            .args(["--no-all-versions", "show", package]);
        let Ok(text) = progress::run(&mut command) else {
            return Ok(None);
        };
        Ok(value_of(&text, field).map(str::to_owned))
    }

    /// Downloads what `resolve` finds, with fresh lists if the first try fails.
    fn fetched(
        &self,
        packages: &[&str],
        resolve: impl Fn() -> Result<Vec<Archive>, Fault>,
    ) -> Result<Vec<PathBuf>, Fault> {
        self.update(STALE)?;
        let attempt = || self.download(packages, &resolve()?);
        attempt().or_else(|fault| {
            if self.updated.get() {
                return Err(fault);
            }
            self.update(Duration::ZERO)?;
            attempt()
        })
    }

    /// Fetches the lists of packages if there are none or old ones.
    fn update(&self, stale: Duration) -> Result<(), Fault> {
        let stamp = self.directory.join("updated");
        let age = fs::metadata(&stamp).and_then(|data| data.modified()).ok();
        let age = age.and_then(|time| time.elapsed().ok());
        if self.updated.get() || age.is_some_and(|age| age < stale) {
            return Ok(());
        }
        let mut step = Step::begin(format!(
            "fetching the package lists for {}",
            self.architecture
        ));
        let mut command = Self::apt(&self.configuration);
        let result = step.run(command.arg("update"), &String::new);
        match result {
            Ok(_) => fs::write(&stamp, "").map_err(Fault::file("write", &stamp))?,
            // One source of many may be down, or not have this architecture: what counts is
            // whether the packages are found, and that is seen next.
            Err(fault) => progress::say(format_args!("  not all of it: {fault}")),
        }
        self.updated.set(true);
        step.end();
        Ok(())
    }

    /// Starts a command line of `apt-get` with our configuration.
    fn apt(configuration: &Path) -> Command {
        let mut command = Command::new("apt-get");
        command
            .arg("-c")
            .arg(configuration)
            .arg("-q")
            .env("LC_ALL", "C");
        // Its messages are our error messages; nobody answers questions.
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    }

    /// Asks APT which files it would download.
    fn archives(
        configuration: &Path,
        arguments: impl Fn(&mut Command) -> &mut Command,
    ) -> Result<Vec<Archive>, Fault> {
        let mut command = Self::apt(configuration);
        arguments(command.args(["-q", "--print-uris"]));
        Ok(progress::run(&mut command)?
            .lines()
            .filter_map(parse_uri_line)
            .collect())
    }

    /// Downloads the files that are not here yet.
    fn download(&self, packages: &[&str], archives: &[Archive]) -> Result<Vec<PathBuf>, Fault> {
        let path = |archive: &Archive| self.archives.join(&archive.file);
        let here = |archive: &Archive| {
            path(archive)
                .metadata()
                .is_ok_and(|data| data.len() == archive.size)
        };
        let absent: Vec<_> = archives.iter().filter(|archive| !here(archive)).collect();
        if !absent.is_empty() {
            let total: u64 = absent.iter().map(|archive| archive.size).sum();
            let mut what = format!("fetching {}", packages.join(", "));
            if absent.len() > packages.len() {
                let _ = write!(what, " and what they need");
            }
            let _ = write!(
                what,
                " ({}, {})",
                count(absent.len()),
                progress::size(total)
            );
            let part = self.archives.join("part");
            remove_directory(&part)?;
            create_directory(&part)?;
            let mut step = Step::begin(what);
            let mut command = Self::apt(&self.configuration);
            command.arg("download").current_dir(&part);
            command.args(absent.iter().map(|a| format!("{}={}", a.name, a.version)));
            step.run(&mut command, &|| {
                let bytes: u64 = crate::fetch::list(&part)
                    .iter()
                    .filter_map(|file| file.metadata().ok())
                    .map(|data| data.len())
                    .sum();
                format!(", {} of {}", progress::size(bytes), progress::size(total))
            })?;
            step.end();
            for archive in absent {
                let from = part.join(&archive.file);
                fs::rename(&from, path(archive)).map_err(Fault::file("rename", &from))?;
            }
            remove_directory(&part)?;
        }
        Ok(archives.iter().map(path).collect())
    }
}

/// Reads a line of `--print-uris`: `'URI' NAME_VERSION_ARCH.deb SIZE HASH`.
fn parse_uri_line(line: &str) -> Option<Archive> {
    let mut words = line.strip_prefix('\'')?.split(' ');
    let (_uri, file, size) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
    let mut parts = file.strip_suffix(".deb")?.split('_');
    let (name, version) = (parts.next()?.to_owned(), parts.next()?.replace("%3a", ":"));
    if file.contains('/') || name.is_empty() {
        return None;
    }
    Some(Archive {
        name,
        version,
        file: file.to_owned(),
        size,
    })
}

/// Makes a line of `sources.list` for the release after the one that APT's targets are of, and names it.
fn next_source(targets: &str) -> Option<(&'static str, String)> {
    targets.split("\n\n").find_map(|target| {
        let target = target.trim_start();
        let release = value_of(target, "Codename")?;
        let (_, next, keys) = NEXT.iter().find(|(known, ..)| *known == release)?;
        let at = value_of(target, "Repo-URI")?;
        (value_of(target, "Component")? == "main")
            .then(|| (*next, format!("deb [signed-by={keys}] {at} {next} main\n")))
    })
}

/// Finds a field in the first record of a control file.
fn value_of<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    text.lines()
        .take_while(|line| !line.is_empty())
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_of_print_uris_gives_name_version_and_size() {
        let line = "'http://deb.debian.org/debian/pool/main/b/busybox/busybox-static_1.35.0-4%2bb1_amd64.deb' \
                    busybox-static_1%3a1.35.0-4+b1_amd64.deb 928188 MD5Sum:0123";
        let archive = parse_uri_line(line).unwrap();
        assert_eq!(archive.name, "busybox-static");
        assert_eq!(archive.version, "1:1.35.0-4+b1");
        assert_eq!(archive.file, "busybox-static_1%3a1.35.0-4+b1_amd64.deb");
        assert_eq!(archive.size, 928_188);
    }

    #[test]
    fn other_lines_of_print_uris_are_passed_over() {
        for line in [
            "",
            "Reading package lists...",
            "'x' y.deb",
            "'x' ../a_1_b.deb 5",
            "'x' a 5 h",
        ] {
            assert_eq!(parse_uri_line(line), None, "{line:?}");
        }
    }

    #[test]
    fn next_release_comes_from_where_the_system_has_its_own() {
        // As `apt-get indextargets` has it in Debian 12, but for fields that nobody looks at.
        let targets = "MetaKey: main/binary-amd64/Packages\nCodename: bookworm-security\n\
                       Component: main\nRepo-URI: http://deb.debian.org/debian-security/\n\n\
                       MetaKey: contrib/binary-amd64/Packages\nCodename: bookworm\n\
                       Component: contrib\nRepo-URI: http://deb.debian.org/debian/\n\n\
                       MetaKey: main/binary-amd64/Packages\nCodename: bookworm\nSuite: oldstable\n\
                       Component: main\nRepo-URI: http://deb.debian.org/debian/\n";
        let (next, line) = next_source(targets).unwrap();
        assert_eq!(next, "trixie");
        assert_eq!(
            line,
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] \
             http://deb.debian.org/debian/ trixie main\n"
        );
        assert_eq!(next_source("Codename: sid\nComponent: main\n"), None);
        assert_eq!(next_source(""), None);
    }

    #[test]
    fn field_is_taken_from_the_first_record_only() {
        let text = "Package: meta\nDepends: linux-image-6.1 (= 6.1)\n\nPackage: meta\nSource: x\n";
        assert_eq!(value_of(text, "Depends"), Some("linux-image-6.1 (= 6.1)"));
        assert_eq!(value_of(text, "Source"), None);
    }
}

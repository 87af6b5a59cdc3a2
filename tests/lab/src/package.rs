//! The Debian package: what [`install`] lays, and what Debian wants beside it.
//!
//! Built by `dpkg-deb` alone, without root and without debhelper: there is nothing to compile but what
//! cargo compiles. What is in it depends on the program, the files of the project and the time that it
//! is given, so that the same tree makes the same bytes. It follows Debian's policy, 3 to 6 and 12.

mod licences;
pub mod trial;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory};
use crate::install::{self, Generator, ZSH_COMPLETION};
use crate::progress;

/// The version of this tree, as its `Cargo.toml` says.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where Debian's zsh looks for completions that packages bring.
const ZSH_VENDORS: &str = "usr/share/zsh/vendor-completions/_preroot";

/// Where the documents go.
const DOCUMENTS: &str = "usr/share/doc/preroot";

/// A document from this size on is compressed, as debhelper does.
const LARGE: u64 = 4096;

/// When everything was changed last, where neither the caller nor git knows: the first of 2026.
const SOME_TIME: u64 = 1_767_225_600;

/// Who made the package, unless `DEBEMAIL` says.
const MAINTAINER: &str = "preroot maintainers <maintainers@preroot.invalid>";

/// What is packed, and how it is called.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The program, static.
    pub program: PathBuf,
    /// The processor that it is for.
    pub arch: Arch,
    /// The package's version.
    pub version: String,
    /// Name and address of whoever answers for the package.
    pub maintainer: String,
    /// Seconds since 1970: nothing in the package is newer.
    pub time: u64,
}

impl Recipe {
    /// Takes what the environment says, as Debian's own tools do, and else what this tree says.
    pub fn new(lab: &Lab, program: &Path, arch: Arch) -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let maintainer = variable("DEBEMAIL").map(|address| {
            let name = variable("DEBFULLNAME").unwrap_or_else(|| "preroot maintainers".to_owned());
            format!("{name} <{address}>")
        });
        let given = variable("SOURCE_DATE_EPOCH").and_then(|time| time.parse().ok());
        Self {
            program: program.to_owned(),
            arch,
            version: VERSION.to_owned(),
            maintainer: maintainer.unwrap_or_else(|| MAINTAINER.to_owned()),
            time: given.or_else(|| last_commit(lab)).unwrap_or(SOME_TIME),
        }
    }

    /// Names the package's file.
    pub fn file(&self) -> String {
        format!("preroot_{}_{}.deb", self.version, self.arch.traits().debian)
    }

    /// Fills in a file of `package/deb`.
    fn filled(&self, lab: &Lab, name: &str) -> Result<String, Fault> {
        Ok(text(&ours(lab).join(name))?
            .replace("@VERSION@", &self.version)
            .replace("@ARCHITECTURE@", self.arch.traits().debian)
            .replace("@MAINTAINER@", &self.maintainer))
    }

    /// Builds the package into a directory and gives its file.
    pub fn build(&self, lab: &Lab, into: &Path) -> Result<PathBuf, Fault> {
        licences::check(lab)?;
        let package = into.join(self.file());
        create_directory(into)?;
        let stage = package.with_extension("work");
        remove_directory(&stage)?;
        let built = self.fill(lab, &stage).and_then(|()| {
            let mut dpkg_deb = lab.tool("dpkg-deb")?.command();
            dpkg_deb
                // Ubuntu's own kind of compression is not known everywhere.
                .args(["--root-owner-group", "-Zxz", "--build"])
                .args([&stage, &package])
                .env("SOURCE_DATE_EPOCH", self.time.to_string());
            progress::run(&mut dpkg_deb)
        });
        let removed = remove_directory(&stage);
        built.and(removed).map(|()| package)
    }

    /// Lays everything that the package has, as `dpkg-deb` wants it.
    fn fill(&self, lab: &Lab, stage: &Path) -> Result<(), Fault> {
        let generators = [Generator::Dracut, Generator::InitramfsTools];
        install::lay(lab.project(), &self.program, &generators, stage, false)?;
        let zsh = stage.join(ZSH_COMPLETION);
        put(
            &stage.join(ZSH_VENDORS),
            &fs::read(&zsh).map_err(Fault::file("read", &zsh))?,
        )?;
        let above = zsh.parent().unwrap_or(stage);
        remove_directory(above)?;

        let documents = stage.join(DOCUMENTS);
        for (from, to) in documents_of(lab) {
            let content = fs::read(&from).map_err(Fault::file("read", &from))?;
            put(&documents.join(to), &content)?;
        }
        put(
            &documents.join("changelog"),
            self.filled(lab, "changelog")?.as_bytes(),
        )?;
        put(
            &documents.join("copyright"),
            self.filled(lab, "copyright")?.as_bytes(),
        )?;
        put(
            &stage.join("usr/share/lintian/overrides/preroot"),
            self.filled(lab, "lintian-overrides")?.as_bytes(),
        )?;
        compress(lab, stage)?;

        let files = below(stage, stage);
        let size: u64 = files.iter().map(|(_, size)| size.div_ceil(1024)).sum();
        let sums = {
            let mut command = lab.tool("md5sum")?.command();
            command.current_dir(stage).arg("--");
            command.args(files.iter().filter_map(|(path, _)| path.to_str()));
            progress::run(&mut command)?
        };
        let control = stage.join("DEBIAN");
        put(&control.join("md5sums"), sums.as_bytes())?;
        put(
            &control.join("control"),
            self.filled(lab, "control")?
                .replace("@SIZE@", &size.to_string())
                .as_bytes(),
        )?;
        put(
            &control.join("triggers"),
            self.filled(lab, "triggers")?.as_bytes(),
        )?;
        for script in ["postinst", "prerm", "postrm"] {
            let to = control.join(script);
            put(&to, self.filled(lab, script)?.as_bytes())?;
            mode(&to, 0o755)?;
        }
        Ok(())
    }
}

/// Names the directory of what is in the package for Debian's sake.
fn ours(lab: &Lab) -> PathBuf {
    lab.project().join("package/deb")
}

fn text(path: &Path) -> Result<String, Fault> {
    fs::read_to_string(path).map_err(Fault::file("read", path))
}

/// Asks git for the time of the last commit.
fn last_commit(lab: &Lab) -> Option<u64> {
    let mut git = Command::new("git");
    git.current_dir(lab.project())
        .args(["log", "-1", "--format=%ct"]);
    progress::run(&mut git).ok()?.trim().parse().ok()
}

/// Lists what people read: where it is, and where it goes below the directory of documents.
fn documents_of(lab: &Lab) -> Vec<(PathBuf, String)> {
    let mut found = vec![(
        lab.project().join("package/preroot.conf"),
        "examples/preroot.conf".to_owned(),
    )];
    for name in ["README.md", "CHANGELOG.md"] {
        let path = lab.project().join(name);
        if path.is_file() {
            found.push((path, name.to_owned()));
        }
    }
    for path in list(&lab.project().join("docs")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.extension().is_some_and(|extension| extension == "md") {
            let name = format!("docs/{name}");
            found.push((path, name));
        }
    }
    found
}

/// Compresses what Debian has compressed: manual pages, changelogs, large documents.
fn compress(lab: &Lab, stage: &Path) -> Result<(), Fault> {
    let mut gzip = lab.tool("gzip")?.command();
    gzip.current_dir(stage).args(["-9n", "--"]);
    for (path, size) in below(stage, stage) {
        let is_document = path.starts_with(DOCUMENTS)
            && path.extension().is_some_and(|extension| extension == "md")
            && size > LARGE;
        if path.starts_with("usr/share/man") || path.ends_with("changelog") || is_document {
            gzip.arg(path);
        }
    }
    progress::run(&mut gzip).map(drop)
}

/// Lists the files below a directory in the order of the names: the place in `top`, and the bytes.
fn below(top: &Path, directory: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for path in list(directory) {
        match path.symlink_metadata() {
            Ok(data) if data.is_dir() => found.extend(below(top, &path)),
            Ok(data) if data.is_file() => {
                let place = path.strip_prefix(top).unwrap_or(&path).to_owned();
                found.push((place, data.len()));
            }
            _ => {}
        }
    }
    found
}

/// Writes a file that everybody may read, and makes the directories above it.
fn put(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let mut missing = Vec::new();
    let mut above = path.parent();
    while let Some(directory) = above.filter(|directory| !directory.is_dir()) {
        missing.push(directory);
        above = directory.parent();
    }
    for directory in missing.into_iter().rev() {
        create_directory(directory)?;
        mode(directory, 0o755)?;
    }
    fs::write(path, content).map_err(Fault::file("write", path))?;
    mode(path, 0o644)
}

/// Sets permissions, whatever the umask.
fn mode(path: &Path, mode: u32) -> Result<(), Fault> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(Fault::file("chmod", path))
}

//! The bytes of the release binary, against their budget and against the last value.
//!
//! The last value stands in `data/size.txt`, a line for each processor, and moves only when somebody
//! asks for it: what grows a little each time is noticed the first time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, create_directory, list, remove_directory};
use crate::progress::Step;
use crate::{elf, product};

/// The most bytes that the binary may have; `docs/size.md` tells why.
pub const BUDGET: u64 = 384 * 1024;

/// The most memory that a process of it may take, in KiB.
pub const MEMORY_KIB: u64 = 544;

/// The system calls that a run elsewhere than on Azure stays below.
pub const ELSEWHERE_CALLS: u64 = 40;

/// The time that such a run stays below, in microseconds.
pub const ELSEWHERE_US: u128 = 1000;

/// By how many parts of a hundred the binary may grow without a word.
const SLACK: u64 = 2;

/// What is written above the values.
const HEAD: &str = "\
# Bytes of the release binary: stripped, by gzip -9, by zstd -19.
# `cargo lab size` compares with these, `cargo lab size --update` writes them.
";

/// The bytes of one binary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bytes {
    /// As it is.
    pub stripped: u64,
    /// As gzip -9 leaves it.
    pub gzip: u64,
    /// As zstd -19 leaves it.
    pub zstd: u64,
}

impl Bytes {
    /// Builds the release binary, sees that it is static, and measures it.
    pub fn measure(lab: &Lab, arch: Arch) -> Result<(PathBuf, Self), Fault> {
        let program = product::build(lab, arch)?;
        elf::is_static(lab, &program, arch)?;
        let stripped = program
            .metadata()
            .map_err(Fault::file("read", &program))?
            .len();
        let gzip = compressed(lab, "gzip", &["-9", "--no-name"], &program)?;
        let zstd = compressed(lab, "zstd", &["-19", "--quiet"], &program)?;
        let bytes = Self {
            stripped,
            gzip,
            zstd,
        };
        Ok((program, bytes))
    }

    /// Says what is wrong with it, if anything is.
    pub fn judge(self, last: Option<Self>) -> Result<(), String> {
        match last {
            _ if self.stripped > BUDGET => Err(format!(
                "{} bytes are {} above its budget",
                self.stripped,
                self.stripped - BUDGET
            )),
            Some(last) if self.stripped > last.stripped + last.stripped * SLACK / 100 => {
                Err(format!(
                    "it grew from {} to {} bytes, by more than {SLACK} %; \
                 if it is worth it: cargo lab size --update",
                    last.stripped, self.stripped
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Compresses a file and counts what comes out.
fn compressed(lab: &Lab, program: &str, arguments: &[&str], file: &Path) -> Result<u64, Fault> {
    let tool = lab.tool(program)?;
    let output = tool
        .command()
        .args(arguments)
        .args(["--stdout", "--"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .map_err(Fault::file("run", tool.program()))?;
    if !output.status.success() {
        return Err(Fault::Program {
            command: program.to_owned(),
            ended: format!("failed ({})", output.status),
            said: String::from_utf8_lossy(&output.stderr)
                .trim_end()
                .to_owned(),
        });
    }
    Ok(output.stdout.len() as u64)
}

/// The last values, by the name of the processor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Last(pub BTreeMap<String, Bytes>);

impl Last {
    /// Reads the last values; there are none before the first.
    pub fn read(lab: &Lab) -> Result<Self, Fault> {
        let path = path(lab);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map_err(|why| Fault::Content { path, why }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Fault::file("read", &path)(error)),
        }
    }

    /// Writes these values for the next time.
    pub fn write(&self, lab: &Lab) -> Result<(), Fault> {
        let path = path(lab);
        fs::write(&path, self.text()).map_err(Fault::file("write", &path))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut last = Self::default();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        {
            let mut words = line.split_whitespace();
            let name = words.next().unwrap_or_default().to_owned();
            let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            let &[stripped, gzip, zstd] = numbers.as_slice() else {
                return Err(format!("`{line}` is no processor with three numbers"));
            };
            last.0.insert(
                name,
                Bytes {
                    stripped,
                    gzip,
                    zstd,
                },
            );
        }
        Ok(last)
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (name, bytes) in &self.0 {
            let _ = writeln!(
                text,
                "{name} {} {} {}",
                bytes.stripped, bytes.gzip, bytes.zstd
            );
        }
        text
    }
}

/// The file with the last values.
fn path(lab: &Lab) -> PathBuf {
    lab.project().join("tests/lab/data/size.txt")
}

/// Builds a copy of the project in another directory, and fails unless the binary is the same.
pub fn is_reproducible(lab: &Lab, program: &Path, arch: Arch) -> Result<(), Fault> {
    let copy = lab.directory().join("elsewhere");
    remove_directory(&copy)?;
    copy_sources(lab.project(), &copy, lab.target())?;
    let target = arch.traits().target;
    let mut step = Step::begin(format!(
        "building preroot for {target} again, in another directory"
    ));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&copy)
        .args(["build", "--release", "--locked", "--package", "preroot"])
        .args(["--target", target, "--target-dir"])
        .arg(copy.join("target"));
    step.run(&mut command, &String::new)?;
    step.end();
    let other = copy.join("target").join(target).join("release/preroot");
    let read = |path: &Path| fs::read(path).map_err(Fault::file("read", path));
    let (ours, theirs) = (read(program)?, read(&other)?);
    if ours != theirs {
        let at = ours.iter().zip(&theirs).position(|(a, b)| a != b);
        return Err(Fault::Content {
            path: other,
            why: format!(
                "differs from {} ({} and {} bytes), first at {}",
                program.display(),
                theirs.len(),
                ours.len(),
                at.unwrap_or(ours.len().min(theirs.len()))
            ),
        });
    }
    remove_directory(&copy)
}

/// Copies the project without what was built and without its history.
fn copy_sources(from: &Path, to: &Path, target: &Path) -> Result<(), Fault> {
    create_directory(to)?;
    for path in list(from) {
        let name = path.file_name().unwrap_or_default();
        if path == target || name == "target" || name == ".git" {
            continue;
        }
        let copy = to.join(name);
        if path.is_dir() {
            copy_sources(&path, &copy, target)?;
        } else {
            fs::copy(&path, &copy).map_err(Fault::file("copy", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(stripped: u64) -> Bytes {
        Bytes {
            stripped,
            gzip: 2,
            zstd: 1,
        }
    }

    #[test]
    fn budget_is_a_budget() {
        assert!(bytes(BUDGET).judge(None).is_ok());
        for last in [None, Some(bytes(BUDGET + 2))] {
            let why = bytes(BUDGET + 1).judge(last).unwrap_err();
            assert!(why.ends_with(" 1 above its budget"), "{why}");
        }
    }

    #[test]
    fn growth_by_more_than_two_in_a_hundred_is_noticed() {
        let last = Some(bytes(100_000));
        assert!(bytes(102_000).judge(last).is_ok());
        assert!(bytes(50_000).judge(last).is_ok());
        let why = bytes(102_001).judge(last).unwrap_err();
        assert!(why.contains("--update"), "{why}");
    }

    #[test]
    fn last_values_are_read_as_they_were_written() {
        let mut last = Last::default();
        last.0.insert("x86_64".to_owned(), bytes(200_000));
        last.0.insert("aarch64".to_owned(), bytes(210_000));
        assert_eq!(Last::parse(&last.text()), Ok(last));
    }

    #[test]
    fn line_without_its_three_numbers_is_refused() {
        assert!(Last::parse("x86_64 1 2\n").is_err());
        assert!(Last::parse("x86_64 1 2 x\n").is_err());
        assert_eq!(Last::parse("# nothing yet\n\n"), Ok(Last::default()));
    }
}

//! What can go wrong in the lab's own work, in the words of the person who typed `cargo lab`.
//!
//! Not for what the tested program does wrong: that is a [`crate::verdict::Check`] that failed.

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Tells what the lab could not do, on what, and what to do about it.
#[derive(Debug)]
pub enum Fault {
    /// The command line asks for something that does not exist.
    Usage(String),
    /// A file or directory could not be used.
    File {
        /// The verb: `read`, `create`, `copy`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A program could not be started or failed.
    Program {
        /// The command line, shortened.
        command: String,
        /// How it ended.
        ended: String,
        /// The last lines that it wrote.
        said: String,
    },
    /// Something is needed that is not here and cannot be fetched.
    Missing {
        /// The thing.
        what: String,
        /// What the person can do.
        fix: String,
    },
    /// A file does not hold what it should.
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl Fault {
    /// Makes the closure that turns an I/O error on `path` into a fault.
    pub fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::File { doing, path, error }
    }

    /// Says whether the person, not the system, has to correct something.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Usage(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::File { doing, path, error } => {
                write!(f, "unable to {doing} {}: {error}", path.display())
            }
            Self::Program {
                command,
                ended,
                said,
            } => {
                write!(f, "`{command}` {ended}")?;
                if !said.is_empty() {
                    write!(f, "; it said:\n{said}")?;
                }
                Ok(())
            }
            Self::Missing { what, fix } => write!(f, "{what} is missing: {fix}"),
            Self::Content { path, why } => write!(f, "{}: {why}", path.display()),
        }
    }
}

impl std::error::Error for Fault {}

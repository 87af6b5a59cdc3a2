//! The Debian package: built twice, installed in a Debian, read by lintian; and the completions in it,
//! run in their shells.
//!
//! The program is the release build, and has the last word on what its options and their values are.

mod build;
mod completions;
mod debian;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::{env, fs};

use lab::arch::Arch;
use lab::fetch::Lab;
use lab::package::Recipe;
use lab::product;

/// A directory that goes away with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("lab-package-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Builds the program, once for all tests.
fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let lab = Lab::open().unwrap();
        product::build(&lab, Arch::host().unwrap()).unwrap()
    });
    &PROGRAM
}

/// What the program has to complain of in an option; nothing if it takes it.
///
/// The test may run on a machine of Azure's, which must not be provisioned: behind the option stands one
/// that there is not, and the program does nothing but name the first that is wrong.
fn complaint(option: &str) -> String {
    let wrong = "--no-such-option";
    let output = Command::new(program())
        .args(["provision", option, wrong])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(100));
    let said = String::from_utf8(output.stderr).unwrap();
    if said.contains(wrong) {
        String::new()
    } else {
        said
    }
}

/// Says how the package of this tree is built.
fn recipe(lab: &Lab) -> Recipe {
    Recipe::new(lab, program(), Arch::host().unwrap())
}

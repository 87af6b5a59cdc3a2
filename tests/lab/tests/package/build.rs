//! The package as a file.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime};

use lab::fault::Fault;
use lab::fetch::Lab;
use lab::install::{Generator, lay};
use lab::package::{Recipe, VERSION, trial};

use super::{Place, complaint, program, recipe};

/// What lintian says that stands in no override.
const EXPLAINED: [&str; 2] = [
    // What another version of lintian, or of the program, gives no reason for needs no explanation.
    "preroot: unused-override ",
    // Lintian of Debian 12 has this tag, and that of Debian 13 takes an override of it for a mistake.
    // Three of the units run in the initramfs, where hooks do the same without systemd. The two of the
    // running system are needed with `ready = later`, and where nobody configures the network: who
    // builds such an image without systemd starts them as its own init has it.
    "preroot: package-supports-alternative-init-but-no-init.d-script ",
];

/// Asks dpkg-deb about a package.
fn dpkg_deb(lab: &Lab, arguments: &[&str], package: &std::path::Path) -> String {
    let mut command = lab.tool("dpkg-deb").unwrap().command();
    let output = command.args(arguments).arg(package).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn same_tree_gives_the_same_bytes() {
    let (lab, place) = (Lab::open().unwrap(), Place::new("twice"));
    let first = recipe(&lab).build(&lab, &place.path().join("a")).unwrap();
    // Another time of the same program, and another way to where it is built.
    let copy = place.path().join("program");
    fs::copy(program(), &copy).unwrap();
    let later = SystemTime::now() - Duration::from_hours(5);
    fs::File::options()
        .write(true)
        .open(&copy)
        .and_then(|file| file.set_modified(later))
        .unwrap();
    let again = Recipe {
        program: copy,
        ..recipe(&lab)
    };
    let second = again
        .build(&lab, &place.path().join("another/way"))
        .unwrap();
    assert_eq!(fs::read(first).unwrap(), fs::read(&second).unwrap());
    // Nothing but the package stays.
    let beside = fs::read_dir(second.parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1);
}

#[test]
fn everything_belongs_to_root_and_is_as_old_as_the_tree() {
    let (lab, place) = (Lab::open().unwrap(), Place::new("owners"));
    let old = Recipe {
        time: 1_000_000_000,
        ..recipe(&lab)
    };
    let package = old.build(&lab, place.path()).unwrap();
    let mut lines = 0;
    for line in dpkg_deb(&lab, &["--contents"], &package).lines() {
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(
            (fields[1], fields[3]),
            ("root/root", "2001-09-09"),
            "{line}"
        );
        lines += 1;
    }
    assert!(lines > 40, "{lines}");
}

#[test]
fn file_and_version_are_those_of_the_tree() {
    let (lab, place) = (Lab::open().unwrap(), Place::new("version"));
    let package = recipe(&lab).build(&lab, place.path()).unwrap();
    let name = package.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("preroot_{VERSION}_")), "{name}");
    assert_eq!(
        dpkg_deb(&lab, &["--show"], &package),
        format!("preroot\t{VERSION}\n")
    );
    // The program says the same of itself, and so does the changelog.
    let said = Command::new(program()).arg("--version").output().unwrap();
    assert_eq!(said.stdout, format!("preroot {VERSION}\n").into_bytes());
    let changelog = lab.project().join("package/deb/changelog");
    let first = fs::read_to_string(changelog).unwrap();
    assert!(
        first.starts_with(&format!("preroot ({VERSION}) ")),
        "{first}"
    );
}

#[test]
fn package_has_what_install_lays_for_debians_generators() {
    let (lab, place) = (Lab::open().unwrap(), Place::new("contents"));
    let package = recipe(&lab).build(&lab, place.path()).unwrap();
    let contents = dpkg_deb(&lab, &["--contents"], &package);
    let has = |wanted: &str| {
        let mut names = contents
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5));
        names.any(|name| name.strip_prefix("./") == Some(wanted))
    };
    let generators = [Generator::Dracut, Generator::InitramfsTools];
    let root = place.path().join("root");
    for laid in lay(lab.project(), program(), &generators, &root, false).unwrap() {
        let compressed = format!("{}.gz", laid.to);
        let moved = laid
            .to
            .replace("zsh/site-functions", "zsh/vendor-completions");
        assert!(
            has(laid.to) || has(&compressed) || has(&moved),
            "{}",
            laid.to
        );
    }
    assert!(!contents.contains("initcpio") && !contents.contains("site-functions"));
    // Debian's policy has pages and changelogs compressed, and the licences not.
    for name in [
        "man/man8/preroot.8.gz",
        "doc/preroot/changelog.gz",
        "doc/preroot/copyright",
    ] {
        assert!(has(&format!("usr/share/{name}")), "{name}");
    }
}

#[test]
fn settings_of_the_example_are_taken() {
    let lab = Lab::open().unwrap();
    let example = fs::read_to_string(lab.project().join("package/preroot.conf")).unwrap();
    let mut taken = 0;
    for line in example.lines() {
        // A comment of the file has a blank behind its mark; a setting is taken out by the mark alone.
        let Some(setting) = line.strip_prefix('#').filter(|line| !line.starts_with(' ')) else {
            continue;
        };
        let (name, value) = setting.split_once(" =").unwrap();
        let value = value.split('#').next().unwrap().trim();
        let option = format!("--{name}={value}");
        let said = complaint(&option);
        // Those without a default have no value there.
        let is_missing = said.contains("needs a value") || said.contains("must be a UUID");
        assert!(
            said.is_empty() || (is_missing && value.is_empty()),
            "{setting}: {said}"
        );
        taken += usize::from(said.is_empty());
    }
    assert!(taken > 12, "{taken}");
}

#[test]
fn lintian_finds_nothing_that_is_not_explained() {
    let (lab, place) = (Lab::open().unwrap(), Place::new("lintian"));
    let package = recipe(&lab).build(&lab, place.path()).unwrap();
    let said = match trial::lintian(&lab, &package) {
        Err(fault @ Fault::Missing { .. }) => {
            let why = fault.to_string();
            assert!(super::debian::is_left_out(&why), "{why}");
            return;
        }
        said => said.unwrap(),
    };
    let unexplained: Vec<_> = said
        .iter()
        .filter(|line| !EXPLAINED.iter().any(|tag| line.contains(tag)))
        .collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
}

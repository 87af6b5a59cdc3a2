//! The completions, run in their shells: what is offered where.
//!
//! What there is to offer is the program's word: its help for commands and options, its complaint about
//! a value for the values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::fetch::{Lab, Tool};

use super::{Place, complaint, program};

type Words = BTreeSet<String>;

/// The options with values that are words, of those that a kernel argument is not alone in having.
const WITH_WORDS: usize = 10;

fn words(text: &str) -> Words {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The lines of the help that are indented by two, between these words.
fn entries(from: &str, to: &str) -> Vec<String> {
    let output = Command::new(program()).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let (_, help) = help.split_once(from).unwrap();
    let (help, _) = help.split_once(to).unwrap();
    help.lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(str::to_owned)
        .collect()
}

fn first(line: &str) -> String {
    line.split_whitespace().next().unwrap().to_owned()
}

fn commands() -> Words {
    let lines = entries("commands:", "options of provision");
    lines
        .iter()
        .filter(|line| !line.starts_with('-'))
        .map(|line| first(line))
        .collect()
}

fn options() -> Words {
    let lines = entries("options of provision", "kernel arguments");
    lines.iter().map(|line| first(line)).collect()
}

/// The values of an option, if it has a choice of words: its complaint then is a list, and no sentence.
fn values(option: &str) -> Option<Words> {
    let said = complaint(&format!("{option}=no-such-word"));
    let (_, rest) = said.split_once("its value must be ")?;
    let (rest, _) = rest.split_once(';')?;
    let (others, last) = rest.rsplit_once(" or ")?;
    let words: Vec<_> = others.split(", ").chain([last]).collect();
    let is_list = words.iter().all(|word| !word.contains(' '));
    is_list.then(|| words.into_iter().map(str::to_owned).collect())
}

/// A shell that completes.
trait Shell {
    /// What is offered for the last of these words.
    fn offer(&self, line: &[&str]) -> Words;
}

struct Bash(Tool, PathBuf);

impl Shell for Bash {
    fn offer(&self, line: &[&str]) -> Words {
        let Bash(tool, project) = self;
        let mut command = tool.command();
        command
            .args(["--norc", "--noprofile"])
            .arg(project.join("tests/lab/data/completions/offer.bash"))
            .arg(project.join("package/completions/preroot.bash"))
            .args(line);
        offered(&mut command)
    }
}

struct Zsh(Tool, PathBuf, Place);

impl Shell for Zsh {
    fn offer(&self, line: &[&str]) -> Words {
        let Zsh(tool, project, place) = self;
        let data = project.join("tests/lab/data/completions");
        let mut command = tool.command();
        command
            .arg("-f")
            .arg(data.join("offer.zsh"))
            .arg(tool.program())
            .arg(tool.tree().unwrap_or(Path::new("")))
            .arg(project.join("package/completions"))
            .arg(data.join("inner.zsh"))
            .arg(place.path().join("notes"))
            .arg(line.join(" "));
        offered(&mut command)
    }
}

struct Fish(Tool, PathBuf);

impl Shell for Fish {
    fn offer(&self, line: &[&str]) -> Words {
        let Fish(tool, project) = self;
        let mut command = tool.command();
        command.arg("--no-config");
        if let Some(tree) = tool.tree() {
            let functions = tree.join("usr/share/fish/functions");
            command.arg("--init-command");
            command.arg(format!("set fish_function_path '{}'", functions.display()));
        }
        let completion = project.join("package/completions/preroot.fish");
        command
            // It takes notes there.
            .env("HOME", env!("CARGO_TARGET_TMPDIR"))
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME")
            .args([
                "--command",
                "source $argv[1]; complete --do-complete $argv[2]",
            ])
            .arg(completion)
            .arg(line.join(" "));
        // Each line has a tab and what it is about.
        let lines = offered(&mut command);
        lines
            .iter()
            .map(|line| line.split('\t').next().unwrap().to_owned())
            .collect()
    }
}

/// Lists the lines that a command prints; it must have nothing to complain of.
fn offered(command: &mut Command) -> Words {
    let output = command.output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && complaint.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Holds for any shell what its completion has to offer.
fn completes(shell: &dyn Shell) {
    assert_eq!(shell.offer(&["preroot", "p"]), words("provision prefetch"));
    let mut all = shell.offer(&["preroot", ""]);
    // Not every shell offers options before their dashes are typed.
    all.retain(|word| !word.starts_with('-'));
    assert_eq!(all, commands());
    assert_eq!(shell.offer(&["preroot", "--"]), words("--help --version"));

    assert_eq!(shell.offer(&["preroot", "status", "--"]), words("--json"));
    assert_eq!(shell.offer(&["preroot", "init", "--"]), Words::new());
    assert_eq!(
        shell.offer(&["preroot", "report", ""]),
        words("ready failed")
    );
    for command in ["provision", "prefetch", "lease", "report ready"] {
        let mut line = vec!["preroot"];
        line.extend(command.split(' '));
        line.push("--");
        assert_eq!(shell.offer(&line), options(), "{command}");
    }
    let mut of_failed = options();
    of_failed.insert("--reason".to_owned());
    assert_eq!(
        shell.offer(&["preroot", "report", "failed", "--"]),
        of_failed
    );

    let mut with_words = 0;
    for option in options() {
        if let Some(values) = values(&option).filter(|_| option != "--dry-run") {
            let offered = shell.offer(&["preroot", "provision", &option, ""]);
            assert_eq!(offered, values, "{option}");
            with_words += 1;
        }
    }
    assert!(with_words >= WITH_WORDS, "{with_words}");

    let steps = shell.offer(&["preroot", "provision", "--steps", "keys,host"]);
    let last = |step: &String| step.rsplit(',').next().unwrap().to_owned();
    assert_eq!(
        steps.iter().map(last).collect::<Words>(),
        words("hostname hostkeys")
    );
    let directories = shell.offer(&["preroot", "provision", "--root", "/usr/b"]);
    assert!(
        directories.iter().any(|name| name.contains("bin")),
        "{directories:?}"
    );
    let interfaces = shell.offer(&["preroot", "provision", "--nic", ""]);
    assert!(interfaces.contains("lo"), "{interfaces:?}");
}

#[test]
fn program_tells_what_there_is_to_offer() {
    assert!(commands().is_superset(&words("provision status")));
    assert!(options().is_superset(&words("--root --customdata.exec --log")));
    assert_eq!(values("--ready"), Some(words("rooted early later never")));
    assert_eq!(values("--vm-id"), None);
    assert_eq!(values("--root"), None);
    assert_eq!(values("--timeout"), None);
    let steps = words("hostname user password keys sudo sshd hostkeys customdata markers");
    let all = steps
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(",");
    assert_eq!(complaint(&format!("--steps={all}")), "");
}

#[test]
fn bash_offers_what_the_program_takes() {
    let lab = Lab::open().unwrap();
    let bash = Bash(lab.tool("bash").unwrap(), lab.project().to_owned());
    completes(&bash);
    // It has an option, `=` and its value as three words.
    let line = ["preroot", "provision", "--ready", "=", "e"];
    assert_eq!(bash.offer(&line), words("early"));
    assert_eq!(bash.offer(&line[..4]), values("--ready").unwrap());
}

#[test]
fn zsh_offers_what_the_program_takes() {
    let lab = Lab::open().unwrap();
    let zsh = lab.tool("zsh").unwrap();
    let zsh = Zsh(zsh, lab.project().to_owned(), Place::new("zsh"));
    completes(&zsh);
    assert_eq!(
        zsh.offer(&["preroot", "provision", "--ready=e"]),
        words("early")
    );
}

#[test]
fn fish_offers_what_the_program_takes() {
    let lab = Lab::open().unwrap();
    let fish = Fish(lab.tool("fish").unwrap(), lab.project().to_owned());
    completes(&fish);
    let offered = fish.offer(&["preroot", "provision", "--ready=e"]);
    assert_eq!(offered, words("--ready=early"));
}

//! What the platform says, and what it makes of an installed system: a table of cases.
//!
//! A case in `tests/data/identity` is an input and, beside it, what is expected of it, written down before
//! it was tried: `NAME.xml` (the disc's document), `NAME.json` (the metadata service's) or both, and
//! `NAME.plan`. Cases share one installed system, `root/`, and one VM, day and salt. Lines of a plan file:
//!
//! * `steps LIST`: what is to be done, as in `--steps`; without it [`STEPS`].
//! * `program PATH`: an empty file, which may be run, that the root has besides.
//! * `NAME=VALUE`: one for each fact of the identity, in the order of [`facts`].
//! * `fault=TEXT`: why there is no identity, or no plan.
//! * `note=TEXT`: one for each note, in their order.
//! * `write PATH MODE OWNER`, `mkdir PATH MODE OWNER`, `remove PATH`: one for each change, in any order.
//!   Below a `write` stands how the file differs from the root's: `- LINE` is gone, `+ LINE` is new, in the
//!   order of the file; `+ ...` stands for any lines more, and `\` says that the last line has no end.
//! * `like NAME WORDS`: the lines of `like/NAME`, with the words for `$1`, `$2` and so on.
//! * `# WORDS`: why.
//!
//! Bytes that are not printable stand there as in `\xNN`; a change that is not listed fails the case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use preroot::engine::identity::Identity;
use preroot::engine::plan::{
    Act, Action, Change, Context, Kind, Output, Plan, RootFault, RootView, Settings, Stat, Steps,
    plan,
};
use preroot::wire::ovf::Password;
use preroot::wire::{imds, ovf};

/// What is done in a case that does not say.
const STEPS: &str = "hostname,user,password,keys,sudo,customdata";

const VM: &str = "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf";
/// 2025-11-22.
const TODAY: u32 = 20_414;
/// Makes the salt `ABCDEFGHIJKLMNOP`.
const SALT: [u8; 16] = [
    12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
];
/// Thirty-two bytes that are not random.
const HOST_KEY_SEED: [u8; 32] = [3; 32];

/// What in the root does not look as the files of a checkout do, and directories with nothing in them.
const LOOKS: [(&str, u32, (u32, u32)); 12] = [
    ("/etc/gshadow", 0o640, (0, 42)),
    ("/etc/shadow", 0o640, (0, 42)),
    ("/etc/ssh/sshd_config.d", 0o755, (0, 0)),
    ("/etc/sudoers", 0o440, (0, 0)),
    ("/etc/sudoers.d", 0o750, (0, 0)),
    ("/etc/sudoers.d/README", 0o440, (0, 0)),
    ("/home/resident", 0o700, (1000, 1000)),
    ("/home/resident/.profile", 0o644, (1000, 1000)),
    ("/home/resident/.ssh", 0o700, (1000, 1000)),
    ("/home/resident/.ssh/authorized_keys", 0o600, (1000, 1000)),
    ("/var", 0o755, (0, 0)),
    ("/var/lib", 0o755, (0, 0)),
];

/// A file with its content, or a directory.
#[derive(Clone)]
struct Node {
    content: Option<Vec<u8>>,
    mode: u32,
    owner: (u32, u32),
}

/// An installed system that is only a map.
#[derive(Clone, Default)]
struct Root(BTreeMap<String, Node>);

impl Root {
    /// Loads a folder.
    fn load(folder: &Path) -> Self {
        let mut root = Self::default();
        root.put("/", None, 0o755);
        let mut pending = vec![folder.to_path_buf()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let from = entry.unwrap().path();
                let path = format!("/{}", from.strip_prefix(folder).unwrap().display());
                if from.is_dir() {
                    root.put(&path, None, 0o755);
                    pending.push(from);
                } else {
                    let runs = fs::metadata(&from).unwrap().permissions().mode() & 0o100 != 0;
                    let mode = if runs { 0o755 } else { 0o644 };
                    root.put(&path, Some(fs::read(from).unwrap()), mode);
                }
            }
        }
        for (path, mode, owner) in LOOKS {
            if !root.0.contains_key(path) {
                root.put(path, None, mode);
            }
            let node = root.0.get_mut(path).unwrap();
            (node.mode, node.owner) = (mode, owner);
        }
        root
    }

    fn put(&mut self, path: &str, content: Option<Vec<u8>>, mode: u32) {
        let owner = (0, 0);
        let node = Node {
            content,
            mode,
            owner,
        };
        self.0.insert(path.into(), node);
    }

    /// Adds an empty file that may be run, with the directories above it.
    fn add_program(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').skip(1) {
            if !self.0.contains_key(&path[..at]) {
                self.put(&path[..at], None, 0o755);
            }
        }
        self.put(path, Some(Vec::new()), 0o755);
    }

    fn apply(&mut self, change: &Change) {
        let content = match &change.action {
            Action::Write(content) => Some(content.to_vec()),
            Action::Directory => None,
            Action::Remove => {
                self.0.remove(&change.path);
                return;
            }
        };
        self.put(&change.path, content, change.mode);
        self.0.get_mut(&change.path).unwrap().owner = change.owner;
    }
}

fn fault(act: Act) -> RootFault {
    RootFault { act, errno: 0 }
}

impl RootView for Root {
    fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, RootFault> {
        let Some(node) = self.0.get(path) else {
            return Ok(None);
        };
        let content = node.content.as_ref().ok_or(fault(Act::WrongKind))?;
        if content.len() > limit {
            return Err(fault(Act::ReadLarge));
        }
        Ok(Some(content.clone()))
    }

    fn stat(&self, path: &str) -> Result<Option<Stat>, RootFault> {
        Ok(self.0.get(path).map(|node| Stat {
            kind: if node.content.is_some() {
                Kind::File
            } else {
                Kind::Directory
            },
            mode: node.mode,
            owner: node.owner,
            size: node.content.as_ref().map_or(0, Vec::len) as u64,
            device: 1,
        }))
    }

    fn is_link(&self, _: &str) -> Result<bool, RootFault> {
        Ok(false)
    }

    fn target(&self, _: &str) -> Result<Option<String>, RootFault> {
        Ok(None)
    }

    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) -> Result<(), RootFault> {
        for path in self.0.keys() {
            let below = path.strip_prefix(directory).unwrap_or_default();
            if let Some(name) = below.strip_prefix('/')
                && !name.contains('/')
            {
                each(name);
            }
        }
        Ok(())
    }
}

/// Shows bytes in one line: what is not printable is spelled out.
fn shown(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        match byte {
            b' '..=b'~' => out.push((*byte).into()),
            byte => write!(out, "\\x{byte:02x}").unwrap(),
        }
        out
    })
}

/// Splits a file into shown lines, and tells whether the last of them has its end.
fn lines(content: &[u8]) -> (Vec<String>, bool) {
    let whole = content.is_empty() || content.ends_with(b"\n");
    let content = content.strip_suffix(b"\n").unwrap_or(content);
    let lines = content.split(|byte| *byte == b'\n').map(shown);
    // No byte is no line, not an empty one.
    (lines.filter(|_| !content.is_empty()).collect(), whole)
}

/// Takes the lines of `others` out of `lines`, each as often as it is there.
fn without(lines: &[String], others: &[String]) -> Vec<String> {
    let mut others = others.to_vec();
    let mut left = lines.to_vec();
    left.retain(|line| match others.iter().position(|other| other == line) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    });
    left
}

/// Tells each fact of an identity, those that are as on most machines left out at the end.
fn facts(identity: &Identity) -> Vec<String> {
    let yes = |flag| if flag { "yes" } else { "no" };
    let mut facts = vec![format!("host={}", identity.host_name)];
    if let Some(admin) = &identity.admin {
        facts.push(format!("user={admin}"));
    }
    facts.push(match &identity.password {
        Password::None => "password=none".into(),
        Password::Redacted => "password=redacted".into(),
        Password::Given(secret) => format!("password={}", shown(secret.expose())),
    });
    facts.push(format!(
        "ssh-password={}",
        yes(identity.password_authentication)
    ));
    for key in &identity.keys.accepted {
        facts.push(format!("key={}", key.line()));
    }
    for (position, refusal) in &identity.keys.refused {
        facts.push(format!("refused={position} {refusal}"));
    }
    if let Some(data) = &identity.custom_data {
        facts.push(match data.decode() {
            Some(bytes) => format!("custom-data={}", shown(bytes.expose())),
            None => "custom-data=<undecodable>".into(),
        });
    }
    if identity.custom_data_missing {
        facts.push("custom-data-missing=yes".into());
    }
    if !identity.guest_agent {
        facts.push("guest-agent=no".into());
    }
    if identity.guest_proxy_agent {
        facts.push("guest-proxy-agent=yes".into());
    }
    facts
}

/// A path's change: its head line, and for a file how it differs.
#[derive(Default, PartialEq, Debug)]
struct Difference {
    head: String,
    gone: Vec<String>,
    new: Vec<String>,
    /// The last line has no end.
    endless: bool,
    /// There may be more new lines.
    more: bool,
}

impl Difference {
    /// Compares what a change makes of its path with what the root has there.
    fn of(change: &Change, root: &Root) -> Self {
        let (verb, content) = match &change.action {
            Action::Write(content) => ("write", &content[..]),
            Action::Directory => ("mkdir", &b""[..]),
            Action::Remove => ("remove", &b""[..]),
        };
        let (user, group) = change.owner;
        let (path, mode) = (&change.path, change.mode);
        let old = root.0.get(path).and_then(|node| node.content.as_deref());
        let old = lines(old.unwrap_or_default()).0;
        let (new, whole) = lines(content);
        let mut difference = Self {
            head: format!("{verb} {path} {mode:04o} {user}:{group}"),
            ..Self::default()
        };
        match change.action {
            Action::Remove => difference.head = format!("{verb} {path}"),
            Action::Directory => {}
            Action::Write(_) => {
                difference.gone = without(&old, &new);
                difference.new = without(&new, &old);
                difference.endless = !whole;
            }
        }
        difference
    }

    /// Tells whether another is what this, taken from a plan file, allows.
    fn allows(&self, other: &Self) -> bool {
        let mut new = other.new.iter();
        let all = self.new.iter().all(|line| new.any(|found| found == line));
        self.head == other.head
            && self.gone == other.gone
            && self.endless == other.endless
            && all
            && (self.more || self.new.len() == other.new.len())
    }

    fn show(&self, out: &mut String) {
        writeln!(out, "{}", self.head).unwrap();
        for (sign, lines) in [("-", &self.gone), ("+", &self.new)] {
            for line in lines {
                writeln!(out, "{sign} {line}").unwrap();
            }
        }
        if self.endless {
            out.push_str("\\\n");
        }
    }
}

/// What a plan file says.
#[derive(Default)]
struct Expected {
    steps: Option<String>,
    programs: Vec<String>,
    facts: Vec<String>,
    notes: Vec<String>,
    fault: Option<String>,
    changes: Vec<Difference>,
}

impl Expected {
    fn load(file: &Path, words: &[&str], expected: &mut Self) {
        let mut text =
            fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for (place, word) in (1..).zip(words) {
            text = text.replace(&format!("${place}"), word);
        }
        for line in text.lines() {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            let last = expected.changes.last_mut();
            match (first, last) {
                ("" | "#", _) => {}
                ("steps", _) => expected.steps = Some(rest.into()),
                ("program", _) => expected.programs.push(rest.into()),
                ("write" | "mkdir" | "remove", _) => expected.changes.push(Difference {
                    head: line.into(),
                    ..Difference::default()
                }),
                ("+", Some(last)) if rest == "..." => last.more = true,
                ("+", Some(last)) => last.new.push(rest.into()),
                ("-", Some(last)) => last.gone.push(rest.into()),
                ("\\", Some(last)) => last.endless = true,
                ("like", _) => {
                    let words: Vec<_> = rest.split(' ').collect();
                    Self::load(&folder().join("like").join(words[0]), &words[1..], expected);
                }
                _ => match line.split_once('=') {
                    Some(("fault", text)) => expected.fault = Some(text.into()),
                    Some(("note", text)) => expected.notes.push(text.into()),
                    Some(_) => expected.facts.push(line.into()),
                    None => panic!("{}: what is '{line}'?", file.display()),
                },
            }
        }
    }
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/identity")
}

/// Reads the documents of a case as the program does: without a usable answer of the service, the disc
/// alone counts.
fn identity(stem: &Path) -> Result<Identity, String> {
    let read = |extension| fs::read(stem.with_extension(extension)).ok();
    let disc = read("xml").map(|document| ovf::parse(&document));
    let metadata = read("json").map(|document| imds::parse(&document));
    match (disc, metadata) {
        (None, None) => panic!("{} has no document", stem.display()),
        (Some(Err(fault)), _) => Err(fault.to_string()),
        (None, Some(Err(fault))) => Err(fault.to_string()),
        (disc, metadata) => Identity::new(disc.and_then(Result::ok), metadata.and_then(Result::ok))
            .map_err(|fault| fault.to_string()),
    }
}

fn planned(identity: &Identity, root: &Root, steps: Steps) -> Result<Plan, String> {
    let context = Context {
        vm_id: VM,
        today_days: TODAY,
        host_key_seed: Some(&HOST_KEY_SEED),
        salt: SALT,
        steps,
        settings: Settings::DEFAULT,
        output: Output::Files,
    };
    plan(identity, root, &context).map_err(|fault| fault.to_string())
}

/// Tries a case and tells what is wrong.
fn try_case(stem: &Path, root: &Root) -> String {
    let mut expected = Expected::default();
    Expected::load(&stem.with_extension("plan"), &[], &mut expected);
    let steps = Steps::parse(expected.steps.as_deref().unwrap_or(STEPS)).unwrap();
    let mut root = root.clone();
    for path in &expected.programs {
        root.add_program(path);
    }

    let mut wrong = String::new();
    let mut compare = |what: &str, wanted: &[String], found: &[String]| {
        if wanted != found {
            let (wanted, found) = (wanted.join("\n"), found.join("\n"));
            writeln!(wrong, "{what} expected\n{wanted}\nbut was\n{found}").unwrap();
        }
    };
    let fault = |fault: Option<&String>| fault.cloned().into_iter().collect::<Vec<_>>();
    let identity = identity(stem);
    let known = identity.as_ref().map(facts).unwrap_or_default();
    compare("facts", &expected.facts, &known);
    let planned = identity
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|identity| planned(identity, &root, steps));
    let (wanted, found) = (
        fault(expected.fault.as_ref()),
        fault(planned.as_ref().err()),
    );
    compare("fault", &wanted, &found);
    let (Ok(identity), Ok(plan)) = (&identity, &planned) else {
        assert!(
            expected.changes.is_empty(),
            "{} expects both",
            stem.display()
        );
        return wrong;
    };
    let notes: Vec<_> = plan.notes.iter().map(ToString::to_string).collect();
    compare("notes", &expected.notes, &notes);

    let mut wanted = expected.changes;
    for change in &plan.changes {
        let difference = Difference::of(change, &root);
        if let Some(at) = wanted.iter().position(|wanted| wanted.allows(&difference)) {
            wanted.swap_remove(at);
        } else {
            wrong.push_str("not expected: ");
            difference.show(&mut wrong);
        }
    }
    for difference in &wanted {
        wrong.push_str("expected: ");
        difference.show(&mut wrong);
    }

    // The plan as a person sees it is no place for the password.
    if let Password::Given(secret) = &identity.password {
        let (told, password) = (plan.to_string(), secret.expose_text());
        let is_there = told.contains(password) && !password.trim().is_empty();
        assert!(!is_there, "{told}");
    }
    // Whoever does the same again has nothing to do.
    for change in &plan.changes {
        root.apply(change);
    }
    let again = self::planned(identity, &root, steps).map(|plan| plan.changes);
    if !again.as_ref().is_ok_and(Vec::is_empty) {
        let again: Vec<_> = again.iter().flatten().map(ToString::to_string).collect();
        writeln!(wrong, "once more: {}", again.join("\n")).unwrap();
    }
    wrong
}

#[test]
fn each_case_gives_the_identity_and_the_plan_beside_it() {
    let mut stems = BTreeSet::new();
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            stems.insert(path.with_extension(""));
        }
    }
    assert!(stems.len() >= 100, "{} cases", stems.len());
    let root = Root::load(&folder().join("root"));
    let mut wrong = String::new();
    for stem in stems {
        let found = try_case(&stem, &root);
        if !found.is_empty() {
            let name = stem.file_name().unwrap().to_string_lossy();
            write!(wrong, "\n{name}: {found}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

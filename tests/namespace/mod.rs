//! Tests that run themselves again in namespaces of their own (`unshare` of util-linux).
//!
//! What a test does there never touches the machine's network, mounts or users. Where the namespaces
//! cannot be made a test is skipped with a word, unless `CI` or `PREROOT_STRICT` is set: then it fails.

use std::any::type_name;
use std::env;
use std::io::{self, Write as _};
use std::process::Command;
use std::sync::OnceLock;

const INSIDE: &str = "PREROOT_TEST_INSIDE";
/// What the line begins with that says why a test does nothing.
const SKIPPED: &str = "skipped: ";
/// Whether the namespaces can be made: it is the same for all tests of a program, and not free to know.
static PROBE: OnceLock<Result<(), String>> = OnceLock::new();

/// Hands `body`, a closure of the test's own, to `enter` in the namespaces that these options of
/// `unshare` make.
///
/// A network is always among them; all tests of one program ask for the same.
pub(crate) fn run<F>(options: &[&str], body: F, enter: impl FnOnce(F)) {
    let test = name_of::<F>();
    if env::var(INSIDE).is_ok_and(|inside| inside == test) {
        return enter(body);
    }
    if let Err(refusal) = PROBE.get_or_init(|| probe(options)) {
        assert!(
            !is_strict(),
            "no namespace with a veth pair to be had: {refusal}"
        );
        skipped(&format!("{test}: no namespace with a veth pair to be had"));
        return;
    }
    let output = unshare(options)
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, test)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    // A name that is not the test's runs nothing at all, with success.
    let passed = output.status.success() && said.contains("1 passed");
    assert!(passed, "{test} in its namespace: {said}{complained}");
    for why in complained
        .lines()
        .filter_map(|line| line.strip_prefix(SKIPPED))
    {
        skipped(&format!("{test}: {why}"));
    }
}

/// Says why a test does nothing, past the test harness, which would keep it to itself.
pub(crate) fn skipped(why: &str) {
    let _ = writeln!(io::stderr(), "{SKIPPED}{why}");
}

/// Runs `ip` of iproute2.
pub(crate) fn ip(command: &str) {
    let output = Command::new("ip")
        .args(command.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "ip {command}: {output:?}");
}

/// Tells whether a test that cannot run has failed.
pub(crate) fn is_strict() -> bool {
    ["CI", "PREROOT_STRICT"]
        .iter()
        .any(|name| env::var_os(name).is_some())
}

/// Takes the test's name, as the harness has it, from the path of its closure.
fn name_of<F>() -> &'static str {
    let path = type_name::<F>();
    let path = path.split_once("::").map_or(path, |(_, path)| path);
    path.split_once("::{{closure}}")
        .map_or(path, |(test, _)| test)
}

fn probe(options: &[&str]) -> Result<(), String> {
    let output = unshare(options)
        .args(["ip", "link", "add", "name", "probe", "type", "veth"])
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

fn unshare(options: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(options).arg("--");
    // Where `ip` is, on systems that hide it from users.
    let path = env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

//! What a good boot must show, point by point, and whether this one showed it.
//!
//! It compares the words of the real init with the document on the disc, and takes the platform's
//! word for what was reported. It looks at nothing else, least of all at what the product says of
//! itself.

use core::fmt;

use crate::expected::Expected;
use crate::platform::{Platform, Verdict};
use crate::qemu::Exit;
use crate::words::Words;

/// One thing that a good boot must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it must be.
    pub passed: bool,
    /// What was seen, and what was expected where that differs.
    pub detail: String,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.passed { "ok  " } else { "FAIL" };
        write!(f, "{verdict} {:<12} {}", self.name, self.detail)
    }
}

/// What the platform has to say about the machine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Testimony {
    verdict: Verdict,
    heard: bool,
    complaints: Vec<String>,
}

impl Testimony {
    /// Asks the platform.
    pub(crate) fn of(platform: &Platform) -> Self {
        Self {
            verdict: platform.verdict(),
            heard: platform.first_frame().is_some(),
            complaints: platform.complaints().map(str::to_owned).collect(),
        }
    }
}

/// Compares what was said with what must have been.
pub(crate) fn judge(
    words: &Words,
    exit: &Exit,
    expected: Option<&Expected>,
    platform: Option<&Testimony>,
    own_root: bool,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut check = |name, passed, detail: String| {
        checks.push(Check {
            name,
            passed,
            detail,
        });
    };
    // Another root disk has another init, which says nothing to us and may run for ever.
    if own_root || words.began {
        let (passed, detail) = match (words.began, words.ended) {
            (true, true) => (
                true,
                format!("started after {} s", words.fact("uptime").unwrap_or("?")),
            ),
            (true, false) => (false, "started, but did not come to its end".to_owned()),
            (false, _) => (false, "never started".to_owned()),
        };
        check("real init", passed, detail);
        let missing: Vec<_> = words.facts("missing").collect();
        if !missing.is_empty() {
            check(
                "hand-over",
                false,
                format!("the real init had to make up for: {}", missing.join(", ")),
            );
        }
        let left: Vec<_> = words.facts("process").collect();
        if !left.is_empty() {
            check(
                "hand-over",
                false,
                format!("processes left behind: {}", left.join(", ")),
            );
        }
        if let Some(expected) = expected {
            judge_identity(words, expected, &mut check);
        }
        if words.lines("visudo").next().is_some() {
            let said: Vec<_> = words.lines("visudo").collect();
            check("sudoers", false, said.join("; "));
        }
    }
    let ended = match exit {
        Exit::PoweredOff => (true, "powered off by its init".to_owned()),
        Exit::Restarted => (false, "the guest restarted".to_owned()),
        Exit::Panicked => (false, "the guest's kernel gave up".to_owned()),
        Exit::TimedOut if own_root => (
            false,
            "out of time; --timeout SECONDS gives more".to_owned(),
        ),
        Exit::TimedOut => (true, "ended at the time limit".to_owned()),
        Exit::Stopped => (true, "ended by its watcher".to_owned()),
        Exit::Failed(why) => (false, format!("the emulator failed: {why}")),
    };
    check("machine", ended.0, ended.1);
    judge_platform(platform, &mut check);
    checks
}

/// Compares the machine's identity with the document's.
fn judge_identity(
    words: &Words,
    expected: &Expected,
    check: &mut impl FnMut(&'static str, bool, String),
) {
    let seen = |name| words.fact(name).unwrap_or("nothing").to_owned();
    for (name, fact) in [
        ("host name", "kernel_hostname"),
        ("/etc/hostname", "hostname"),
    ] {
        let seen = seen(fact);
        let passed = seen == expected.host_name;
        let wanted = if passed {
            String::new()
        } else {
            format!(", not {}", expected.host_name)
        };
        check(name, passed, format!("{seen}{wanted}"));
    }
    if expected.user.is_empty() {
        return;
    }
    let entry = seen("passwd");
    let passed = entry.split(':').next() == Some(&expected.user);
    let wanted = if passed {
        String::new()
    } else {
        format!(", not a line of {}", expected.user)
    };
    check("admin user", passed, format!("{entry}{wanted}"));
    for wanted in expected.fingerprints() {
        // 256 SHA256:... comment (ED25519)
        let found = words
            .facts("key")
            .find(|key| key.split(' ').any(|word| word == wanted));
        let detail = found.map_or_else(|| format!("{}, not {wanted}", seen("key")), str::to_owned);
        check("key", found.is_some(), detail);
    }
    let rule = words
        .lines("sudo")
        .find(|rule| rule.split_whitespace().next() == Some(&expected.user));
    check(
        "sudo rule",
        rule.is_some(),
        rule.unwrap_or("none for the user").to_owned(),
    );
}

/// Takes the platform's own word.
fn judge_platform(
    platform: Option<&Testimony>,
    check: &mut impl FnMut(&'static str, bool, String),
) {
    let Some(platform) = platform else {
        check(
            "platform",
            false,
            "there is none (scenario none)".to_owned(),
        );
        return;
    };
    let detail = match &platform.verdict {
        Verdict::Ready => "accepted Ready".to_owned(),
        Verdict::Creating if !platform.heard => "heard nothing at all".to_owned(),
        Verdict::Creating => "heard no report".to_owned(),
        Verdict::Failed { description } => format!("was told that it failed: {description}"),
    };
    check("platform", platform.verdict == Verdict::Ready, detail);
    for complaint in &platform.complaints {
        check("protocol", false, complaint.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::boot::DOCUMENT;

    const GOOD: &str = "@@ begin\n@@ uptime=4.20\n@@ kernel_hostname=vm-desk01\n\
        @@ hostname=vm-desk01\n@@ passwd=deskadmin:x:1000:1000::/home/deskadmin:/bin/bash\n\
        @@ key=256 SHA256:S27PnUB9LnhPECQ+8xAZxrEc5C17vDKJd6XQSrol3p4 desk@lab (ED25519)\n\
        @@ sudo: deskadmin ALL=(ALL) NOPASSWD: ALL\n@@ visudo=ok\n@@ end\n";

    fn failed_with(console: &str, exit: &Exit, platform: &Testimony) -> Vec<&'static str> {
        let expected = Expected::parse(DOCUMENT, Path::new("x")).unwrap();
        judge(
            &Words::parse(console),
            exit,
            Some(&expected),
            Some(platform),
            true,
        )
        .into_iter()
        .filter(|check| !check.passed)
        .map(|check| check.name)
        .collect()
    }

    fn ready() -> Testimony {
        Testimony {
            verdict: Verdict::Ready,
            heard: true,
            complaints: Vec::new(),
        }
    }

    fn failed(console: &str, exit: &Exit) -> Vec<&'static str> {
        failed_with(console, exit, &ready())
    }

    #[test]
    fn boot_that_did_everything_passes() {
        assert!(failed(GOOD, &Exit::PoweredOff).is_empty());
    }

    #[test]
    fn every_missing_step_is_named() {
        let cases = [
            ("@@ kernel_hostname=vm-desk01\n", "host name"),
            ("@@ hostname=vm-desk01\n", "/etc/hostname"),
            (
                "@@ passwd=deskadmin:x:1000:1000::/home/deskadmin:/bin/bash\n",
                "admin user",
            ),
            (
                "@@ key=256 SHA256:S27PnUB9LnhPECQ+8xAZxrEc5C17vDKJd6XQSrol3p4 desk@lab (ED25519)\n",
                "key",
            ),
            ("@@ sudo: deskadmin ALL=(ALL) NOPASSWD: ALL\n", "sudo rule"),
            ("@@ end\n", "real init"),
        ];
        for (line, name) in cases {
            assert!(GOOD.contains(line));
            let console = GOOD.replace(line, "");
            assert_eq!(failed(&console, &Exit::PoweredOff), [name]);
        }
    }

    #[test]
    fn wrong_host_name_user_or_key_fails() {
        for (right, wrong, name) in [
            (
                "kernel_hostname=vm-desk01",
                "kernel_hostname=vm-desk011",
                "host name",
            ),
            ("passwd=deskadmin:", "passwd=deskadmin2:", "admin user"),
            ("SHA256:S27P", "SHA256:S27Q", "key"),
            ("sudo: deskadmin ", "sudo: deskadmin2 ", "sudo rule"),
            ("visudo=ok", "visudo: parse error", "sudoers"),
        ] {
            let console = GOOD.replace(right, wrong);
            assert_eq!(failed(&console, &Exit::PoweredOff), [name]);
        }
    }

    #[test]
    fn platform_that_heard_no_ready_fails_the_boot() {
        let gave_up = Verdict::Failed {
            description: "no disc".to_owned(),
        };
        for verdict in [Verdict::Creating, gave_up] {
            let said = Testimony { verdict, ..ready() };
            assert_eq!(failed_with(GOOD, &Exit::PoweredOff, &said), ["platform"]);
        }
    }

    #[test]
    fn complaint_of_the_platform_fails_the_boot_even_after_ready() {
        let said = Testimony {
            complaints: vec!["no x-ms-version".to_owned()],
            ..ready()
        };
        assert_eq!(failed_with(GOOD, &Exit::PoweredOff, &said), ["protocol"]);
    }

    #[test]
    fn boot_without_a_platform_does_not_pass() {
        let checks = judge(&Words::parse(GOOD), &Exit::PoweredOff, None, None, true);
        assert!(
            checks
                .iter()
                .any(|check| check.name == "platform" && !check.passed)
        );
    }

    #[test]
    fn machine_that_did_not_power_off_fails_the_boot() {
        for exit in [
            Exit::TimedOut,
            Exit::Panicked,
            Exit::Restarted,
            Exit::Failed(String::new()),
        ] {
            assert_eq!(failed(GOOD, &exit), ["machine"]);
        }
    }

    #[test]
    fn process_left_behind_and_missing_mount_fail_the_hand_over() {
        for line in ["@@ process=/init\n", "@@ missing=/run\n"] {
            let console = GOOD.replace("@@ end\n", &format!("{line}@@ end\n"));
            assert_eq!(failed(&console, &Exit::PoweredOff), ["hand-over"]);
        }
    }
}

//! Security labels of what is written: what a running `SELinux` would give it.
//!
//! No policy is loaded yet when we write, so the kernel gives new files none, and a system that enforces
//! its policy refuses a login over `unlabeled_t`. A file that is replaced hands its label on. A new one
//! gets the label of the root's own `file_contexts` before it takes its name. Where that fails, a
//! line of tmpfiles.d(5) below `/run` asks for it: systemd-tmpfiles reads it on Fedora and Debian alike,
//! and so does `OpenRC`'s, early in the same boot. Not `/.autorelabel`, which would go through the whole
//! disk and boot twice for a few files of which we know the names. Follows ignition and afterburn.
//!
//! Nothing of this is done where `/etc/selinux/config` is missing or says `disabled`.

use alloc::string::String;
use core::ffi::CStr;

use rustix::fd::{AsFd as _, BorrowedFd};
use rustix::fs::{self, XattrFlags};
use rustix::io::Errno;

use super::apply::ACCOUNT_LOCK;
use super::{FILE_FLAGS, Root};
use crate::engine::plan::{Action, Plan, RootView as _};
use crate::linux::content;
use crate::wire::accounts;
use crate::wire::file_contexts::{self, CONTEXTS, Label, Lookup, SUBSTITUTIONS};

/// The extended attribute that holds the label.
pub(super) const LABEL: &CStr = c"security.selinux";
/// Longest label; the kernel's own have half of that.
const LABEL_MAX: usize = 256;

const CONFIG: &str = "/etc/selinux/config";
const CONFIG_MAX: usize = 64 * 1024;
/// Longest line of a policy that is read; it is read in pieces of this size.
const LINE_MAX: usize = 4096;
/// Most pieces that are read of one file; Fedora's largest has half a MiB.
const PIECES_MAX: u32 = 2048;

/// What gives a new file its label.
pub(super) enum Labels {
    /// Nothing: the root has no use for labels.
    None,
    /// Its directory, as in a kernel whose policy does not say otherwise; where that has none, so has the
    /// file, and `/run` is given its labels by whoever loads the policy.
    Parent,
    /// The root's policy.
    Policy(Lookup),
}

impl Labels {
    /// Labels what change number `index` has opened; tells whether nothing remains to be asked for.
    pub(super) fn set(&self, index: usize, fd: BorrowedFd<'_>, parent: BorrowedFd<'_>) -> bool {
        self.put(index, fd, parent) || matches!(self, Labels::Parent)
    }

    /// The same; tells whether the label is what it should be.
    fn put(&self, index: usize, fd: BorrowedFd<'_>, parent: BorrowedFd<'_>) -> bool {
        let mut value = [0_u8; LABEL_MAX];
        let label = match self {
            Labels::None => return true,
            Labels::Parent => Label::Unknown,
            Labels::Policy(lookup) => lookup.label(index),
        };
        let length = match label {
            Label::None => return true,
            Label::Context(context) if context.len() < LABEL_MAX => {
                value[..context.len()].copy_from_slice(context);
                // libselinux counts the NUL at the end.
                context.len() + 1
            }
            Label::Context(_) | Label::Unknown => match fs::fgetxattr(parent, LABEL, &mut value) {
                Ok(length) if length > 0 => length,
                // A label of no bytes would be one that no policy knows.
                parent => return parent == Err(Errno::OPNOTSUPP),
            },
        };
        let done = match fs::fsetxattr(fd, LABEL, &value[..length], XattrFlags::empty()) {
            // On a file system without labels there is nothing to be had later either.
            Err(Errno::OPNOTSUPP) => return true,
            done => done.is_ok(),
        };
        done && matches!(label, Label::Context(_))
    }
}

/// Tells whether something has a label.
pub(super) fn has_label(fd: BorrowedFd<'_>) -> bool {
    let mut value = [0_u8; LABEL_MAX];
    fs::fgetxattr(fd, LABEL, &mut value).is_ok()
}

/// Asks systemd-tmpfiles for the label of a path.
pub(super) fn request(lines: &mut String, path: &str) {
    // Its patterns, specifiers and escapes; no path of ours has them.
    if !path.contains(['"', '\\', '%', '*', '?', '[', '{', '\n']) {
        lines.push_str("z \"");
        lines.push_str(path);
        lines.push_str("\" - - -\n");
    }
}

impl Root {
    /// Looks up the labels of everything in a plan, and behind them that of the account files' lock.
    #[inline(never)]
    pub(super) fn labels(&self, plan: &Plan) -> Labels {
        let config = self.read(CONFIG, CONFIG_MAX).ok().flatten();
        let config = config.unwrap_or_default();
        let Some(policy) = file_contexts::policy(&config).filter(|_| !plan.is_empty()) else {
            return Labels::None;
        };
        let mut lookup = Lookup::default();
        for change in &plan.changes {
            lookup.want(
                change.path.trim_end_matches('/'),
                matches!(change.action, Action::Directory),
            );
        }
        lookup.want(ACCOUNT_LOCK, false);
        let file = |suffix| {
            [
                "/etc/selinux/",
                policy,
                "/contexts/files/file_contexts",
                suffix,
            ]
            .concat()
        };
        let mut whole = true;
        for suffix in SUBSTITUTIONS {
            whole &= self.each_line(&file(suffix), &mut |line| lookup.take_substitution(line));
            lookup.substitute();
        }
        for suffix in CONTEXTS {
            whole &= self.each_line(&file(suffix), &mut |line| lookup.take(line));
        }
        // Of half a policy the wrong line would be the last one that fits.
        Labels::Policy(if whole { lookup } else { Lookup::default() })
    }

    /// Shows every line of a file, which may be none; tells whether that was all of it.
    #[inline(never)]
    fn each_line(&self, path: &str, each: &mut dyn FnMut(&[u8])) -> bool {
        let fd = match self.open_in(path, FILE_FLAGS) {
            Ok(fd) => fd,
            Err(errno) => return errno == Errno::NOENT,
        };
        let mut buffer = alloc::vec![0; LINE_MAX];
        let mut kept = 0;
        for _ in 0..PIECES_MAX {
            let Ok(more) = content::read(fd.as_fd(), &mut buffer[kept..]) else {
                return false;
            };
            let more = more.len();
            let filled = kept + more;
            let bytes = &buffer[..filled];
            // What follows the last line break is the beginning of a line, or the last line.
            let end = match bytes.iter().rposition(|&byte| byte == b'\n') {
                Some(last) => last + 1,
                None if filled < LINE_MAX => filled,
                // Too long for any line that says something.
                None => return false,
            };
            accounts::lines(&bytes[..end]).for_each(&mut *each);
            if more == 0 {
                return true;
            }
            buffer.copy_within(end..filled, 0);
            kept = filled - end;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::Root;
    use super::*;
    use crate::engine::plan::{Change, Plan};
    use std::path::{Path, PathBuf};
    use std::string::ToString as _;
    use std::vec::Vec;
    use std::{env, format, fs as host, process};

    /// A root with the rules of a real distribution.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str, config: &str) -> Self {
            let path = env::temp_dir().join(format!("preroot-labels-{name}-{}", process::id()));
            let files = path.join("etc/selinux/targeted/contexts/files");
            host::create_dir_all(&files).unwrap();
            host::create_dir_all(path.join("home")).unwrap();
            host::write(path.join("etc/selinux/config"), config).unwrap();
            let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/selinux/fedora");
            for entry in host::read_dir(data).unwrap() {
                let from = entry.unwrap().path();
                host::copy(&from, files.join(from.file_name().unwrap())).unwrap();
            }
            Self(path)
        }

        fn rules(&self) -> PathBuf {
            self.0
                .join("etc/selinux/targeted/contexts/files/file_contexts")
        }

        fn apply(&self, changes: Vec<Change>) -> String {
            let root = Root::open_unowned(self.0.to_str().unwrap()).unwrap();
            let plan = Plan {
                changes,
                ..Plan::default()
            };
            root.apply(&plan).unwrap().relabel
        }

        fn label(&self, path: &str) -> String {
            let path = self.0.join(path.trim_start_matches('/'));
            let mut value = [0; LABEL_MAX];
            let length = fs::lgetxattr(path.to_str().unwrap(), LABEL, &mut value).unwrap_or(0);
            String::from_utf8_lossy(&value[..length]).to_string()
        }

        /// Labels a file; tells whether whoever runs the test may.
        fn set_label(&self, path: &str, label: &str) -> bool {
            let path = self.0.join(path.trim_start_matches('/'));
            let path = path.to_str().unwrap();
            fs::lsetxattr(path, LABEL, label.as_bytes(), XattrFlags::empty()).is_ok()
        }

        fn may_label(&self) -> bool {
            let may = self.set_label("etc/selinux", "x");
            if !may {
                assert!(env::var_os("CI").is_none(), "no labels here");
            }
            may
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = host::remove_dir_all(&self.0);
        }
    }

    fn change(path: &str, action: Action) -> Change {
        Change {
            path: path.into(),
            trusted: path.len(),
            owner: (0, 0),
            mode: 0o700,
            action,
            purpose: String::new(),
        }
    }

    fn changes() -> Vec<Change> {
        let file = || Action::Write(b"x\n".to_vec().into());
        Vec::from([
            change("/etc/hostname", file()),
            change("/home/ops", Action::Directory),
            change("/home/ops/.ssh", Action::Directory),
            change("/home/ops/.ssh/authorized_keys", file()),
            change("/etc/shadow", file()),
        ])
    }

    const ON: &str = "SELINUX=enforcing\nSELINUXTYPE=targeted\n";

    #[test]
    fn new_files_and_directories_get_the_labels_of_the_policy() {
        let scratch = Scratch::new("new", ON);
        if !scratch.may_label() {
            return;
        }
        assert_eq!(scratch.apply(changes()), "");
        for (path, label) in [
            ("/etc/hostname", "system_u:object_r:hostname_etc_t:s0\0"),
            ("/home/ops", "unconfined_u:object_r:user_home_dir_t:s0\0"),
            ("/home/ops/.ssh", "unconfined_u:object_r:ssh_home_t:s0\0"),
            (
                "/home/ops/.ssh/authorized_keys",
                "unconfined_u:object_r:ssh_home_t:s0\0",
            ),
            ("/etc/shadow", "system_u:object_r:shadow_t:s0\0"),
        ] {
            assert_eq!(scratch.label(path), label, "{path}");
        }
    }

    #[test]
    fn replaced_file_keeps_the_label_that_it_had() {
        let scratch = Scratch::new("kept", ON);
        host::write(scratch.0.join("etc/shadow"), "old").unwrap();
        if !scratch.set_label("etc/shadow", "mine") {
            return;
        }
        assert_eq!(scratch.apply(changes()), "");
        assert_eq!(scratch.label("/etc/shadow"), "mine");
    }

    #[test]
    fn replaced_file_without_a_label_gets_the_policys() {
        let scratch = Scratch::new("bare", ON);
        host::write(scratch.0.join("etc/shadow"), "old").unwrap();
        if !scratch.may_label() {
            return;
        }
        scratch.apply(changes());
        assert_eq!(
            scratch.label("/etc/shadow"),
            "system_u:object_r:shadow_t:s0\0"
        );
    }

    #[test]
    fn without_selinux_nothing_is_labelled() {
        for config in ["SELINUX=disabled\nSELINUXTYPE=targeted\n", ""] {
            let scratch = Scratch::new("off", config);
            scratch.set_label("etc", "parent");
            assert_eq!(scratch.apply(changes()), "");
            for change in changes() {
                assert_eq!(scratch.label(&change.path), "", "{}", change.path);
            }
        }
    }

    #[test]
    fn lock_that_was_not_there_has_the_label_by_which_others_may_take_it() {
        let scratch = Scratch::new("lock", ON);
        if !scratch.may_label() {
            return;
        }
        assert_eq!(scratch.apply(changes()), "");
        assert_eq!(
            scratch.label("/etc/.pwd.lock"),
            "system_u:object_r:passwd_file_t:s0\0"
        );
        // One that is there keeps its own.
        scratch.set_label("etc/.pwd.lock", "mine");
        let again = change("/etc/passwd", Action::Write(b"x\n".to_vec().into()));
        assert_eq!(scratch.apply(Vec::from([again])), "");
        assert_eq!(scratch.label("/etc/.pwd.lock"), "mine");
    }

    #[test]
    fn where_no_directory_has_a_label_no_note_has_an_empty_one() {
        let scratch = Scratch::new("note", "");
        let root = Root::open_unowned(scratch.0.to_str().unwrap()).unwrap();
        let plan = Plan {
            changes: changes(),
            ..Plan::default()
        };
        assert_eq!(root.note(&plan).unwrap().relabel, "");
        let path = scratch.0.join("etc/hostname");
        let got = fs::lgetxattr(path.to_str().unwrap(), LABEL, &mut [0; LABEL_MAX]);
        assert!(got.is_err(), "{got:?}");
    }

    #[test]
    fn what_the_policy_does_not_know_is_left_to_tmpfiles() {
        let scratch = Scratch::new("unknown", ON);
        // A line that is longer than any.
        host::write(scratch.rules(), "x".repeat(LINE_MAX + 1)).unwrap();
        scratch.set_label("etc", "parent");
        let asked = scratch.apply(changes());
        assert_eq!(
            asked,
            "z \"/etc/.pwd.lock\" - - -\nz \"/etc/hostname\" - - -\nz \"/home/ops\" - - -\nz \"/home/ops/.ssh\" - - -\n\
             z \"/home/ops/.ssh/authorized_keys\" - - -\nz \"/etc/shadow\" - - -\n"
        );
        // Better than nothing until then.
        assert_eq!(scratch.label("/etc/hostname"), scratch.label("/etc"));
        // The second time nothing is written, and nothing asked for.
        assert_eq!(scratch.apply(changes()), "");
    }

    #[test]
    fn what_tmpfiles_would_misread_is_not_asked_for() {
        let mut lines = String::new();
        for path in ["/a*", "/a%b", "/a\"b", "/a\nb", "/a\\b", "/a?", "/[a]"] {
            request(&mut lines, path);
        }
        assert_eq!(lines, "");
        request(&mut lines, "/home/a b/.ssh");
        assert_eq!(lines, "z \"/home/a b/.ssh\" - - -\n");
    }

    #[test]
    fn lines_are_whole_wherever_the_pieces_end() {
        let scratch = Scratch::new("pieces", ON);
        let root = Root::open_unowned(scratch.0.to_str().unwrap()).unwrap();
        let lines: Vec<String> = (0..3000)
            .map(|number| format!("{number} {}", "x".repeat(number % 61)))
            .collect();
        for end in ["", "\n"] {
            host::write(scratch.rules(), lines.join("\n") + end).unwrap();
            let mut seen = Vec::new();
            let path = "/etc/selinux/targeted/contexts/files/file_contexts";
            assert!(root.each_line(path, &mut |line| {
                seen.push(String::from_utf8(line.to_vec()).unwrap());
            }));
            assert_eq!(seen, lines);
        }
        assert!(root.each_line("/none", &mut |_| panic!("there is none")));
        assert!(!root.each_line("/etc", &mut |_| panic!("it is no file")));
    }

    #[test]
    fn labels_of_a_large_policy_are_found_in_no_time() {
        let scratch = Scratch::new("large", ON);
        let mut rules = host::read_to_string(scratch.rules()).unwrap();
        for number in 0..7000 {
            let line = [
                "/usr/lib/a-",
                &number.to_string(),
                "(/.*)? -- system_u:object_r:x_t:s0\n",
            ];
            rules.extend(line);
        }
        host::write(scratch.rules(), rules).unwrap();
        let start = std::time::Instant::now();
        scratch.apply(changes());
        // 2 ms when optimised.
        assert!(start.elapsed() < std::time::Duration::from_secs(2));
    }
}

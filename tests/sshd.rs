//! sshd itself says what its configuration means, before and after a plan.
//!
//! Each folder of `tests/data/sshd` is a root, with what `sshd -T` says of it in `expect`, which
//! `PREROOT_WRITE_EXPECT=1` makes of sshd's own words; adding a case is adding a folder. `sshd` and `ssh-keygen` are looked for in `PATH`; without them, or without
//! namespaces, what needs them is skipped with a word, but fails where `CI` or `PREROOT_STRICT` is set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, io};

use preroot::engine::identity::Identity;
use preroot::engine::plan::{self, Context, Note, Plan, Settings, Steps};
use preroot::linux::root::Root;
use preroot::wire::accounts::File;
use preroot::wire::ovf;
use preroot::wire::sshd_config::{self, Files, Holds};

/// The user, in the image already, and addresses that a `Match` block may be for.
const USER: &str = "ops";
const ADDRESSES: [&str; 2] = ["192.0.2.7", "10.1.2.3"];
const KEY: &str = include_str!("data/sshkey/ed25519.pub");
/// A key with which sshd can be asked where the root has none.
const ASKED_WITH: &str = "/etc/ssh/asked_with";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    sshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n\
    ops:x:1000:1000::/home/ops:/bin/sh\n";
const GROUP: &str = "root:x:0:\nsudo:x:27:ops\nops:x:1000:\nnogroup:x:65534:\n";

/// Keywords with one value, and what sshd has when nobody says.
const SINGLE: [(&str, &str); 3] = [
    ("passwordauthentication", "yes"),
    ("kbdinteractiveauthentication", "yes"),
    (
        "authorizedkeysfile",
        ".ssh/authorized_keys .ssh/authorized_keys2",
    ),
];

/// Binds the root's /etc over the machine's, in a namespace of its own, and runs sshd there.
const INSIDE: &str = r#"etc=$1; shift
mount --bind "$etc" /etc
mount -t tmpfs -o mode=755 none /run
mkdir /run/sshd
exec "$@""#;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sshd")
}

/// Lists the roots, each by its name.
fn cases() -> Vec<(String, PathBuf)> {
    let mut cases: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.path()))
        .collect();
    cases.sort();
    assert!(cases.len() >= 40, "{} cases", cases.len());
    cases
}

/// Finds a program of the system, or says why what needs it is skipped.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|place| place.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("{name} is not in PATH"));
    }
    found
}

fn skip(why: &str) {
    let strict = ["CI", "PREROOT_STRICT"]
        .iter()
        .any(|name| env::var_os(name).is_some());
    assert!(!strict, "{why}");
    // Past the test harness, which would keep it to itself.
    let _ = io::Write::write_all(&mut io::stderr(), format!("skipped: {why}\n").as_bytes());
}

/// A directory that is gone with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("preroot-sshd-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Copies a tree; `place` says where a path goes, `edit` what becomes of a content.
fn copy(from: &Path, to: &Path, place: &dyn Fn(&str) -> String, edit: &dyn Fn(Vec<u8>) -> Vec<u8>) {
    let mut pending = vec![from.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(from).unwrap().to_str().unwrap();
            let target = to.join(place(below));
            if path.is_dir() {
                pending.push(path);
            } else {
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(&target, edit(fs::read(&path).unwrap())).unwrap();
                let mode = path.metadata().unwrap().permissions().mode();
                fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
            }
        }
    }
}

/// Makes a root of a case.
fn root_of(case: &Path, scratch: &Path) {
    copy(case, scratch, &str::to_owned, &|content| content);
    fs::remove_file(scratch.join("expect")).unwrap();
    for (path, content) in [
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/shadow", "ops:*:20000::::::\n"),
        ("usr/sbin/sshd", ""),
        (&ASKED_WITH[1..], include_str!("data/hostkey/ed25519")),
    ] {
        fs::create_dir_all(scratch.join(path).parent().unwrap()).unwrap();
        fs::write(scratch.join(path), content).unwrap();
    }
    let key = scratch.join(&ASKED_WITH[1..]);
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(scratch.join("home/ops")).unwrap();
}

/// The sshd that is asked, if there is one and namespaces can be made.
struct Sshd(PathBuf);

impl Sshd {
    fn find() -> Option<Self> {
        let sshd = program("sshd")?;
        let probe = Command::new("unshare")
            .args(["--map-root-user", "--mount", "true"])
            .output();
        match probe {
            Ok(output) if output.status.success() => Some(Self(sshd)),
            other => {
                skip(&format!("no namespaces to be had: {other:?}"));
                None
            }
        }
    }

    /// Runs sshd with a root; Debian's does not know of /usr/etc, which is put elsewhere for it.
    fn run(&self, root: &Path, arguments: &[&str]) -> Output {
        let scratch = Scratch::new(&format!("run-{}", root.file_name().unwrap().display()));
        let vendor = "/etc/ssh/vendor";
        copy(
            &root.join("etc"),
            &scratch.0.join("etc"),
            &str::to_owned,
            &|content| match String::from_utf8(content) {
                Ok(text) => text.replace("/usr/etc/ssh", vendor).into_bytes(),
                Err(error) => error.into_bytes(),
            },
        );
        if root.join("usr/etc/ssh").is_dir() {
            copy(
                &root.join("usr/etc/ssh"),
                &scratch.0.join("etc/ssh/vendor"),
                &str::to_owned,
                &|content| {
                    let text = String::from_utf8(content).unwrap();
                    text.replace("/usr/etc/ssh", vendor).into_bytes()
                },
            );
        }
        let main = if root.join("etc/ssh/sshd_config").exists() {
            "/etc/ssh/sshd_config"
        } else {
            "/etc/ssh/vendor/sshd_config"
        };
        Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-ec", INSIDE, "sh"])
            .arg(scratch.0.join("etc"))
            .arg(&self.0)
            .args(["-f", main])
            .args(arguments)
            .output()
            .unwrap()
    }

    /// Asks what the configuration means, for everyone or for a connection of the user.
    fn told(&self, root: &Path, address: Option<&str>, key: &[&str]) -> BTreeMap<String, String> {
        let connection = address.map(|address| format!("user={USER},host=client,addr={address}"));
        let mut arguments = vec!["-T"];
        arguments.extend_from_slice(key);
        if let Some(connection) = &connection {
            arguments.extend(["-C", connection]);
        }
        let output = self.run(root, &arguments);
        let said = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complaint}", root.display());
        // A key that is listed and not there is told, and nothing else may be.
        let is_known = |line: &str| line.starts_with("Unable to load host key");
        assert!(
            complaint.lines().all(is_known),
            "{}: {complaint}",
            root.display()
        );
        let mut told = BTreeMap::new();
        for (keyword, value) in said.lines().filter_map(|line| line.split_once(' ')) {
            let all: &mut String = told.entry(keyword.to_owned()).or_default();
            if keyword == "hostkey" && value == ASKED_WITH {
                continue;
            }
            if !all.is_empty() {
                all.push(' ');
            }
            all.push_str(value);
        }
        told
    }
}

/// Reads a root that is only looked at.
struct Tree<'a>(&'a Path);

impl Tree<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }
}

impl Files for Tree<'_> {
    fn read(&self, path: &str) -> Option<File> {
        fs::read(self.at(path)).ok().map(File::new)
    }

    fn list(&self, directory: &str, each: &mut dyn FnMut(&str)) {
        for entry in fs::read_dir(self.at(directory)).into_iter().flatten() {
            each(entry.unwrap().file_name().to_str().unwrap());
        }
    }
}

/// What our reader makes of a root: a value for everyone, and all that the user may have.
#[derive(Default)]
struct Read {
    everyone: BTreeMap<&'static str, String>,
    user: BTreeMap<&'static str, Vec<String>>,
    host_keys: String,
}

fn read(root: &Path) -> Read {
    let main = ["/etc/ssh/sshd_config", "/usr/etc/ssh/sshd_config"]
        .into_iter()
        .find(|main| Tree(root).at(main).exists())
        .unwrap();
    let mut read = Read::default();
    let mut known = BTreeSet::new();
    sshd_config::read(&Tree(root), main, Some(USER), &mut |setting| {
        if setting.is("HostKey") && setting.global {
            if !read.host_keys.is_empty() {
                read.host_keys.push(' ');
            }
            read.host_keys.push_str(&setting.words().join(" "));
        }
        let alias = setting.is("ChallengeResponseAuthentication");
        let Some((keyword, _)) = SINGLE.iter().find(|(keyword, _)| {
            setting.is(keyword) || alias && *keyword == "kbdinteractiveauthentication"
        }) else {
            return;
        };
        let value = match setting.flag() {
            Some(true) => "yes".to_owned(),
            Some(false) => "no".to_owned(),
            None => setting.words().join(" "),
        };
        if setting.global {
            let first = || value.clone();
            read.everyone.entry(keyword).or_insert_with(first);
        }
        if setting.user != Holds::No && !known.contains(keyword) {
            read.user.entry(keyword).or_default().push(value);
            if setting.user == Holds::Yes {
                known.insert(*keyword);
            }
        }
    });
    for (keyword, default) in SINGLE {
        let everyone = read
            .everyone
            .entry(keyword)
            .or_insert_with(|| default.to_owned());
        if !known.contains(keyword) {
            let user = read.user.entry(keyword).or_default();
            user.push(everyone.clone());
        }
    }
    read
}

/// Writes what sshd says in the form of the `expect` files.
fn expectation(told: &dyn Fn(Option<&str>) -> BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let everyone = told(None);
    for (keyword, _) in SINGLE {
        writeln!(out, "everyone {keyword} {}", everyone[keyword]).unwrap();
    }
    let host_keys = everyone.get("hostkey").map_or("", String::as_str);
    writeln!(out, "everyone hostkey {host_keys}").unwrap();
    for address in ADDRESSES {
        let user = told(Some(address));
        for (keyword, _) in SINGLE {
            writeln!(out, "{USER}@{address} {keyword} {}", user[keyword]).unwrap();
        }
    }
    out
}

fn identity(password: bool) -> Identity {
    let document = format!(
        r#"<Environment xmlns:wa="http://schemas.microsoft.com/windowsazure"
            xmlns="http://schemas.microsoft.com/windowsazure"><ProvisioningSection>
            <LinuxProvisioningConfigurationSet><HostName>vm-demo01</HostName>
            <UserName>{USER}</UserName>
            <DisableSshPasswordAuthentication>{}</DisableSshPasswordAuthentication>
            <SSH><PublicKeys><PublicKey><Value>{KEY}</Value></PublicKey></PublicKeys></SSH>
            </LinuxProvisioningConfigurationSet></ProvisioningSection><PlatformSettingsSection>
            <PlatformSettings/></PlatformSettingsSection></Environment>"#,
        !password
    );
    Identity::new(
        Some(ovf::parse(document.as_bytes()).unwrap_or_else(|fault| panic!("{fault}"))),
        None,
    )
    .unwrap_or_else(|fault| panic!("{fault}"))
}

fn planned(root: &Path, password: bool) -> Plan {
    let view = Root::open_unowned(root.to_str().unwrap()).unwrap_or_else(|fault| panic!("{fault}"));
    let context = Context {
        vm_id: "91267c52-9f02-4cfe-b1f4-a4da7ebac2cf",
        today_days: 20_414,
        salt: [7; 16],
        host_key_seed: Some(&[9; 32]),
        settings: Settings::DEFAULT,
        output: plan::Output::Files,
        steps: Steps::parse("keys,sshd,hostkeys").unwrap(),
    };
    plan::plan(&identity(password), &view, &context).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Makes a plan true and gives the number of what had to be written.
fn apply(root: &Path, plan: &Plan) -> u32 {
    let view = Root::open_unowned(root.to_str().unwrap()).unwrap_or_else(|fault| panic!("{fault}"));
    let applied = view.apply(plan);
    applied
        .unwrap_or_else(|(index, fault)| panic!("{}: {fault}", plan.changes[index].path))
        .written
}

#[test]
fn reader_understands_each_configuration_as_sshd_does() {
    let mut wrong = String::new();
    for (name, path) in cases() {
        let expected = fs::read_to_string(path.join("expect")).unwrap();
        let read = read(&path);
        for line in expected.lines() {
            let (who, rest) = line.split_once(' ').unwrap();
            let (keyword, value) = rest.split_once(' ').unwrap();
            let right = match (who, keyword) {
                ("everyone", "hostkey") => read.host_keys == value,
                ("everyone", _) => read.everyone[keyword] == value,
                _ => read.user[keyword].iter().any(|may| may == value),
            };
            if !right {
                writeln!(wrong, "{name}: {line}").unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn sshd_says_what_is_expected_of_each_configuration() {
    let Some(sshd) = Sshd::find() else { return };
    let mut wrong = String::new();
    for (name, path) in cases() {
        let scratch = Scratch::new(&format!("before-{name}"));
        root_of(&path, &scratch.0);
        let told = |address: Option<&str>| sshd.told(&scratch.0, address, &["-h", ASKED_WITH]);
        let said = expectation(&told);
        if env::var_os("PREROOT_WRITE_EXPECT").is_some() {
            fs::write(path.join("expect"), &said).unwrap();
        }
        let expected = fs::read_to_string(path.join("expect")).unwrap();
        if said != expected {
            write!(wrong, "{name}: expected\n{expected}but sshd says\n{said}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn after_a_plan_sshd_starts_and_has_the_wanted_values() {
    let Some(sshd) = Sshd::find() else { return };
    for (name, path) in cases() {
        let has_match = name.contains("match");
        for wanted in [true, false] {
            let scratch = Scratch::new(&format!("after-{name}-{wanted}"));
            let root = &scratch.0;
            root_of(&path, root);
            let plan = planned(root, wanted);
            apply(root, &plan);
            let again = planned(root, wanted);
            assert_eq!(apply(root, &again), 0, "{name} {wanted}: {again}");

            let odd = plan.notes.contains(&Note::HostKeysStay);
            // Where it is told to use other keys there is none but for this test.
            let mut key: &[&str] = &[];
            if odd {
                key = &["-h", ASKED_WITH];
            }
            let value = if wanted { "yes" } else { "no" };
            let is_wanted = |address: Option<&str>| {
                let told = sshd.told(root, address, key);
                told["passwordauthentication"] == value
                    && told["kbdinteractiveauthentication"] == value
            };
            // To sshd, a block for all is for nobody in particular, too.
            assert!(
                is_wanted(None) || name == "match-all-at-the-end",
                "{name} {wanted}"
            );
            let overruled = has_match && ADDRESSES.iter().any(|address| !is_wanted(Some(address)));
            let noted = plan
                .notes
                .iter()
                .any(|note| matches!(note, Note::SshdMatch(_)));
            // Who will be in which group is not looked up.
            let cautious = name == "match-in-an-included-file" && wanted;
            assert_eq!(
                noted,
                overruled || cautious,
                "{name} {wanted}: {:?}",
                plan.notes
            );
        }
    }
}

#[test]
fn values_that_are_changed_twice_leave_one_block_or_file() {
    for (name, path) in cases() {
        let scratch = Scratch::new(&format!("twice-{name}"));
        root_of(&path, &scratch.0);
        let mut sizes = Vec::new();
        for wanted in [true, false, true, false, true, false] {
            apply(&scratch.0, &planned(&scratch.0, wanted));
            let mut count = 0;
            let mut pending = vec![scratch.0.join("etc/ssh")];
            while let Some(directory) = pending.pop() {
                for entry in fs::read_dir(directory).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        pending.push(path);
                    } else {
                        count += fs::read_to_string(&path)
                            .unwrap()
                            .matches("# preroot: as")
                            .count();
                    }
                }
            }
            sizes.push(count);
        }
        assert!(sizes.iter().all(|count| *count <= 1), "{name}: {sizes:?}");
    }
}

#[test]
fn image_without_sshd_is_left_alone() {
    let (_, path) = cases().swap_remove(0);
    let scratch = Scratch::new("without");
    root_of(&path, &scratch.0);
    fs::remove_file(scratch.0.join("usr/sbin/sshd")).unwrap();
    let plan = planned(&scratch.0, false);
    assert!(
        plan.changes
            .iter()
            .all(|change| !change.path.starts_with("/etc")),
        "{plan}"
    );
}

#[test]
fn ssh_keygen_reads_the_host_key_and_gives_the_lines_that_people_are_shown() {
    let Some(keygen) = program("ssh-keygen") else {
        return;
    };
    let scratch = Scratch::new("keygen");
    root_of(&folder().join("debian-12"), &scratch.0);
    apply(&scratch.0, &planned(&scratch.0, false));
    let private = scratch.0.join("etc/ssh/ssh_host_ed25519_key");
    let public = fs::read_to_string(private.with_extension("pub")).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(&keygen)
            .args(arguments)
            .arg(&private)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(run(&["-y", "-f"]), public);
    let view = Root::open_unowned(scratch.0.to_str().unwrap()).unwrap_or_else(|f| panic!("{f}"));
    let [known, fingerprint] = plan::host_key_lines(&view, "vm-demo01", "10.0.1.4").unwrap();
    assert_eq!(
        run(&["-l", "-f"]),
        format!("256 {fingerprint} root@vm-demo01 (ED25519)\n")
    );
    // ssh-keygen finds the host in it by name and by address.
    let hosts = scratch.0.join("known_hosts");
    fs::write(&hosts, format!("{known}\n")).unwrap();
    for host in ["vm-demo01", "10.0.1.4"] {
        let output = Command::new(&keygen)
            .args(["-F", host, "-l", "-f"])
            .arg(&hosts)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&fingerprint), "{host}: {output:?}");
    }
    let [known, _] = plan::host_key_lines(&view, "vm-demo01", "").unwrap();
    assert!(known.starts_with("vm-demo01 ssh-ed25519 AAAA"), "{known}");
}

#[test]
fn openssl_has_the_same_public_half_for_a_seed() {
    let Some(openssl) = program("openssl") else {
        return;
    };
    for byte in 0..8 {
        let seed = [byte * 31; 32];
        let key = preroot::wire::hostkey::HostKey::new(&seed, "x");
        let body = key.public.split(' ').nth(1).unwrap();
        let ours = preroot::wire::base64::decode(body.as_bytes()).unwrap();
        // RFC 8410: the head of a private key, then the seed.
        let mut der = vec![
            0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22,
            0x04, 0x20,
        ];
        der.extend_from_slice(&seed);
        let scratch = Scratch::new(&format!("openssl-{byte}"));
        let path = scratch.0.join("key.der");
        fs::write(&path, der).unwrap();
        let output = Command::new(&openssl)
            .args([
                "pkey", "-inform", "DER", "-pubout", "-outform", "DER", "-in",
            ])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let ours_end = &ours[ours.len() - 32..];
        assert_eq!(&output.stdout[output.stdout.len() - 32..], ours_end);
    }
}

//! A platform that works: what a machine becomes, what it says, and what a second run does to it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use lab::disc::ovf::Document;
use preroot::wire::report::Outcome;

use crate::azure::Azure;
use crate::machine::{
    HOST_NAME, KEY, MAC, Machine, OTHER_VM_ID, USER, VM_ID, VM_ID_SWAPPED, assert_at_rest, cable,
    each_file, firmware, on_machine, report,
};
use crate::run::call;
use crate::tools::tool;

const PASSWORD: &str = "Not-A-Real-1!pw&x";
const CUSTOM_DATA: &str = "#cloud-config, and nobody else's business: 8f14e45fceea167a\n";
/// The same, as RFC 4648 writes it on the disc.
const CUSTOM_DATA_ENCODED: &str =
    "I2Nsb3VkLWNvbmZpZywgYW5kIG5vYm9keSBlbHNlJ3MgYnVzaW5lc3M6IDhmMTRlNDVmY2VlYTE2N2EK";

/// A machine whose admin user has a key.
pub(crate) fn with_key() -> Document {
    Document::new(HOST_NAME, USER).key(KEY)
}

/// What a machine says to the platform when nothing goes wrong.
pub(crate) const CONVERSATION: [&str; 2] =
    ["GET /machine/?comp=goalstate", "POST /machine/?comp=health"];

/// Checks what every machine with this identity must have, whatever else it has.
#[track_caller]
pub(crate) fn assert_has_identity(machine: &Machine) {
    assert_eq!(machine.read("etc/hostname"), "vm-net01\n");
    assert_eq!(machine.rights("etc/hostname"), (0o644, 0, 0));
    let line = format!("{USER}:x:1000:1000::/home/{USER}:/bin/bash");
    assert_eq!(lines_of(machine, "etc/passwd"), [line]);
    assert_eq!(machine.rights(&format!("home/{USER}")).1, 1000);
    assert_eq!(machine.read("var/lib/preroot/configured").trim(), VM_ID);
}

/// The lines about the admin user in one of the account files.
fn lines_of(machine: &Machine, path: &str) -> Vec<String> {
    let text = machine.read(path);
    let own = text.lines().filter(|line| line.contains(USER));
    own.map(str::to_owned).collect()
}

#[test]
fn machine_with_a_key_is_provisioned_and_reported() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_at_rest("vm0");

        run.exits(0)
            .says("preroot: disc ok source=\"/run/machine/disc.iso (udf 1.02)\"")
            .says("preroot: root ok host=vm-net01 user=opsadmin written=")
            .says("preroot: dhcp ok nic=vm0 ip=10.0.0.4/24 server=168.63.129.16")
            .says("preroot: ready reported status=200");
        assert_eq!(run.stdout, "");
        assert!(run.stderr.lines().count() <= 20, "{run}");
        assert!(run.stderr.lines().all(|line| line.starts_with("preroot: ")));

        assert_has_identity(machine);
        assert_eq!(lines_of(machine, "etc/group").join(" "), {
            format!("adm:x:4:{USER} sudo:x:27:{USER} {USER}:x:1000:")
        });
        // No password logs in; what is not `!` leaves the key to an sshd without PAM.
        let shadow = lines_of(machine, "etc/shadow").concat();
        let fields: Vec<&str> = shadow.split(':').collect();
        assert_eq!((fields[0], fields[1]), (USER, "*"));
        let today = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86400;
        let changed: u64 = fields[2].parse().unwrap();
        assert!(changed == today || changed + 1 == today, "{shadow}");
        assert_eq!(machine.rights("etc/shadow"), (0o640, 0, 42));
        assert_eq!(machine.rights("etc/passwd"), (0o644, 0, 0));

        let keys = format!("home/{USER}/.ssh/authorized_keys");
        assert_eq!(machine.read(&keys), format!("{KEY}\n"));
        assert_eq!(machine.rights(&keys), (0o600, 1000, 1000));
        let directory = format!("home/{USER}/.ssh");
        assert_eq!(machine.rights(&directory), (0o700, 1000, 1000));
        let from_skel = format!("home/{USER}/.bashrc");
        assert_eq!(machine.rights(&from_skel), (0o644, 1000, 1000));
        assert_eq!(
            machine.read("etc/sudoers.d/preroot"),
            format!("{USER} ALL=(ALL) NOPASSWD: ALL\n")
        );
        assert_eq!(machine.rights("etc/sudoers.d/preroot"), (0o440, 0, 0));
        assert_eq!(machine.read("var/lib/preroot/reported").trim(), VM_ID);
        // The users of the image are as they were.
        assert!(machine.read("etc/passwd").starts_with("root:x:0:0:root:"));
        assert_eq!(machine.read("etc/passwd").lines().count(), 20);
    });
}

#[test]
fn report_and_status_tell_what_happened() {
    on_machine(|machine| {
        machine.insert(&with_key());
        call(&["status"])
            .exits(111)
            .says("preroot: no report of this boot at /run/preroot/report.json");
        let azure = Azure::start("healthy");
        let run = machine.provision(&[]);
        azure.end().ready();

        let report = report();
        assert_eq!(report.result, Outcome::Ready);
        assert_eq!(report.vm_id, VM_ID);
        assert_eq!(report.interface, "vm0");
        assert_eq!(report.address, "10.0.0.4/24");
        assert_eq!(report.router, "10.0.0.1");
        assert_eq!(report.wireserver, "168.63.129.16");
        assert_eq!(report.host_name, HOST_NAME);
        assert_eq!(report.user, USER);
        assert!(report.written > 10, "{}", report.written);
        let took = Duration::from_micros(report.took_us);
        assert!(took <= run.took, "{took:?} of {:?}", run.took);
        let phases: Vec<&str> = report.phases.iter().map(|phase| &*phase.name).collect();
        for name in [
            "root",
            "disc",
            "nic",
            "dhcp",
            "apply",
            "goalstate",
            "health",
        ] {
            assert!(phases.contains(&name), "no {name} in {phases:?}");
        }
        for phase in &report.phases {
            let end = phase.start_us + phase.length_us;
            assert!(end <= report.took_us, "{phase:?}");
        }

        let json = fs::read_to_string("/run/preroot/report.json").unwrap();
        let status = call(&["status", "--json"]);
        assert_eq!(status.exits(0).stdout, format!("{json}\n"));
        assert_eq!(machine.read("var/lib/preroot/report.json"), json);
        let mode = |path| fs::metadata(path).unwrap().permissions();
        assert_eq!(mode("/run/preroot/report.json").mode() & 0o777, 0o600);
        assert_eq!(machine.rights("var/lib/preroot/report.json"), (0o600, 0, 0));

        let status = call(&["status"]);
        let table = &status.exits(0).stdout;
        assert!(table.starts_with("preroot "), "{table}");
        for words in [
            ": ready ",
            "vm-net01",
            USER,
            "10.0.0.4/24",
            "goalstate",
            "#",
        ] {
            assert!(table.contains(words), "no {words} in\n{table}");
        }
    });
}

#[test]
fn password_is_set_as_a_hash_that_others_verify() {
    on_machine(|machine| {
        let document = Document::new(HOST_NAME, USER).password(PASSWORD);
        machine.insert(&document);
        let azure = Azure::start("vm.key =");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        assert_has_identity(machine);
        assert_eq!(
            machine.read("etc/sudoers.d/preroot"),
            format!("{USER} ALL=(ALL) ALL\n")
        );
        assert!(!machine.has(&format!("home/{USER}/.ssh/authorized_keys")));

        let shadow = lines_of(machine, "etc/shadow").concat();
        let hash = shadow.split(':').nth(1).unwrap();
        let mut parts = hash.split('$');
        assert_eq!(
            (parts.next(), parts.next()),
            (Some(""), Some("6")),
            "{hash}"
        );
        let salt = parts.next().unwrap();
        assert_eq!(salt.len(), 16, "{salt}");
        let Some(mut openssl) = tool("openssl", "openssl") else {
            return;
        };
        let mut openssl = openssl
            .args(["passwd", "-6", "-salt", salt, "-stdin"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = openssl.stdin.take().unwrap();
        writeln!(input, "{PASSWORD}").unwrap();
        drop(input);
        let output = openssl.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), hash);
    });
}

#[test]
fn secrets_appear_in_no_message_no_report_and_not_on_the_wire() {
    on_machine(|machine| {
        let document = with_key()
            .password(PASSWORD)
            .custom_data(CUSTOM_DATA.as_bytes());
        let on_disc = document.build();
        assert!(on_disc.contains(CUSTOM_DATA_ENCODED), "{on_disc}");
        machine.insert(&document);
        // As a machine that has every agent, to whom something is left.
        fs::create_dir_all(machine.root().join("usr/sbin")).unwrap();
        fs::write(machine.root().join("usr/sbin/waagent"), "").unwrap();

        let azure = Azure::start("healthy");
        let dry = machine.provision(&["--dry-run"]);
        let run = machine.provision(&[]);
        let heard = azure.end();
        heard.ready();
        // A failure has more to say, and says it to the platform too.
        let broken = on_disc.replace("</Environment>", "</Environmen>");
        machine.insert_text(&broken);
        let azure = Azure::start("healthy");
        let failed = machine.provision(&["--vm-id", OTHER_VM_ID]);
        let heard_failure = azure.end();
        heard_failure.failed();
        let table = call(&["status"]);

        let decoded = "/var/lib/preroot/custom-data";
        let kept = machine.read(decoded.trim_start_matches('/'));
        assert_eq!(kept, CUSTOM_DATA);
        let rights = machine.rights(decoded.trim_start_matches('/'));
        assert_eq!(rights, (0o600, 0, 0));
        // waagent, which may not be there yet, keeps it as it was sent.
        let for_waagent = "var/lib/waagent/CustomData";
        assert_eq!(machine.read(for_waagent), CUSTOM_DATA_ENCODED);
        assert_eq!(machine.rights(for_waagent), (0o600, 0, 0));
        let secrets = [
            PASSWORD,
            // As it stands in the document.
            "Not-A-Real-1!pw&amp;x",
            // RFC 4648 of it.
            "Tm90LUEtUmVhbC0xIXB3Jn",
            CUSTOM_DATA.trim(),
            CUSTOM_DATA_ENCODED,
        ];
        let has = |bytes: &[u8], secret: &str| {
            bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes())
        };
        let mut looked_at = 0;
        for secret in secrets {
            for run in [&dry, &run, &failed, &table] {
                assert!(!has(run.stdout.as_bytes(), secret), "{run}");
                assert!(!has(run.stderr.as_bytes(), secret), "{run}");
            }
            for heard in [&heard, &heard_failure] {
                assert!(heard.wire.len() > 1000);
                assert!(!has(&heard.wire, secret), "{}", heard.journal());
            }
            for place in [machine.root(), "/run/preroot".into()] {
                each_file(&place, &mut |path, data| {
                    let is_copy = secret == CUSTOM_DATA.trim() && path.ends_with(&decoded[1..])
                        || secret == CUSTOM_DATA_ENCODED && path.ends_with(for_waagent);
                    if data.is_file() && !is_copy {
                        assert!(!has(&fs::read(path).unwrap(), secret), "{}", path.display());
                        looked_at += 1;
                    }
                });
            }
        }
        assert!(looked_at > 100, "{looked_at}");
    });
}

#[test]
fn second_run_changes_nothing_and_sends_nothing() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        let before = machine.picture();

        // Neither a disc nor the other order of the id's bytes makes it another machine.
        for (media, id) in [
            (machine.disc(), VM_ID),
            ("/nonexistent".into(), VM_ID),
            (machine.disc(), VM_ID_SWAPPED),
            (machine.disc(), &*VM_ID.to_uppercase()),
        ] {
            let azure = Azure::start("healthy");
            let run = machine.provision(&["--media", media.to_str().unwrap(), "--vm-id", id]);
            run.exits(0);
            assert_eq!(run.stderr, "preroot: nothing to do\n");
            azure.end().nothing();
            assert_eq!(machine.picture(), before);
            assert_eq!(report().result, Outcome::NothingToDo);
            assert_at_rest("vm0");
        }
        let status = call(&["status"]);
        assert!(status.stdout.contains("nothing to do"), "{status}");
    });
}

#[test]
fn another_vm_id_is_provisioned_again() {
    on_machine(|machine| {
        machine.insert(&with_key());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();

        machine.insert(&Document::new("vm-net02", USER).key(KEY));
        let azure = Azure::start("healthy");
        machine.provision(&["--vm-id", OTHER_VM_ID]).exits(0);
        let heard = azure.end();
        heard.ready();
        assert_eq!(heard.steps(), CONVERSATION);
        assert_eq!(machine.read("etc/hostname"), "vm-net02\n");
        for marker in ["configured", "reported"] {
            let id = machine.read(&format!("var/lib/preroot/{marker}"));
            assert_eq!(id.trim(), OTHER_VM_ID);
        }
        // The user was there already, and is there once.
        assert_eq!(lines_of(machine, "etc/passwd").len(), 1);
        let keys = machine.read(&format!("home/{USER}/.ssh/authorized_keys"));
        assert_eq!(keys, format!("{KEY}\n"));
    });
}

#[test]
fn firmware_decides_the_platform_and_gives_the_id() {
    on_machine(|machine| {
        const AZURE: &str = "7783-7084-3265-9085-8269-3286-77";
        machine.insert(&with_key());
        let root = machine.root();
        let disc = machine.disc();
        let options = [
            "provision",
            "--root",
            root.to_str().unwrap(),
            "--media",
            disc.to_str().unwrap(),
            "--log=stderr",
            "--timeout=10",
        ];

        // Hyper-V, but not Azure: another tag.
        firmware("9583-9572-9874-4843-7295-1653-92", VM_ID, true, &["vm0"]);
        let azure = Azure::start("healthy");
        let before = machine.picture();
        let run = call(&options);
        run.exits(99);
        assert_eq!((&*run.stderr, &*run.stdout), ("", ""));
        assert_eq!(machine.picture(), before);
        assert!(!fs::exists("/run/preroot").unwrap());
        azure.end().nothing();

        // The first generation shows the id's first three fields the other way round (1.4).
        for (uuid, efi) in [(VM_ID_SWAPPED, false), (&*VM_ID.to_uppercase(), true)] {
            firmware(AZURE, uuid, efi, &["vm0"]);
            let azure = Azure::start("healthy");
            call(&options).exits(0);
            azure.end();
            assert_eq!(machine.read("var/lib/preroot/configured").trim(), VM_ID);
            assert_eq!(report().vm_id, VM_ID);
            fs::remove_dir_all(root.join("var/lib/preroot")).unwrap();
        }

        firmware(AZURE, "", true, &["vm0"]);
        call(&options)
            .exits(111)
            .says("failed: failure to identify Azure VM ID");
    });
}

#[test]
fn primary_interface_wins_and_all_come_to_rest() {
    on_machine(|machine| {
        const SECOND: [u8; 6] = [0x00, 0x0d, 0x3a, 0x65, 0x43, 0x21];
        cable("vm1", SECOND, "host1");
        machine.insert(&with_key());
        let root = machine.root();
        let disc = machine.disc();
        for (primary, name) in [(SECOND, "vm1"), (MAC, "vm0")] {
            let tag = "7783-7084-3265-9085-8269-3286-77";
            firmware(tag, VM_ID, true, &["vm0", "vm1"]);
            let primary = primary.map(|byte| format!("{byte:02x}")).join(":");
            let scenario = format!("net.primary = {primary}");
            let azure = [Azure::on("host0", &scenario), Azure::on("host1", &scenario)];
            let run = call(&[
                "provision",
                "--root",
                root.to_str().unwrap(),
                "--media",
                disc.to_str().unwrap(),
                "--log=stderr",
                "--network=release",
                "--timeout=10",
            ]);
            let heard = azure.map(Azure::end);
            run.exits(0)
                .says(&format!("dhcp ok nic={name} ip=10.0.0.4"));
            let (winner, other) = match name {
                "vm0" => (&heard[0], &heard[1]),
                _ => (&heard[1], &heard[0]),
            };
            winner.ready();
            // The other one was asked for a lease as well, and for nothing else.
            assert!(other.undecided().platform.frames().0 > 0);
            assert_eq!(other.steps(), [""; 0]);
            assert_eq!(report().interface, name);
            assert_at_rest("vm0");
            assert_at_rest("vm1");
            fs::remove_dir_all(root.join("var/lib/preroot")).unwrap();
        }
    });
}

#[test]
fn every_format_of_the_disc_gives_the_same_machine() {
    use lab::disc::{Builder, Revision};
    on_machine(|machine| {
        let with = || Builder::new().file("ovf-env.xml", with_key().build());
        let discs = [
            (with().udf(Revision::R102), "udf 1.02"),
            (with().udf(Revision::R150), "udf 1.50"),
            (with().udf(Revision::R201).extent_sectors(1), "udf 2.01"),
            (with().udf(Revision::R102).iso9660(true), "udf 1.02"),
            (with().iso9660(true), "iso9660"),
            (with().iso9660(false).rock_ridge(), "iso9660"),
        ];
        for (number, (disc, format)) in discs.iter().enumerate() {
            fs::write(machine.disc(), disc.build()).unwrap();
            let id = format!("91267c52-9f02-4cfe-b1f4-0000000000{number:02}");
            let run = machine.provision(&["--ready=never", "--vm-id", &id]);
            run.exits(0).says(&format!("({format}"));
            assert_eq!(machine.read("var/lib/preroot/configured").trim(), id);
            assert_eq!(machine.read("etc/hostname"), "vm-net01\n");
        }
    });
}

#[test]
fn disc_of_genisoimage_is_read() {
    on_machine(|machine| {
        let Some(mut genisoimage) = tool("genisoimage", "genisoimage") else {
            return;
        };
        let tree = machine.place().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("ovf-env.xml"), with_key().build()).unwrap();
        let made: &mut Command = genisoimage
            .args(["-quiet", "-udf", "-V", "rd_rdfe_stable", "-o"])
            .args([&machine.disc(), &tree]);
        assert!(made.status().unwrap().success());
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0).says("disc ok");
        azure.end().ready();
        assert_has_identity(machine);
    });
}

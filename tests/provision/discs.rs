//! Discs that are not what a new machine needs.

use std::fs;
use std::time::Duration;

use lab::disc::Builder;
use lab::disc::ovf::Document;
use preroot::wire::report::Outcome;

use crate::azure::Azure;
use crate::healthy::{CONVERSATION, with_key};
use crate::machine::{HOST_NAME, KEY, Machine, USER, VM_ID, assert_at_rest, on_machine, report};
use crate::run::call;

/// Runs with what is in the drive, and checks what every failure for good must come to: the platform
/// is told in the words that the console and the report have, the root stays as it was.
#[track_caller]
fn fails(machine: &Machine, reason: &str) {
    let before = machine.picture();
    // The metadata service has nothing better to say.
    let azure = Azure::start("vm.computer_name =\nvm.user =\nvm.key =");
    let run = machine.provision(&[]);
    let heard = azure.end();
    run.exits(111)
        .says(&format!("preroot: failed: {reason}"))
        .says("the boot goes on")
        .says("failure reported status=200")
        .never_says("ready reported");
    assert!(run.took < Duration::from_secs(2), "{run}");
    let description = heard.failed();
    let (start, rest) = description.split_once("|agent=preroot/").unwrap();
    assert!(
        rest.contains(&format!("|vm_id={VM_ID}|timestamp=20")),
        "{description}"
    );
    assert!(rest.ends_with("|documentation_url=https://aka.ms/linuxprovisioningerror"));
    let told = start.strip_prefix("result=error|reason=").unwrap();
    // `|`, quotes and control characters separate fields there.
    let reason = reason.replace(['\'', '"', '|'], " ");
    assert!(told.starts_with(&reason), "{told}");
    assert_eq!(heard.steps(), CONVERSATION);

    let report = report();
    assert_eq!(report.result, Outcome::Failed);
    assert_eq!(report.reason.replace(['\'', '"', '|'], " "), told);
    let table = call(&["status"]);
    assert!(table.stdout.contains(": failed "), "{table}");
    assert!(table.stdout.contains(&*report.reason), "{table}");
    assert_at_rest("vm0");

    let mut after = machine.picture();
    let own = machine.root().join("var/lib");
    after.retain(|path, _| !path.starts_with(&own));
    let mut before = before;
    before.retain(|path, _| !path.starts_with(&own));
    assert_eq!(after, before);
    assert!(!machine.has("var/lib/preroot/configured"));
    assert!(!machine.has("var/lib/preroot/reported"));
}

/// Runs with what is in the drive, and checks that the machine is taken for one from a specialized
/// image: nothing of it is changed, and the platform hears Ready.
#[track_caller]
fn is_specialized(machine: &Machine, media: &str, reason: &str) {
    let before = machine.picture();
    let azure = Azure::start("vm.user =");
    let run = machine.provision(&["--media", media]);
    let heard = azure.end();
    run.exits(0)
        .says(&format!("preroot: disc absent: {reason}"))
        .says("ready reported status=200");
    heard.ready();
    assert_eq!(heard.steps(), CONVERSATION);
    assert_eq!(report().result, Outcome::Specialized);
    let after = machine.picture();
    for (path, was) in &before {
        let is_own = path.starts_with(machine.root().join("var/lib"));
        assert!(is_own || after[path] == *was, "{}", path.display());
    }
    assert_at_rest("vm0");
    // Once is enough: the next boot does not even look for a disc.
    let azure = Azure::start("healthy");
    let again = machine.provision(&["--media", media]);
    assert_eq!(again.exits(0).stderr, "preroot: nothing to do\n");
    azure.end().nothing();
    fs::remove_dir_all(machine.root().join("var/lib/preroot")).unwrap();
}

fn good_disc() -> Vec<u8> {
    Builder::new()
        .file("ovf-env.xml", with_key().build())
        .build()
}

#[test]
fn damaged_disc_is_a_failure_that_the_platform_is_told() {
    on_machine(|machine| {
        // UDF is recognised by its sequence from sector 16; nothing leads on to the volume.
        let mut disc = good_disc();
        let sectors = disc.len() / 2048;
        disc[20 * 2048..].fill(0);
        assert!(sectors > 257, "{sectors}");
        fs::write(machine.disc(), &disc).unwrap();
        fails(
            machine,
            "failure to read the provisioning disc: /run/machine/disc.iso: the disc is damaged: no UDF anchor",
        );

        // Every descriptor is there, and the sums of some are wrong.
        let mut disc = good_disc();
        for sector in 258..sectors - 1 {
            disc[sector * 2048] ^= 0xff;
        }
        fs::write(machine.disc(), &disc).unwrap();
        fails(
            machine,
            "failure to read the provisioning disc: /run/machine/disc.iso: the disc is damaged: ",
        );
    });
}

#[test]
fn disc_that_ends_too_early_is_a_failure_that_the_platform_is_told() {
    on_machine(|machine| {
        let disc = good_disc();
        fs::write(machine.disc(), &disc[..258 * 2048]).unwrap();
        fails(
            machine,
            "failure to read the provisioning disc: /run/machine/disc.iso: ",
        );
    });
}

#[test]
fn what_is_no_disc_at_all_is_a_failure_that_the_platform_is_told() {
    on_machine(|machine| {
        fs::write(machine.disc(), vec![0x5a; 1 << 20]).unwrap();
        fails(
            machine,
            "failure to read the provisioning disc: /run/machine/disc.iso: ",
        );
    });
}

#[test]
fn broken_document_is_a_failure_in_published_words() {
    on_machine(|machine| {
        let good = with_key().build();
        let long_name = "x".repeat(65);
        let cases = [
            (
                good.replace("</Environment>", "</Environmen>"),
                "error parsing ovf-env.xml: ",
            ),
            (
                good.replace("HostName>", "HostNam>"),
                "unexpected metadata parsing ovf-env.xml: missing configuration for 'HostName'",
            ),
            (
                good.replace("<?xml", "<!DOCTYPE x [<!ENTITY a \"b\">]><?xml"),
                "error parsing ovf-env.xml: ",
            ),
            (
                Document::new(&long_name, USER).key(KEY).build(),
                "unsupported host name '",
            ),
            (
                Document::new(HOST_NAME, "root").key(KEY).build(),
                "unsupported user name 'root': ",
            ),
            (
                Document::new(HOST_NAME, "sshd").key(KEY).build(),
                "user 'sshd' (uid 100) belongs to the system",
            ),
            (
                Document::new(HOST_NAME, USER).build(),
                "no usable public key and no password for user 'opsadmin'",
            ),
            (
                Document::new(HOST_NAME, USER)
                    .password(&"x".repeat(73))
                    .build(),
                "unsupported password length=73 max=72",
            ),
            (
                with_key().preprovisioned("Running").build(),
                "unsupported pre-provisioned VM type=Running",
            ),
        ];
        for (document, reason) in cases {
            machine.insert_text(&document);
            fails(machine, reason);
        }
    });
}

#[test]
fn machine_without_a_provisioning_disc_is_specialized() {
    on_machine(|machine| {
        let other = Builder::new()
            .file("setup.exe", "MZ")
            .label("DRIVERS")
            .build();
        fs::write(machine.disc(), other).unwrap();
        is_specialized(
            machine,
            "/run/machine/disc.iso",
            "/run/machine/disc.iso holds no ovf-env.xml",
        );
    });
}

#[test]
fn medium_that_is_missing_or_empty_counts_as_none() {
    on_machine(|machine| {
        is_specialized(machine, "/nonexistent", "/nonexistent cannot be read");
        fs::write(machine.disc(), "").unwrap();
        is_specialized(machine, "/run/machine/disc.iso", "/run/machine/disc.iso ");
    });
}

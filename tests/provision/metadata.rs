//! Disc and instance metadata service side by side.

use std::time::Duration;

use lab::disc::ovf::Document;
use preroot::wire::report::Outcome;

use crate::azure::Azure;
use crate::machine::{HOST_NAME, KEY, Machine, OTHER_VM_ID, USER, on_machine, report};

const OTHER_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB2Gp5ZtJ5pLrSFHHqQ2nrrOmYy7bqOvVk1hVgyhQ0fS imds@laptop";

/// A machine whose drive is empty.
fn provision_without_disc(
    machine: &Machine,
    scenario: &str,
) -> (crate::run::Run, crate::azure::Heard) {
    let azure = Azure::start(scenario);
    let run = machine.provision(&["--media=/nonexistent"]);
    (run, azure.end())
}

fn keys(machine: &Machine, user: &str) -> String {
    machine.read(&format!("home/{user}/.ssh/authorized_keys"))
}

#[test]
fn service_wins_where_it_and_the_disc_speak() {
    on_machine(|machine| {
        machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
        let azure = Azure::start(&format!(
            "vm.computer_name = other01\nvm.user = otheradmin\nvm.key = {OTHER_KEY}"
        ));
        machine.provision(&[]).exits(0);
        let heard = azure.end();
        heard.ready();
        assert_eq!(machine.read("etc/hostname"), "other01\n");
        assert_eq!(keys(machine, "otheradmin"), format!("{OTHER_KEY}\n"));
        assert!(!machine.has(&format!("home/{USER}")));
        assert_eq!(report().identity.as_str(), "disc+imds");
    });
}

#[test]
fn one_bad_key_in_the_services_list_leaves_the_list_to_the_disc() {
    on_machine(|machine| {
        machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
        let azure = Azure::start(&format!(
            "vm.key = {OTHER_KEY}\nvm.key = MIIDXTCCAkWgAwIBAgIJ"
        ));
        machine.provision(&[]).exits(0);
        azure.end().ready();
        assert_eq!(keys(machine, USER), format!("{KEY}\n"));
    });
}

#[test]
fn service_alone_gives_an_identity_without_password_and_custom_data() {
    on_machine(|machine| {
        let (run, heard) = provision_without_disc(machine, "vm.user_data = I2Nsb3VkLWNvbmZpZwo=");
        run.exits(0)
            .says("note: there is no disc: no password and no custom data")
            .says(&format!("root ok host={HOST_NAME} user={USER}"));
        heard.ready();
        assert_eq!(keys(machine, USER), format!("{KEY}\n"));
        assert_eq!(
            machine.read("var/lib/preroot/custom-data"),
            "#cloud-config\n"
        );
        assert_eq!(report().identity.as_str(), "imds");
        assert_eq!(report().result, Outcome::Ready);
    });
}

#[test]
fn service_that_is_slow_silent_or_in_trouble_does_not_hold_up_a_disc_that_suffices() {
    on_machine(|machine| {
        for trouble in [
            "tcp.imds = silent",
            "tcp.imds = refused",
            "tcp.imds = reset",
            "imds.answers = delay:5s",
            "imds.answers = never",
            "imds.answers = 404",
            "imds.answers = garbage",
            "imds.answers = truncated",
            "vm.pps =",
        ] {
            machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
            let azure = Azure::start(trouble);
            let run = machine.provision(&[]);
            run.exits(0).says("ready reported status=200");
            azure.end().ready();
            assert!(run.took < Duration::from_millis(1500), "{trouble}: {run}");
            assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
            machine.reinstall();
        }
    });
}

#[test]
fn service_is_asked_again_until_it_answers_where_there_is_no_disc() {
    on_machine(|machine| {
        for trouble in [
            "imds.answers = 404, ok",
            "imds.answers = 410, ok",
            "imds.answers = 429, ok",
            "imds.answers = 500, ok",
            "imds.answers = 503, ok",
            "imds.answers = truncated, ok",
            "imds.answers = chunked+drip:1ms",
            "imds.answers = close",
            "imds.answers = bom, ok",
        ] {
            let (run, heard) = provision_without_disc(machine, trouble);
            run.exits(0).says("ready reported status=200");
            heard.ready();
            assert!(run.took < Duration::from_secs(6), "{trouble}: {run}");
            assert_eq!(keys(machine, USER), format!("{KEY}\n"), "{trouble}");
            machine.reinstall();
        }
    });
}

#[test]
fn older_service_is_asked_in_its_own_version_and_adds_only_keys() {
    on_machine(|machine| {
        machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
        let azure = Azure::start(&format!("imds.newest = 2020-06-01\nvm.key = {OTHER_KEY}"));
        machine.provision(&[]).exits(0);
        let heard = azure.end();
        heard.ready();
        let asked: Vec<String> = heard
            .requests()
            .filter_map(|request| request.target.strip_prefix("/metadata/").map(String::from))
            .collect();
        assert_eq!(
            asked,
            [
                "instance?api-version=2021-08-01&extended=true",
                "instance?api-version=2019-06-01"
            ]
        );
        assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
        assert_eq!(keys(machine, USER), format!("{OTHER_KEY}\n"));
    });
}

#[test]
fn pool_machine_is_refused_by_name_whoever_says_so() {
    on_machine(|machine| {
        for kind in ["Running", "Savable", "PreprovisionedOSDisk"] {
            machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
            let azure = Azure::start(&format!("vm.pps = {kind}"));
            let run = machine.provision(&[]);
            let reason = format!("unsupported pre-provisioned VM type={kind}");
            run.exits(111).says(&format!("failed: {reason}"));
            assert!(azure.end().failed().contains(&reason));
            assert!(!machine.has(&format!("home/{USER}")));
            machine.reinstall();
        }
    });
}

#[test]
fn service_that_speaks_of_another_machine_is_not_believed() {
    on_machine(|machine| {
        machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
        let azure = Azure::start(&format!(
            "vm.id = {OTHER_VM_ID}\nvm.computer_name = other01"
        ));
        let run = machine.provision(&[]);
        run.exits(0)
            .says("imds ignored: it speaks of another machine");
        azure.end().ready();
        assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
    });
}

#[test]
fn ordinary_boot_asks_nobody() {
    on_machine(|machine| {
        machine.insert(&Document::new(HOST_NAME, USER).key(KEY));
        let azure = Azure::start("healthy");
        machine.provision(&[]).exits(0);
        azure.end().ready();
        let azure = Azure::start("vm.computer_name = other01");
        machine.provision(&[]).exits(0).says("nothing to do");
        azure.end().nothing();
        assert_eq!(machine.read("etc/hostname"), format!("{HOST_NAME}\n"));
    });
}

#[test]
fn what_is_expected_and_not_there_is_noted() {
    on_machine(|machine| {
        machine.insert(
            &Document::new(HOST_NAME, USER)
                .key(KEY)
                .provision_guest_proxy_agent(),
        );
        let azure = Azure::start("vm.custom_data = yes");
        machine
            .provision(&[])
            .exits(0)
            .says("note: failure to read customData while hasCustomData=true")
            .says("note: the platform expects azure-proxy-agent");
        azure.end().ready();
    });
}

#[test]
fn pool_machine_without_a_disc_is_no_specialized_one() {
    on_machine(|machine| {
        let (run, heard) =
            provision_without_disc(machine, "vm.pps = Savable\nvm.user =\nvm.computer_name =");
        let reason = "unsupported pre-provisioned VM type=Savable";
        run.exits(111).says(&format!("failed: {reason}"));
        assert!(heard.failed().contains(reason));
    });
}

#[test]
fn service_is_asked_even_where_nothing_is_reported() {
    on_machine(|machine| {
        let azure = Azure::start("healthy");
        machine
            .provision(&["--media=/nonexistent", "--ready=never"])
            .exits(0)
            .says(&format!("root ok host={HOST_NAME} user={USER}"));
        azure.end().undecided();
        assert_eq!(keys(machine, USER), format!("{KEY}\n"));
    });
}

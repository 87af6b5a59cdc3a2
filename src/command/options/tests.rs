//! Which words are taken, and whose is the last.

use super::*;
use crate::engine::plan::Step;

fn take(arguments: &[&str]) -> Result<Options, OptionFault> {
    let mut options = Options::default();
    options
        .take_arguments(arguments.iter().map(|argument| argument.as_bytes()))
        .map_err(|(_, fault)| fault)?;
    Ok(options)
}

#[test]
fn both_forms_of_an_argument_are_taken() {
    for arguments in [
        &["--nic", "eth1", "--dry-run"][..],
        &["--nic=eth1", "--dry-run=yes"],
    ] {
        let options = take(arguments).unwrap();
        assert_eq!(options.nic, Some(Nic::Name("eth1".into())));
        assert!(options.dry_run);
    }
}

#[test]
fn interface_is_a_name_or_a_hardware_address() {
    let address = [0x00, 0x0d, 0x3a, 0xff, 0x22, 0x33];
    let options = take(&["--nic", "00:0D:3A:FF:22:33"]).unwrap();
    assert_eq!(options.nic, Some(Nic::Address(address)));
    // What is none is a name, and most are too long for one.
    let options = take(&["--nic", "0:d:3a:ff:22:33"]).unwrap();
    assert_eq!(options.nic, Some(Nic::Name("0:d:3a:ff:22:33".into())));
    let fault = take(&["--nic", "00:0d:3a:ff:22:33:44"]).unwrap_err();
    assert!(matches!(fault, OptionFault::BadValue(_)));
}

#[test]
fn reason_is_for_reports_of_failure_only_and_is_cut_between_characters() {
    assert_eq!(take(&["--reason", "x"]).unwrap_err(), OptionFault::Unknown);
    let mut options = Options::of(Task::Failed);
    let long = "ä".repeat(600);
    options.take("reason", Some(&long)).unwrap();
    assert_eq!(options.reason.unwrap(), "ä".repeat(512));
    let mut options = Options::of(Task::Failed);
    options.take("reason", Some("")).unwrap();
    assert_eq!(options.reason, None);
}

#[test]
fn wrong_arguments_say_what_is_wrong() {
    assert_eq!(take(&["--nick", "x"]).unwrap_err(), OptionFault::Unknown);
    assert_eq!(take(&["nic"]).unwrap_err(), OptionFault::Unknown);
    assert_eq!(take(&["--nic"]).unwrap_err(), OptionFault::NoValue);
    assert_eq!(take(&["--nic="]).unwrap_err(), OptionFault::NoValue);
    for arguments in [
        ["--timeout", "soon"],
        ["--timeout", "86401"],
        ["--timeout", "-1"],
        ["--ready", "Rooted"],
        ["--vm-id", "0"],
        ["--platform", "aws"],
        ["--nic", "a-name-too-long-for-it"],
    ] {
        let fault = take(&arguments).unwrap_err();
        assert!(matches!(fault, OptionFault::BadValue(_)), "{arguments:?}");
    }
}

#[test]
fn kernel_arguments_have_the_last_word_and_mistakes_are_only_named() {
    let mut options = take(&["--nic", "eth1", "--timeout", "5"]).unwrap();
    let line = CommandLine::new(
        b"quiet preroot.nic=eth7 root=/dev/sda preroot.wait_root=3 preroot.tpyo=1 \
          preroot.dry-run preroot.ready=soon",
    );
    let mut complaints = std::vec::Vec::new();
    options.take_kernel_arguments(&line, &mut |name, fault| {
        complaints.push((std::string::String::from(name), fault));
    });
    assert_eq!(options.nic, Some(Nic::Name("eth7".into())));
    assert_eq!(options.wait_root, Some(Duration::from_secs(3)));
    assert_eq!(options.timeout, Duration::from_secs(5));
    assert!(options.dry_run);
    let names: std::vec::Vec<_> = complaints.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["tpyo", "ready"]);
}

fn settings(file: &str, from: From, options: &mut Options) -> std::vec::Vec<(usize, String)> {
    let mut complaints = std::vec::Vec::new();
    options.take_file(file.as_bytes(), from, &mut |line, name, fault| {
        complaints.push((line, std::format!("{name}: {fault}")));
    });
    complaints
}

#[test]
fn each_source_has_the_word_over_those_before_it() {
    // (kernel, program, root, initramfs, waagent.conf) and what comes of it.
    for (kernel, program, root, initramfs, waagent, lock) in [
        ("", "", "", "", "", false),
        ("", "", "", "", "y", true),
        ("", "", "", "keep", "y", false),
        ("", "", "lock", "keep", "n", true),
        ("", "", "keep", "lock", "y", false),
        ("", "keep", "lock", "lock", "y", false),
        ("", "lock", "keep", "keep", "", true),
        ("keep", "lock", "lock", "lock", "y", false),
        ("lock", "keep", "keep", "keep", "", true),
    ] {
        let mut options = Options::default();
        if !program.is_empty() {
            let argument = std::format!("--root-password={program}");
            options
                .take_arguments(core::iter::once(argument.as_bytes()))
                .unwrap();
        }
        let line = match kernel {
            "" => String::new(),
            word => std::format!("preroot.root_password={word}"),
        };
        options.take_kernel_arguments(
            &CommandLine::new(line.as_bytes()),
            &mut |_, _| unreachable!(),
        );
        for (word, from) in [(initramfs, From::Initramfs), (root, From::Root)] {
            if !word.is_empty() {
                let file = std::format!("root-password = {word}\n");
                assert_eq!(settings(&file, from, &mut options), []);
            }
        }
        let file = std::format!("Provisioning.DeleteRootPassword={waagent}\n");
        options.take_waagent(file.as_bytes(), &mut |_, _| unreachable!());
        assert_eq!(
            options.settings.lock_root, lock,
            "{kernel} {program} {root} {initramfs} {waagent}"
        );
    }
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line_and_nothing_else_is_lost() {
    let file = "# ours\nsudo = sometimes\ntpyo = 1\ncustomdata.exec\nsteps = hostname\n\n\
                nic = eth0\ndry_run\n";
    let mut options = Options::default();
    assert_eq!(
        settings(file, From::Initramfs, &mut options),
        [
            (
                2,
                "sudo: its value must be auto, nopasswd, password or never".into()
            ),
            (3, "tpyo: there is no such option".into()),
            (4, "customdata.exec: it needs a value".into()),
        ]
    );
    assert_eq!(options.nic, Some(Nic::Name("eth0".into())));
    assert!(options.dry_run);
    assert_eq!(Some(options.steps), Steps::parse("hostname").ok());
    assert_eq!(options.settings, Settings::DEFAULT);
}

#[test]
fn root_is_told_what_it_is_too_late_for() {
    let mut options = Options::default();
    let file = "nic = eth0\nready = never\nonfail = shell\n";
    let complaints = settings(file, From::Root, &mut options);
    let lines: std::vec::Vec<_> = complaints.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 3]);
    assert!(complaints[0].1.contains("try the initramfs"));
    assert_eq!(options.nic, None);
    assert_eq!(options.on_fail, OnFail::Reboot);
    assert_eq!(options.ready, Ready::Never);
}

#[test]
fn waagents_file_is_honoured_where_it_is_about_provisioning() {
    let mut options = Options::default();
    let mut named = std::vec::Vec::new();
    // What Debian ships.
    let shipped = "Provisioning.Agent=cloud-init\nProvisioning.DeleteRootPassword=y\n\
                   Provisioning.RegenerateSshHostKeyPair=y\nProvisioning.AllowResetSysUser=n\n\
                   Provisioning.ExecuteCustomData=n\nResourceDisk.Format=y\nOS.SshDir=/etc/ssh\n";
    options.take_waagent(shipped.as_bytes(), &mut |name, _| {
        named.push(String::from(name));
    });
    assert!(named.is_empty(), "{named:?}");
    assert!(options.settings.lock_root && !options.settings.system_users);
    assert_eq!(options.steps, Steps::ALL);

    let other = "Provisioning.RegenerateSshHostKeyPair=n\nProvisioning.AllowResetSysUser=y\n\
                 Provisioning.ExecuteCustomData=y\nProvisioning.PasswordCryptId=2a\n\
                 Lib.Dir=/srv/waagent\nOS.SudoersDir=/etc/sudoers.d/\n";
    let mut options = Options::default();
    options.take_waagent(other.as_bytes(), &mut |name, _| {
        named.push(String::from(name));
    });
    assert_eq!(
        named,
        [
            "Provisioning.ExecuteCustomData",
            "Provisioning.PasswordCryptId",
            "Lib.Dir"
        ]
    );
    assert!(options.settings.system_users && !options.settings.lock_root);
    assert!(!options.settings.run_custom_data);
    for step in ALL_STEPS {
        assert_eq!(options.steps.has(step), step != Step::HostKeys, "{step:?}");
    }
}

const ALL_STEPS: [Step; 9] = [
    Step::HostName,
    Step::User,
    Step::Password,
    Step::Keys,
    Step::Sudo,
    Step::Sshd,
    Step::HostKeys,
    Step::CustomData,
    Step::Markers,
];

#[test]
fn every_option_is_in_the_help() {
    for (name, _) in NAMES {
        let long = std::format!("\n  --{name} ");
        let kernel = std::format!("\n  preroot.{name}=");
        let of_command = std::format!(" [--{name} ");
        let help = super::super::help::HELP;
        let forms = [long, kernel, of_command];
        assert!(forms.iter().any(|form| help.contains(form)), "{name}");
    }
}

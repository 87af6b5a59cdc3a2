//! The files that say the work is done: ours, and those that other agents look for.
//!
//! waagent, cloud-init and azure-init would each provision again, from a disc that is gone. What keeps
//! them from it is written only where they are in the root.

use alloc::string::String;
use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::draft::{Draft, Place, content, text};
use super::{Action, Outcome, Output, Plan, PlanFault, RootView};
use crate::wire::accounts::File;
use crate::wire::ovf::Password;

const DIRECTORY: &str = "/var/lib/preroot";
const CONFIGURED: &str = "/var/lib/preroot/configured";
const REPORTED: &str = "/var/lib/preroot/reported";
/// What `DIRECTORY` is for.
const STATE: &str = "state of preroot";
const REPORT: &str = "/var/lib/preroot/report.json";

/// Longest VM id that is believed: a UUID with its line break.
const ID_MAX: usize = 64;

const WAAGENT: [&str; 4] = [
    "/usr/sbin/waagent",
    "/usr/bin/waagent",
    "/usr/lib/waagent/waagent",
    "/etc/waagent.conf",
];
const CLOUD_INIT: [&str; 3] = [
    "/usr/bin/cloud-init",
    "/bin/cloud-init",
    "/etc/cloud/cloud.cfg",
];
/// What keeps waagent from doing anything.
const NO_AGENT: &str = "/var/lib/waagent/disable_agent";
/// What keeps cloud-init from doing anything.
const DISABLED: &str = "/etc/cloud/cloud-init.disabled";
/// Where cloud-init looks for the source that is a directory.
const SEED: &str = "/var/lib/cloud/seed/nocloud";
/// What cloud-init shall not do when it has the custom data: everything that is done.
const CLOUD_INIT_RULES: &str = "\
# preroot has provisioned this machine; only the custom data is left to act on.
datasource_list: [NoCloud]
users: []
preserve_hostname: true
ssh_deletekeys: false
ssh_genkeytypes: [ed25519]
network: {config: disabled}
";
const AZURE_INIT: [&str; 3] = [
    "/usr/bin/azure-init",
    "/usr/sbin/azure-init",
    "/usr/local/bin/azure-init",
];

/// Reads the id of the VM that the root was configured for.
pub fn configured_for(root: &dyn RootView) -> Result<Option<String>, PlanFault> {
    id_in(root, CONFIGURED)
}

/// Reads the id of the VM that was reported ready from this root.
pub fn reported_for(root: &dyn RootView) -> Result<Option<String>, PlanFault> {
    id_in(root, REPORTED)
}

/// Makes the plan that leaves the report of a boot on the root, and, after one that was reported
/// ready, that `reported` was.
#[inline(never)]
pub fn notes(reported: Option<&str>, report: Vec<u8>) -> Plan {
    let mut plan = Plan::default();
    plan.push(
        &Place::system(DIRECTORY, 0o700),
        Action::Directory,
        format_args!("{STATE}"),
    );
    plan.push(
        &Place::system(REPORT, 0o600),
        Action::Write(Zeroizing::new(report)),
        format_args!("what happened on this boot"),
    );
    if let Some(vm_id) = reported {
        plan.push(
            &Place::system(REPORTED, 0o600),
            Action::Write(line(vm_id)),
            format_args!("VM {vm_id} was reported ready"),
        );
    }
    plan
}

fn id_in(root: &dyn RootView, path: &'static str) -> Result<Option<String>, PlanFault> {
    let found = root
        .read(path, ID_MAX)
        .map_err(|fault| PlanFault::Root(path, fault))?;
    let id = found.and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(id
        .map(|id| String::from(id.trim()))
        .filter(|id| !id.is_empty()))
}

fn line(text: &str) -> File {
    content(format_args!("{text}\n"))
}

/// Tells whether the root was another VM's: what the platform said of that one may still be in it.
pub(super) fn is_anothers(draft: &Draft<'_>) -> Outcome<bool> {
    let marker = draft.read_or_empty(CONFIGURED)?;
    let id = marker.trim_ascii();
    Ok(!id.is_empty() && !id.eq_ignore_ascii_case(draft.context.vm_id.as_bytes()))
}

/// Adds our own directory.
pub(super) fn directory(draft: &mut Draft<'_>) -> Outcome<()> {
    draft.system_directory(DIRECTORY, 0o700, STATE)
}

/// Adds the markers for the agents in the root, and ours as the very last change.
#[inline(never)]
pub(super) fn add(draft: &mut Draft<'_>) -> Outcome<()> {
    let vm_id = draft.context.vm_id;
    if has_waagent(draft)? {
        waagent(draft)?;
    }
    if draft.has_any(&CLOUD_INIT)? && !seeds_cloud_init(draft)? {
        draft.write_system(
            DISABLED,
            0o644,
            File::default(),
            format_args!("keep cloud-init from provisioning again"),
        )?;
    }
    if draft.has_any(&AZURE_INIT)? {
        draft.system_directory("/var/lib/azure-init", 0o700, "state of azure-init")?;
        draft.write_system(
            &text(format_args!("/var/lib/azure-init/{vm_id}.provisioned")),
            0o600,
            File::default(),
            format_args!("keep azure-init from provisioning again"),
        )?;
    }
    if draft.context.output != Output::Files {
        // What is gone with the boot is done on each.
        return Ok(());
    }
    directory(draft)?;
    let purpose = format_args!("configured for VM {vm_id}");
    draft.write_system(CONFIGURED, 0o600, line(vm_id), purpose)
}

/// Leaves cloud-init the custom data, if there is any and that is wanted, from a source that says
/// nothing else: that of Azure would provision again and report over us.
#[inline(never)]
fn seeds_cloud_init(draft: &mut Draft<'_>) -> Outcome<bool> {
    let data = draft.identity.custom_data.as_ref();
    let Some(data) = data.filter(|_| draft.context.settings.cloud_init) else {
        return Ok(false);
    };
    let Some(data) = data.decode() else {
        return Ok(false);
    };
    let host_name = draft.identity.host_name.as_str();
    let id = draft.context.vm_id;
    let meta = content(format_args!(
        "instance-id: {id}\nlocal-hostname: {host_name}\n"
    ));
    let rules = File::new(CLOUD_INIT_RULES.as_bytes().to_vec());
    let purpose = format_args!("leave cloud-init only the custom data");
    if draft.has(DISABLED)? {
        draft.remove(DISABLED, "leave cloud-init only the custom data");
    }
    draft.system_directory(SEED, 0o700, "custom data for cloud-init")?;
    for (path, mode, content) in [
        ("/etc/cloud/cloud.cfg.d/99-preroot.cfg", 0o644, rules),
        ("/var/lib/cloud/seed/nocloud/meta-data", 0o600, meta),
        (
            "/var/lib/cloud/seed/nocloud/user-data",
            0o600,
            data.into_bytes(),
        ),
    ] {
        draft.write_system(path, mode, content, purpose)?;
    }
    Ok(true)
}

/// Tells whether waagent is in the root.
pub(super) fn has_waagent(draft: &Draft<'_>) -> Outcome<bool> {
    draft.has_any(&WAAGENT)
}

/// Leaves waagent what it would have left itself, so that it goes straight to its extensions.
#[inline(never)]
fn waagent(draft: &mut Draft<'_>) -> Outcome<()> {
    let identity = draft.identity;
    draft.system_directory("/var/lib/waagent", 0o700, "state of waagent")?;
    let host_name = identity.host_name.as_str();
    let user = identity.admin.as_ref().map_or("", |admin| admin.as_str());
    // Checked names only: nothing in them needs escaping.
    let password = match identity.password {
        Password::None => "",
        Password::Given(_) | Password::Redacted => "<UserPassword>REDACTED</UserPassword>",
    };
    let disable = !identity.password_authentication;
    let agent = identity.guest_agent;
    let document = content(format_args!(
        r#"<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <wa:ProvisioningSection>
    <wa:Version>1.0</wa:Version>
    <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
      <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
      <HostName>{host_name}</HostName>
      <UserName>{user}</UserName>{password}
      <DisableSshPasswordAuthentication>{disable}</DisableSshPasswordAuthentication>
    </LinuxProvisioningConfigurationSet>
  </wa:ProvisioningSection>
  <wa:PlatformSettingsSection>
    <wa:Version>1.0</wa:Version>
    <PlatformSettings xmlns="http://schemas.microsoft.com/windowsazure" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">
      <ProvisionGuestAgent>{agent}</ProvisionGuestAgent>
      <PreprovisionedVm>false</PreprovisionedVm>
    </PlatformSettings>
  </wa:PlatformSettingsSection>
</Environment>
"#
    ));
    for (path, mode, content) in [
        // What it makes of the mode itself, at each start.
        ("/var/lib/waagent/ovf-env.xml", 0o400, document),
        (
            "/var/lib/waagent/published_hostname",
            0o600,
            content(format_args!("{host_name}")),
        ),
        (
            "/var/lib/waagent/provisioned",
            0o600,
            content(format_args!("{}", draft.context.vm_id)),
        ),
    ] {
        let purpose = format_args!("keep waagent from provisioning again");
        draft.write_system(path, mode, content, purpose)?;
    }
    if !agent {
        let purpose = format_args!("the platform wants no guest agent");
        draft.write_system(NO_AGENT, 0o600, File::default(), purpose)?;
    } else if is_anothers(draft)? && draft.has(NO_AGENT)? {
        draft.remove(NO_AGENT, "the platform wants the guest agent");
    }
    Ok(())
}

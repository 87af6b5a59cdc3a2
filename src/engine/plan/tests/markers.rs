//! What is left for the next boot and for other agents.

use super::*;

#[test]
fn marker_that_is_none_is_replaced() {
    let mut root = Memory::of("debian");
    root.directory("/var/lib/preroot");
    root.file("/var/lib/preroot/configured", &"\0".repeat(4096));
    let new = after(&with_key("ops"), root);
    assert_eq!(configured_for(&new).unwrap().as_deref(), Some(VM));
}

#[test]
fn configured_is_the_last_change() {
    for distribution in ["debian", "alpine", "fedora"] {
        let plan = planned(&with_key("ops"), &Memory::of(distribution));
        assert_eq!(
            plan.changes.last().unwrap().path,
            "/var/lib/preroot/configured"
        );
    }
}

#[test]
fn notes_are_left_even_where_nothing_was_configured() {
    let mut root = Memory::of("debian");
    root.apply(&notes(None, b"{}".to_vec()).changes);
    assert_eq!(reported_for(&root).unwrap(), None);
    root.apply(&notes(Some(VM), b"{}".to_vec()).changes);
    assert_eq!(reported_for(&root).unwrap().as_deref(), Some(VM));
    assert_eq!(configured_for(&root).unwrap(), None);
}

#[test]
fn other_agents_find_their_work_done() {
    let mut root = with_agents();
    root.directory("/etc/cloud");
    let mut identity = with_password("ops");
    identity.guest_agent = false;
    let new = after(&identity, root);
    assert_eq!(new.text("/var/lib/waagent/provisioned"), VM);
    assert_eq!(new.text("/var/lib/waagent/published_hostname"), "vm-demo01");
    assert_eq!(new.looks("/var/lib/waagent"), (0o700, (0, 0)));
    assert_eq!(new.text("/var/lib/waagent/disable_agent"), "");
    assert_eq!(new.text("/etc/cloud/cloud-init.disabled"), "");
    let marker = format!("/var/lib/azure-init/{VM}.provisioned");
    assert_eq!(new.looks(&marker), (0o600, (0, 0)));

    let copy = ovf::parse(new.text("/var/lib/waagent/ovf-env.xml").as_bytes())
        .ok()
        .unwrap();
    assert_eq!(copy.host_name, "vm-demo01");
    assert_eq!(copy.user_name.as_deref(), Some("ops"));
    assert!(matches!(copy.password, ovf::Password::Redacted));
    assert_eq!(copy.disable_password_authentication, Some(false));
    assert!(!copy.guest_agent && copy.public_keys.is_empty() && copy.custom_data.is_none());
}

#[test]
fn what_the_platform_said_of_another_vm_is_gone_on_the_next() {
    let data = "<UserName>ops</UserName><CustomData>aGVsbG8=</CustomData>";
    let mut first = identity(data, &[KEY]);
    first.guest_agent = false;
    let root = after(&first, with_agents());
    let stale = [
        "/var/lib/preroot/custom-data",
        "/var/lib/waagent/CustomData",
        "/var/lib/waagent/disable_agent",
    ];
    assert!(stale.iter().all(|path| root.0.contains_key(*path)));
    // Without its marker it is the same machine, whose disc is gone.
    let mut unmarked = root.clone();
    unmarked.0.remove("/var/lib/preroot/configured");
    let unmarked = after(&with_key("ops"), unmarked);
    assert!(stale.iter().all(|path| unmarked.0.contains_key(*path)));
    // Nor is it another that is provisioned on each boot.
    let context = Context {
        output: Output::Credentials { etc: true },
        ..CONTEXT
    };
    let again = plan(&with_key("ops"), &root, &context).ok().unwrap();
    let mut changes = again.changes.iter();
    assert!(changes.all(|change| !stale.contains(&change.path.as_str())));
    // Custom data that cannot be read is none.
    let bad = "<UserName>ops</UserName><CustomData>!</CustomData>";
    for identity in [with_key("ops"), identity(bad, &[KEY])] {
        let context = Context {
            vm_id: "another",
            ..CONTEXT
        };
        let plan = plan(&identity, &root, &context).ok().unwrap();
        let mut next = root.clone();
        next.apply(&plan.changes);
        assert!(stale.iter().all(|path| !next.0.contains_key(*path)));
        assert_eq!(next.text("/var/lib/waagent/provisioned"), "another");
    }
}

#[test]
fn agents_that_are_not_there_get_no_files() {
    let new = after(&with_key("ops"), Memory::of("debian"));
    assert!(
        new.0
            .keys()
            .all(|path| !path.contains("waagent") && !path.contains("cloud"))
    );
}

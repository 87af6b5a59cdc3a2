//! Where the root's programs look for name servers, and what to write there.
//!
//! A file of the root is written only if it differs: an ordinary boot touches nothing. What lies on `/run`
//! is of this boot, and is made again on each. Follows resolv.conf(5) and systemd-resolved(8), whose link
//! is left alone.

use alloc::string::String;
use core::net::Ipv4Addr;

use zeroize::Zeroizing;

use super::draft::{Place, ROOT, text};
use super::{Action, Kind, Plan, RootView};
use crate::engine::managers;
use crate::wire::accounts::FILE_MAX;

const FILE: &str = "/etc/resolv.conf";
/// What systemd-resolved reads besides its own configuration.
const DROP_IN: &str = "/run/systemd/resolved.conf.d/preroot.conf";

/// What is to be done.
pub enum Resolver {
    /// This is to be changed in the root, if anything.
    Root(Plan),
    /// This file of the running system is to have this content.
    Running(String, String),
    /// Nothing can be done; why.
    Stays(&'static str),
}

/// Computes how the root's programs come to ask these servers, and to search these domains.
#[inline(never)]
pub fn resolver(root: &dyn RootView, servers: &[Ipv4Addr], domain: &str) -> Resolver {
    let target = match root.target(FILE) {
        Ok(Some(target)) => target,
        Ok(None) => return regular(root, file(servers, domain)),
        Err(_) => return Resolver::Stays("/etc/resolv.conf cannot be looked at"),
    };
    // From `/etc` it is one step up to the root. `/var/run` is `/run` wherever there is a `/run`.
    let below = target.strip_prefix("..").unwrap_or(&target);
    let below = below.strip_prefix("/var/run/").map_or_else(
        || String::from(below),
        |rest| text(format_args!("/run/{rest}")),
    );
    let is_resolveds =
        below.starts_with("/run/systemd/resolve/") || below == "/usr/lib/systemd/resolv.conf";
    if is_resolveds && managers::has_resolved(root) {
        let mut content = String::from("# From the DHCP lease, by preroot.\n[Resolve]\n");
        for server in servers {
            content.push_str(&text(format_args!("DNS={server}\n")));
        }
        content.push_str(&text(format_args!("Domains={domain}\n")));
        Resolver::Running(String::from(DROP_IN), content)
    } else if below.starts_with("/run/") && below.split('/').all(|part| part != "..") {
        Resolver::Running(below, file(servers, domain))
    } else {
        Resolver::Stays("/etc/resolv.conf is a link of somebody else's")
    }
}

/// Plans the file of a root that has one, or none.
fn regular(root: &dyn RootView, content: String) -> Resolver {
    let mut plan = Plan::default();
    let (owner, mode) = match root.stat(FILE) {
        Ok(Some(stat)) if stat.kind == Kind::File => {
            if let Ok(Some(old)) = root.read(FILE, FILE_MAX)
                && old == content.as_bytes()
            {
                return Resolver::Root(plan);
            }
            (stat.owner, stat.mode)
        }
        Ok(None) if matches!(root.stat("/etc"), Ok(Some(_))) => (ROOT, 0o644),
        _ => return Resolver::Stays("/etc/resolv.conf is no file"),
    };
    let place = Place {
        owner,
        ..Place::system(FILE, mode)
    };
    let content = Action::Write(Zeroizing::new(content.into_bytes()));
    plan.push(&place, content, format_args!("name servers of the lease"));
    Resolver::Root(plan)
}

fn file(servers: &[Ipv4Addr], domain: &str) -> String {
    let mut file = String::from("# From the DHCP lease, by preroot.\n");
    if !domain.is_empty() {
        file.push_str(&text(format_args!("search {domain}\n")));
    }
    for server in servers {
        file.push_str(&text(format_args!("nameserver {server}\n")));
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::managers::tests::Laid;
    use std::fs;

    const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(1, 1, 1, 1)];
    const RESOLVED: &str =
        "/etc/systemd/system/sysinit.target.wants/systemd-resolved.service -> /usr/lib/systemd/x";
    const FILE_CONTENT: &str = "# From the DHCP lease, by preroot.\nsearch a.b c.d\n\
                                nameserver 168.63.129.16\nnameserver 1.1.1.1\n";

    /// Lays out a root and tells what is to be done, in one word and the content.
    fn done(list: &str) -> (String, String) {
        let laid = Laid::out(list);
        match resolver(&laid.root(), &SERVERS, "a.b c.d") {
            Resolver::Stays(why) => (String::from("stays"), String::from(why)),
            Resolver::Running(path, content) => (path, content),
            Resolver::Root(plan) => match &plan.changes[..] {
                [] => (String::from("nothing"), String::new()),
                [change] => {
                    assert_eq!(change.path, "/etc/resolv.conf");
                    let Action::Write(content) = &change.action else {
                        panic!("{change}");
                    };
                    laid.root().note(&plan).unwrap();
                    let again = resolver(&laid.root(), &SERVERS, "a.b c.d");
                    assert!(matches!(again, Resolver::Root(plan) if plan.is_empty()));
                    assert_eq!(fs::read(laid.path("/etc/resolv.conf")).unwrap(), **content);
                    let content = String::from_utf8(content.to_vec()).unwrap();
                    (text(format_args!("{:o}", change.mode)), content)
                }
                more => panic!("{} changes", more.len()),
            },
        }
    }

    #[test]
    fn file_is_written_where_there_is_none_or_another_one_and_then_no_more() {
        let written = (String::from("644"), String::from(FILE_CONTENT));
        assert_eq!(done("/etc/"), written);
        assert_eq!(done("/etc/resolv.conf: nameserver 9.9.9.9|"), written);
    }

    #[test]
    fn resolveds_link_is_left_alone_and_it_is_told_by_a_file_of_its_own() {
        for target in [
            "/run/systemd/resolve/stub-resolv.conf",
            "../run/systemd/resolve/stub-resolv.conf",
            "../run/systemd/resolve/resolv.conf",
            "/var/run/systemd/resolve/resolv.conf",
            "/usr/lib/systemd/resolv.conf",
        ] {
            let list = text(format_args!("{RESOLVED}\n/etc/resolv.conf -> {target}"));
            let (path, content) = done(&list);
            assert_eq!(path, DROP_IN, "{target}");
            assert_eq!(
                content,
                "# From the DHCP lease, by preroot.\n[Resolve]\nDNS=168.63.129.16\nDNS=1.1.1.1\n\
                 Domains=a.b c.d\n"
            );
        }
    }

    #[test]
    fn other_links_to_run_are_written_through() {
        for (target, path) in [
            (
                "../run/systemd/resolve/stub-resolv.conf",
                "/run/systemd/resolve/stub-resolv.conf",
            ),
            ("/run/resolvconf/resolv.conf", "/run/resolvconf/resolv.conf"),
            ("../var/run/x", "/run/x"),
        ] {
            let list = text(format_args!("/etc/resolv.conf -> {target}"));
            assert_eq!(
                done(&list),
                (String::from(path), String::from(FILE_CONTENT))
            );
        }
    }

    #[test]
    fn what_is_somebody_elses_stays() {
        for list in [
            "/etc/resolv.conf -> /etc/resolvconf/run/resolv.conf",
            "/etc/resolv.conf -> ../run/../etc/passwd",
            "/etc/resolv.conf -> run/x",
            "/etc/resolv.conf -> resolv.conf",
            "/etc/resolv.conf/",
            "/usr/",
        ] {
            assert_eq!(done(list).0, "stays", "{list}");
        }
    }

    #[test]
    fn without_domains_there_is_no_search() {
        assert!(!file(&SERVERS, "").contains("search"));
    }
}

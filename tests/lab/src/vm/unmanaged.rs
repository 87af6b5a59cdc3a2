//! The promise about a Debian in which nobody configures the network: preroot leaves it configured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use super::guest::{Desk, HOST_NAME};
use super::scene::{Broken, Scene};
use super::visit::{Errand, LIMIT, Visit};
use crate::boot::{Disc, Options};
use crate::ext4;
use crate::fault::Fault;
use crate::progress;

/// What tells the lab that the system is up, where nobody can be waited for to bring the network.
const TOLD: &str = "[Unit]
Description=Tells the lab that the system is up
After=ssh.service

[Service]
Type=oneshot
ExecStart=/usr/sbin/lab-init told
";

pub(super) fn no_network_manager(scene: &Scene) -> Result<(), Broken> {
    let directory = scene.directory.join("unmanaged");
    let desk = Arc::new(Desk::set(&scene.lab, &directory)?);
    let root = without_manager(scene, &directory)?;
    let options = |root: &Path| Options {
        root_disk: Some(root.to_owned()),
        disc: Disc::Empty,
        writable: false,
        time_limit: LIMIT,
        ..scene.options(&["systemd.show_status=0"])
    };
    let document = desk.written("document.xml", desk.document().build().as_bytes())?;
    let first = Visit::pay(
        &desk,
        Errand::First,
        Options {
            disc: Disc::Made,
            document: Some(document),
            ..options(&root)
        },
    )?;
    first.seen.ready()?;
    stays(&first)?;
    let second = Visit::pay(&desk, Errand::Second, options(&first.seen.0.root_disk))?;
    second.seen.says("nothing to do")?;
    stays(&second)
}

/// Fails unless the network is there as the platform gave it, and nothing else is amiss.
fn stays(visit: &Visit) -> Result<(), Broken> {
    visit.only("failed", "units failed", |_| false)?;
    visit.fact("state", "running")?;
    visit.fact("static_hostname", HOST_NAME)?;
    visit.only("link", "somebody manages the network", |link| {
        !link.ends_with("configured")
    })?;
    for (name, line) in [
        ("address", "inet 10.0.0.4/24 "),
        ("route", "default via 10.0.0.1 "),
        ("route", "168.63.129.16 via 10.0.0.1 "),
        ("route", "169.254.169.254 via 10.0.0.1 "),
        ("resolv", "nameserver 168.63.129.16"),
    ] {
        let found = visit.words.lines(name).any(|said| said.contains(line));
        visit.seen.expect(found, || {
            let all: Vec<_> = visit.words.lines(name).collect();
            format!("`{line}` is not among\n  {}", all.join("\n  "))
        })?;
    }
    visit.publishes_its_name_after(None)
}

/// Makes a copy of the disk in which networkd is switched off.
fn without_manager(scene: &Scene, directory: &Path) -> Result<PathBuf, Fault> {
    let disk = directory.join("disk");
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "--reflink=auto", "--"]);
    progress::run(copy.arg(scene.distro()?.disk()).arg(&disk))?;
    let told = directory.join("told");
    fs::write(&told, TOLD).map_err(Fault::file("write", &told))?;
    ext4::insert(
        &scene.lab,
        &disk,
        &told,
        "/etc/systemd/system/lab-told.service",
        0o644,
    )?;
    let debugfs = scene.lab.tool("debugfs")?.command();
    let network = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    ext4::edit(debugfs, &disk, &format!("rm {network}\n"))?;
    Ok(disk)
}

//! `preroot --help` and `--version`.

use super::{Exit, console};

/// What is printed.
pub(super) const HELP: &str = "\
preroot gives a Linux VM on Azure its identity before the real root starts.

usage: preroot COMMAND [OPTION]...

commands:
  provision   everything for this boot, then exit: what an initramfs hook calls
  prefetch    begin with what needs no root, and wait for a provision: what a
              hook may call as soon as there are devices; same options
  init        be /init: mounts, modules, root=, provision, switch to the real
              init (also when called as 'init'; options are kernel arguments)
  report ready
              tell the platform that this machine is ready, when --ready later
              left that to the running system
  report failed [--reason TEXT]
              tell it that the initramfs failed, with the end of the kernel's
              log, within 60 s: for emergency hooks
  lease       keep the lease of a root without a network manager: a service
  status      what happened on this boot, with a timeline; --json for programs
  --help, --version

options of provision, each also a line NAME = VALUE of /etc/preroot.conf, in the
initramfs or (those with *) in the root, and a kernel argument
preroot.NAME=VALUE, which has the last word:
  --root DIR          the real root (default: /sysroot, else /new_root)
  --wait-root SECONDS wait until DIR is a mount point; 0 takes it as it is
                      (default: 90 for the two default roots, 0 with --root)
  --platform WHICH    auto: ask the firmware, and exit 99 where it is not Azure
                      azure: believe the caller
  --nic NAME          use this interface, by its name or its hardware address
                      (default: all of driver hv_netvsc)
  --media PATH        read this device or image (default: the optical drives)
  --disc-reader WHO   own: never mount; kernel: always mount; auto: own, then
                      kernel
  --vm-id UUID        instead of the firmware's
  --ready WHEN *      rooted: report once the root is written and synced
                      early: report before; later: leave it to 'report ready'
                      in the running system; never: do not report
  --network WHAT *    keep: leave address, routes and DNS of the lease in place;
                      release: leave the interface as it was found; auto: keep
                      them where nobody in the root will configure it (default)
  --output HOW *      files: write in the root; credentials: leave it to the
                      root's systemd, on each boot; auto: the latter where the
                      root takes no writes (default)
  --steps LIST *      of hostname,user,password,keys,sudo,sshd,hostkeys,
                      customdata,markers (default: all)
  --sudo HOW *        nopasswd, password, never, or auto: with the password if
                      there is one, else without
  --system-users WHAT * allow: the user may be one below UID_MIN (never root);
                      refuse: fail (default)
  --root-password WHAT * lock, or keep (default)
  --customdata.exec YES * yes: run custom data that starts with #! once, in the
                      root, before Ready; no: keep it only (default)
  --cloud-init WHAT * where it is installed: off (default), or userdata: let it
                      act on the custom data, and on nothing else
  --report-host-key YES *
                      yes: publish its fingerprint through the WireServer, too;
                      no: show it on the console only (default)
  --timeout SECONDS   the whole budget; then the boot goes on (default: 1200)
  --dry-run           print what would be changed; change and report nothing
  --log WHERE         kmsg, stderr, or auto: stderr if that is a terminal other
                      than the console, else kmsg

kernel arguments of their own:
  preroot=off           do nothing at all
  preroot.onfail=WHAT   init without a root: reboot (default), poweroff, shell
  root= rootfstype= rootflags= rootwait rootdelay= ro rw init=   as everywhere

exit codes: 0 done or nothing to do, 99 not on this platform, 100 used wrongly,
111 failed. Whatever happens, the boot goes on.
";

/// Prints the help.
pub(super) fn print() -> Exit {
    printed(console::print(format_args!("{HELP}")))
}

/// Prints the version.
pub(super) fn version() -> Exit {
    printed(console::print(format_args!(
        "{} {}\n",
        crate::NAME,
        crate::VERSION
    )))
}

fn printed(printed: bool) -> Exit {
    if printed { Exit::Done } else { Exit::Failed }
}

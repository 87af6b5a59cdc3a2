//! Which modules are chosen, and in which order.

use std::fs;
use std::path::Path;

use initramfs::modules::{Choice, Fault, Request, Tree};

use crate::fixture::{RELEASE, scratch, tree};

fn only(names: &[&str]) -> Request {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    Request {
        only: Some(names),
        ..Request::default()
    }
}

fn choose(directory: &Path, request: &Request) -> Result<Choice, Fault> {
    Tree::open(directory).unwrap().choose(request)
}

fn order(directory: &Path, names: &[&str]) -> Vec<String> {
    choose(directory, &only(names)).unwrap().order
}

#[test]
fn deepest_dependency_is_first_as_depmod_lists_it_last() {
    let base = scratch("deepest");
    // As depmod writes it for virtio: the ring hung when it came second.
    let directory = tree(
        &base,
        "kernel/virtio_net.ko: kernel/net_failover.ko kernel/failover.ko kernel/virtio.ko kernel/virtio_ring.ko\n\
         kernel/virtio.ko: kernel/virtio_ring.ko\n\
         kernel/virtio_ring.ko:\n\
         kernel/net_failover.ko: kernel/failover.ko\n\
         kernel/failover.ko:\n\
         kernel/other.ko:\n",
    );
    let found = order(&directory, &["virtio_net"]);
    assert_eq!(
        found,
        [
            "virtio_ring",
            "virtio",
            "failover",
            "net_failover",
            "virtio_net"
        ]
    );
}

#[test]
fn each_module_comes_once_and_after_all_it_needs() {
    let base = scratch("once");
    let directory = tree(
        &base,
        "kernel/a.ko: kernel/c.ko kernel/d.ko\nkernel/b.ko: kernel/d.ko kernel/c.ko\n\
         kernel/c.ko: kernel/d.ko\nkernel/d.ko:\n",
    );
    assert_eq!(order(&directory, &["b", "a"]), ["d", "c", "b", "a"]);
}

#[test]
fn names_may_be_written_with_either_dash() {
    let base = scratch("dashes");
    let directory = tree(&base, "kernel/crc-itu-t.ko:\n");
    assert_eq!(order(&directory, &["crc_itu_t"]), ["crc_itu_t"]);
    assert_eq!(order(&directory, &["crc-itu-t"]), ["crc_itu_t"]);
}

#[test]
fn soft_dependencies_are_followed_through_aliases_and_round_circles() {
    let base = scratch("soft");
    let directory = tree(
        &base,
        "kernel/btrfs.ko:\nkernel/crc32c-intel.ko:\nkernel/crc32c_generic.ko:\nkernel/after.ko:\n\
         kernel/nothing.ko:\n",
    );
    fs::write(
        directory.join("modules.alias"),
        "# Aliases\nalias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n",
    )
    .unwrap();
    fs::write(
        directory.join("modules.softdep"),
        "softdep btrfs pre: crypto-crc32c not_there post: after\nsoftdep crc32c_intel pre: btrfs\n\
         softdep btrfs nothing\n",
    )
    .unwrap();
    let found = order(&directory, &["btrfs"]);
    assert_eq!(found, ["crc32c_intel", "crc32c_generic", "btrfs", "after"]);

    let without = Request {
        without: vec!["crc32c-intel".into(), "after".into()],
        ..only(&["btrfs"])
    };
    assert_eq!(
        choose(&directory, &without).unwrap().order,
        ["crc32c_generic", "btrfs"]
    );
}

#[test]
fn absolute_paths_of_old_depmod_are_understood() {
    let base = scratch("absolute");
    let lines = format!(
        "/lib/modules/{RELEASE}/kernel/a.ko: /lib/modules/{RELEASE}/kernel/b.ko\n\
        /lib/modules/{RELEASE}/kernel/b.ko:\n"
    );
    let directory = tree(&base, &lines);
    assert_eq!(order(&directory, &["a"]), ["b", "a"]);
    let tree = Tree::open(&directory).unwrap();
    assert_eq!(tree.path("a"), Some("kernel/a.ko"));
    assert_eq!(
        tree.file("a").unwrap(),
        directory.canonicalize().unwrap().join("kernel/a.ko")
    );
}

#[test]
fn index_that_leads_out_of_its_tree_is_refused() {
    for line in ["kernel/../../../etc/shadow:", "/etc/shadow:", "no colon"] {
        let base = scratch("outside");
        let directory = tree(&base, "kernel/a.ko:\n");
        fs::write(
            directory.join("modules.dep"),
            format!("kernel/a.ko:\n{line}\n"),
        )
        .unwrap();
        assert!(
            matches!(Tree::open(&directory), Err(Fault::BadIndex(_, 2))),
            "{line}"
        );
    }
}

#[test]
fn links_for_building_and_merged_usr_do_not_matter() {
    let base = scratch("merged");
    let directory = tree(&base.join("usr"), "kernel/a.ko:\n");
    std::os::unix::fs::symlink("usr/lib", base.join("lib")).unwrap();
    std::os::unix::fs::symlink("/nowhere", directory.join("build")).unwrap();
    std::os::unix::fs::symlink(".", directory.join("source")).unwrap();
    std::os::unix::fs::symlink(RELEASE, directory.with_file_name("current")).unwrap();
    for path in [
        base.join("lib/modules").join(RELEASE),
        base.join("lib/modules/current"),
    ] {
        let tree = Tree::open(&path).unwrap();
        assert_eq!(tree.release(), RELEASE);
        assert!(tree.file("a").unwrap().is_file());
    }
}

#[test]
fn what_is_built_in_is_told_and_not_missed() {
    let base = scratch("builtin");
    let directory = tree(&base, "kernel/udf.ko:\n");
    fs::write(
        directory.join("modules.builtin"),
        "kernel/fs/ext4/ext4.ko\nkernel/af-packet.ko\n",
    )
    .unwrap();
    let choice = choose(&directory, &Request::default()).unwrap();
    assert_eq!(choice.order, ["udf"]);
    assert_eq!(choice.builtin, ["af_packet", "ext4"]);
    assert!(choice.missing.contains(&"hv_netvsc".to_owned()));
    assert!(!choice.missing.contains(&"ext4".to_owned()));
    // Most cloud kernels have none: no reason to speak of it.
    assert!(!choice.missing.contains(&"e1000".to_owned()));
}

#[test]
fn module_of_the_callers_that_is_missing_is_an_error() {
    let base = scratch("missing");
    let directory = tree(&base, "kernel/udf.ko:\n");
    let with = Request {
        with: vec!["zfs".into()],
        ..Request::default()
    };
    assert!(matches!(choose(&directory, &with), Err(Fault::Missing(names)) if names == ["zfs"]));
    let root = Request {
        root_file_systems: Some(vec!["xfs".into()]),
        ..Request::default()
    };
    assert!(matches!(choose(&directory, &root), Err(Fault::Missing(names)) if names == ["xfs"]));
    let only = only(&["udf", "isofs"]);
    assert!(matches!(choose(&directory, &only), Err(Fault::Missing(names)) if names == ["isofs"]));
}

#[test]
fn leaving_out_what_another_needs_is_an_error() {
    let base = scratch("needed");
    let directory = tree(&base, "kernel/udf.ko: kernel/cdrom.ko\nkernel/cdrom.ko:\n");
    let without = |names: &[&str]| Request {
        without: names.iter().map(|&name| name.to_owned()).collect(),
        ..Request::default()
    };
    let fault = choose(&directory, &without(&["cdrom"])).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "udf needs cdrom: leave out both, or neither"
    );
    let choice = choose(&directory, &without(&["cdrom", "udf", "typo"])).unwrap();
    assert!(choice.order.is_empty());
    assert_eq!(choice.unknown, ["typo"]);
    assert!(!choice.missing.contains(&"udf".to_owned()));
    let both = Request {
        with: vec!["udf".into()],
        ..without(&["udf"])
    };
    assert!(matches!(choose(&directory, &both), Err(Fault::Contradiction(name)) if name == "udf"));
}

#[test]
fn index_names_what_is_packed_and_nothing_else() {
    let base = scratch("index");
    let directory = tree(
        &base,
        "kernel/a.ko.xz: kernel/b.ko.zst\nkernel/b.ko.zst:\nkernel/c.ko:\n",
    );
    fs::write(
        directory.join("modules.alias"),
        "alias pci:v00008086d*sv*sd*bc*sc*i* a\nalias fs-c c\n",
    )
    .unwrap();
    fs::write(
        directory.join("modules.softdep"),
        "softdep c pre: a\nsoftdep b post: a\n",
    )
    .unwrap();
    fs::write(
        directory.join("modules.builtin"),
        "kernel/fs/ext4/ext4.ko\n",
    )
    .unwrap();
    let tree = Tree::open(&directory).unwrap();
    let index = tree.index(&tree.choose(&only(&["a"])).unwrap());
    let expected = [
        ("modules.alias", "alias pci:v00008086d*sv*sd*bc*sc*i* a\n"),
        ("modules.builtin", "kernel/fs/ext4/ext4.ko\n"),
        ("modules.dep", "kernel/b.ko:\nkernel/a.ko: kernel/b.ko\n"),
        ("modules.softdep", "softdep b post: a\n"),
    ];
    assert_eq!(index, expected.map(|(name, text)| (name, text.to_owned())));
}

#[test]
fn directory_without_index_says_how_to_make_it() {
    let base = scratch("no-index");
    let directory = base.join("lib/modules").join(RELEASE);
    fs::create_dir_all(&directory).unwrap();
    let fault = Tree::open(&directory).unwrap_err().to_string();
    let base = base.canonicalize().unwrap();
    assert!(
        fault.ends_with(&format!(": depmod -b {} {RELEASE}", base.display())),
        "{fault}"
    );

    let merged = base.join("usr/lib/modules").join(RELEASE);
    fs::create_dir_all(&merged).unwrap();
    let fault = Tree::open(&merged).unwrap_err().to_string();
    assert!(
        fault.ends_with(&format!(": depmod -b {} {RELEASE}", base.display())),
        "{fault}"
    );
}

#[test]
fn directory_above_those_of_the_kernels_is_told_apart() {
    let base = scratch("above");
    let directory = tree(&base, "kernel/a.ko:\n");
    let fault = Tree::open(directory.parent().unwrap()).unwrap_err();
    assert!(matches!(fault, Fault::HoldsVersions(_, names) if names == [RELEASE]));
}

#[test]
fn damaged_index_is_refused_or_read_but_never_a_panic() {
    let base = scratch("damaged");
    let directory = tree(
        &base,
        "kernel/a.ko: kernel/b.ko kernel/c.ko\nkernel/b.ko:\nkernel/c.ko:\n",
    );
    fs::write(
        directory.join("modules.alias"),
        "alias fs-a a\nalias crypto-b b\n",
    )
    .unwrap();
    fs::write(
        directory.join("modules.softdep"),
        "softdep a pre: crypto-b post: c\n",
    )
    .unwrap();
    let mut state = 0x2545_f491_u32;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % below
    };
    for name in ["modules.dep", "modules.alias", "modules.softdep"] {
        let good = fs::read(directory.join(name)).unwrap();
        for _ in 0..1000 {
            let mut bad = good.clone();
            for _ in 0..=random(4) {
                let at = random(bad.len());
                bad[at] = [random(256) as u8, b' ', b':', b'\n', b'/'][random(5)];
            }
            bad.truncate(1 + random(bad.len()));
            fs::write(directory.join(name), bad).unwrap();
            if let Ok(tree) = Tree::open(&directory)
                && let Ok(choice) = tree.choose(&Request::default())
            {
                let _ = tree.index(&choice);
            }
        }
        fs::write(directory.join(name), good).unwrap();
    }
}

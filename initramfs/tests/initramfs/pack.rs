//! Whole archives, made by the library and by the program, read by the tools of others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use initramfs::cpio::{self, Kind};
use initramfs::modules::Request;
use initramfs::{Compression, Fault, Recipe, compress, pack, save};

use crate::fixture::{RELEASE, module, preroot, run, scratch, tool, tree};

const DEPENDENCIES: &str = "kernel/fs/udf/udf.ko: kernel/lib/crc-itu-t.ko kernel/drivers/cdrom.ko\n\
    kernel/lib/crc-itu-t.ko:\nkernel/drivers/cdrom.ko:\n";

fn recipe(base: &Path) -> Recipe {
    Recipe {
        preroot: Some(preroot(base)),
        modules: tree(base, DEPENDENCIES),
        request: Request::default(),
        files: Vec::new(),
        compression: Compression::None,
    }
}

fn names(image: &[u8]) -> Vec<String> {
    cpio::read(image)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect()
}

#[test]
fn archive_holds_what_a_boot_needs_and_nothing_else() {
    let base = scratch("whole");
    let image = pack(&recipe(&base)).unwrap();
    let home = format!("lib/modules/{RELEASE}");
    let mut expected: Vec<String> = ["dev", "etc", "lib", "lib/modules"]
        .map(Into::into)
        .to_vec();
    for inside in [
        "",
        "/kernel",
        "/kernel/drivers",
        "/kernel/fs",
        "/kernel/fs/udf",
        "/kernel/lib",
    ] {
        expected.push(format!("{home}{inside}"));
    }
    expected.extend(["proc", "run", "sys", "sysroot"].map(Into::into));
    expected.extend(["dev/console", "dev/null", "init"].map(Into::into));
    for index in ["alias", "builtin", "dep", "softdep"] {
        expected.push(format!("{home}/modules.{index}"));
    }
    // In the order of loading.
    for module in ["drivers/cdrom", "lib/crc-itu-t", "fs/udf/udf"] {
        expected.push(format!("{home}/kernel/{module}.ko"));
    }
    assert_eq!(names(&image.bytes), expected);

    let entries = cpio::read(&image.bytes).unwrap();
    let entry = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap();
    assert_eq!(entry("init").mode, 0o755);
    assert_eq!(entry("init").kind, Kind::File(b"#!/bin/sh\n".to_vec()));
    assert_eq!(
        entry("dev/console").kind,
        Kind::Character { major: 5, minor: 1 }
    );
    assert_eq!(
        entry("dev/null").kind,
        Kind::Character { major: 1, minor: 3 }
    );
    let udf = entry(&format!("{home}/kernel/fs/udf/udf.ko"));
    assert_eq!(udf.kind, Kind::File(module("kernel/fs/udf/udf.ko")));
    assert_eq!(image.archive_size, image.bytes.len());
}

#[test]
fn two_runs_give_the_same_bytes() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
        let base = scratch("same");
        let recipe = Recipe {
            compression,
            ..recipe(&base)
        };
        let first = pack(&recipe).unwrap().bytes;
        // Times and inodes change, and so must nothing in the archive.
        let again = Recipe {
            compression,
            ..self::recipe(&scratch("same"))
        };
        assert_eq!(pack(&again).unwrap().bytes, first);
    }
}

#[test]
fn real_cpio_unpacks_it() {
    for name in ["cpio", "bsdcpio"] {
        let Some(program) = tool(name) else { continue };
        let base = scratch(name);
        let mut recipe = recipe(&base);
        fs::write(base.join("conf"), "network = keep\n").unwrap();
        recipe
            .files
            .push((base.join("conf"), "/etc/preroot.conf".into()));
        save(&pack(&recipe).unwrap().bytes, &base.join("image")).unwrap();
        let shell = tool("sh").unwrap();
        let command = format!("{} -it < image", program.display());
        let listed = String::from_utf8(run(&shell, &["-c", &command], &base)).unwrap();
        assert_eq!(
            listed.lines().collect::<Vec<_>>(),
            names(&fs::read(base.join("image")).unwrap())
        );

        // Nodes want root; their line in the listing is enough.
        let command = format!("{} -itv < image", program.display());
        let listed = String::from_utf8(run(&shell, &["-c", &command], &base)).unwrap();
        let line = listed
            .lines()
            .find(|line| line.ends_with("dev/console"))
            .unwrap();
        let packed: String = line.split_whitespace().collect();
        assert!(
            packed.starts_with("crw-------") && packed.contains("5,1"),
            "{line}"
        );

        fs::create_dir(base.join("out")).unwrap();
        let command = format!("{} -id init 'etc/*' 'lib/*' < ../image", program.display());
        run(&shell, &["-c", &command], &base.join("out"));
        let read = |path: &str| fs::read(base.join("out").join(path)).unwrap();
        assert_eq!(read("init"), b"#!/bin/sh\n");
        assert_eq!(read("etc/preroot.conf"), b"network = keep\n");
        let udf = format!("lib/modules/{RELEASE}/kernel/fs/udf/udf.ko");
        assert_eq!(read(&udf), module("kernel/fs/udf/udf.ko"));
        let mode = fs::metadata(base.join("out/init"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o755);
    }
}

#[test]
fn real_decompressors_agree_on_the_archive() {
    let base = scratch("decompress");
    let plain = pack(&recipe(&base)).unwrap().bytes;
    for (name, compression) in [("gzip", Compression::Gzip), ("zstd", Compression::Zstd)] {
        let Some(program) = tool(name) else { continue };
        let image = pack(&Recipe {
            compression,
            ..recipe(&base)
        })
        .unwrap()
        .bytes;
        assert!(image.len() < plain.len());
        let file = base.join(name);
        fs::write(&file, image).unwrap();
        let back = run(&program, &["-dc", "--", file.to_str().unwrap()], &base);
        assert_eq!(back, plain);
    }
}

/// Files that gzip, xz and zstd made, one for each kind of check that they know.
fn compressed() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/compressed");
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending != "ko"))
        .map(|path| (path.to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    assert_eq!(files.len(), 8);
    files
}

const PLAIN: &[u8] = include_bytes!("../data/compressed/module.ko");

#[test]
fn modules_of_every_compression_are_unpacked() {
    for (name, bytes) in compressed() {
        assert_eq!(compress::expand(&name, bytes).unwrap(), PLAIN, "{name}");
    }
    assert_eq!(compress::expand("plain.ko", PLAIN.to_vec()).unwrap(), PLAIN);
}

#[test]
fn damage_to_a_compressed_module_is_never_packed() {
    for (name, bytes) in compressed() {
        for length in 0..bytes.len() {
            let cut = bytes[..length].to_vec();
            assert!(
                compress::expand(&name, cut).is_err(),
                "{name} cut to {length}"
            );
        }
        // Files without a check may change and none be the wiser.
        let unchecked = name.contains("/none.") || name.contains("/unchecked.");
        for index in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[index / 8] ^= 1 << (index % 8);
            if let Ok(found) = compress::expand(&name, flipped) {
                assert!(unchecked || found == PLAIN, "{name} bit {index}");
            }
        }
    }
}

#[test]
fn modules_are_stored_plain_under_their_plain_name() {
    let base = scratch("plain");
    let recipe = recipe(&base);
    let directory = tree(&base, "kernel/a.ko.xz:\n");
    let xz = compressed()
        .into_iter()
        .find(|(name, _)| name.ends_with("sha256.ko.xz"))
        .unwrap()
        .1;
    fs::write(directory.join("kernel/a.ko.xz"), xz).unwrap();
    let request = Request {
        only: Some(vec!["a".into()]),
        ..Request::default()
    };
    let recipe = Recipe {
        modules: directory,
        request,
        preroot: None,
        ..recipe
    };
    let entries = cpio::read(&pack(&recipe).unwrap().bytes).unwrap();
    let entry = entries.last().unwrap();
    assert_eq!(entry.name, format!("lib/modules/{RELEASE}/kernel/a.ko"));
    assert_eq!(entry.kind, Kind::File(PLAIN.to_vec()));
}

#[test]
fn directory_of_another_name_than_its_kernel_is_refused() {
    let base = scratch("renamed");
    let mut recipe = recipe(&base);
    let renamed = recipe.modules.with_file_name("mine");
    fs::rename(&recipe.modules, &renamed).unwrap();
    recipe.modules = renamed;
    let fault = pack(&recipe).unwrap_err();
    assert!(matches!(fault, Fault::OtherRelease { built_for, .. } if built_for == RELEASE));
}

#[test]
fn modules_for_another_processor_are_refused() {
    let base = scratch("processor");
    let recipe = recipe(&base);
    let mut arm = module("preroot");
    arm[18] = 183;
    fs::write(recipe.preroot.as_ref().unwrap(), arm).unwrap();
    assert!(matches!(pack(&recipe), Err(Fault::OtherProcessor(_))));
}

#[test]
fn file_that_is_no_module_is_refused() {
    let base = scratch("no-module");
    let recipe = recipe(&base);
    fs::write(
        recipe.modules.join("kernel/drivers/cdrom.ko"),
        "version https://git-lfs",
    )
    .unwrap();
    assert!(matches!(pack(&recipe), Err(Fault::NotAModule(path)) if path.ends_with("cdrom.ko")));
}

#[test]
fn program_that_wants_a_loader_is_warned_of() {
    let base = scratch("dynamic");
    let recipe = recipe(&base);
    let program = recipe.preroot.as_ref().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_initramfs"), program).unwrap();
    let warned = |image: initramfs::Image| image.warnings.iter().any(|w| w.contains("dynamically"));
    // This very program is linked to the C library wherever tests run but on musl.
    let request = Request {
        only: Some(Vec::new()),
        ..Request::default()
    };
    let dynamic = warned(
        pack(&Recipe {
            request,
            ..recipe.clone()
        })
        .unwrap(),
    );
    assert_eq!(dynamic, cfg!(not(target_env = "musl")));
    fs::write(program, "#!/bin/sh\n").unwrap();
    assert!(!warned(pack(&recipe).unwrap()));
}

#[test]
fn paths_that_collide_or_escape_are_refused() {
    let base = scratch("paths");
    fs::write(base.join("file"), "x").unwrap();
    let bad = [
        "/init",
        "/etc",
        "/dev/null",
        "/init/x",
        "etc/x",
        "/etc/../x",
        "/",
        "/etc//x",
        "/a/",
    ];
    for path in bad {
        let files = vec![(base.join("file"), path.to_owned())];
        let fault = pack(&Recipe {
            files,
            ..recipe(&base)
        });
        assert!(matches!(fault, Err(Fault::BadPath(_))), "{path}");
    }
    let files = vec![(base.join("file"), "/a/b=c/d".to_owned())];
    let image = pack(&Recipe {
        files,
        ..recipe(&base)
    })
    .unwrap();
    let names = names(&image.bytes);
    let at = |name: &str| names.iter().position(|other| other == name).unwrap();
    assert!(at("a") < at("a/b=c") && at("a/b=c") < at("a/b=c/d"));
}

#[test]
fn output_is_replaced_whole_or_not_at_all() {
    let base = scratch("output");
    let path = base.join("image");
    fs::write(&path, "old").unwrap();
    save(b"new", &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert!(matches!(save(b"x", &base), Err(Fault::Unwritable(..))));
    assert!(matches!(
        save(b"x", &base.join("missing/image")),
        Err(Fault::Unwritable(..))
    ));
    assert!(matches!(
        save(b"x", Path::new("/")),
        Err(Fault::Unwritable(..))
    ));
    let left: Vec<_> = fs::read_dir(&base)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["image"]);
}

fn program(base: &Path, arguments: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_initramfs");
    Command::new(program)
        .args(arguments)
        .current_dir(base)
        .output()
        .unwrap()
}

fn modules_argument() -> String {
    PathBuf::from("lib/modules")
        .join(RELEASE)
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn program_tells_what_it_packed() {
    let base = scratch("program");
    recipe(&base);
    let modules = modules_argument();
    let arguments = [
        "--preroot",
        "preroot",
        "--modules",
        &modules,
        "--output",
        "image",
    ];
    let output = program(&base, &arguments);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stdout).unwrap();
    let size = fs::metadata(base.join("image")).unwrap().len();
    assert!(
        said.contains(&format!("{size:>10}  initramfs (gzip)\n")),
        "{said}"
    );
    assert!(said.contains("        10  init\n"), "{said}");
    assert!(said.contains("  kernel/fs/udf/udf.ko\n"), "{said}");
    let warned = String::from_utf8(output.stderr).unwrap();
    assert!(
        warned.contains("not in kernel 6.1.0-9-test: hv_vmbus, hv_netvsc"),
        "{warned}"
    );
}

#[test]
fn list_writes_nothing() {
    let base = scratch("list");
    recipe(&base);
    let modules = modules_argument();
    let output = program(
        &base,
        &["--list", "--modules", &modules, "--output", "image"],
    );
    assert_eq!(output.status.code(), Some(0));
    assert!(!base.join("image").exists());
}

#[test]
fn exit_code_tells_wrong_use_from_failure() {
    let base = scratch("codes");
    recipe(&base);
    let modules = modules_argument();
    let good = [
        "--preroot",
        "preroot",
        "--modules",
        &modules,
        "--output",
        "image",
    ];
    let wrong: &[&[&str]] = &[
        &[],
        &["--nonsense"],
        &["--compress", "brotli"],
        &["--file", "no-path"],
        &["stray"],
        &good[..4],
        &good[2..],
    ];
    for arguments in wrong {
        let output = program(&base, arguments);
        assert_eq!(output.status.code(), Some(100), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("--help"));
    }
    for extra in [
        ["--with", "zfs"],
        ["--output", "."],
        ["--output", "preroot"],
        ["--preroot", "x"],
    ] {
        let output = program(&base, &[&good[..], &extra[..]].concat());
        assert_eq!(output.status.code(), Some(111), "{extra:?}");
        assert_eq!(fs::read(base.join("preroot")).unwrap(), b"#!/bin/sh\n");
    }
    let help = program(&base, &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("hv_netvsc") && help.lines().all(|line| line.len() <= 90),
        "{help}"
    );
}

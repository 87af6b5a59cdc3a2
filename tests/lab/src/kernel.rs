//! The kernel that boots: the distribution's cloud kernel, downloaded and unpacked.
//!
//! It is never the running one: that may be anything, and its image is often not readable.

use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::{Lab, list, unpack};
use crate::progress;

/// A kernel image and its modules.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The file that the emulator loads.
    pub image: PathBuf,
    /// The directory with `modules.dep`, as `/lib/modules/VERSION`.
    pub modules: PathBuf,
}

/// The packages that lead to the newest kernel for virtual machines, Debian's and Ubuntu's.
const META: [&str; 2] = ["linux-image-cloud-", "linux-image-virtual"];

/// Prefixes of the packages that a kernel is in: image and, on Ubuntu, modules.
const PARTS: [&str; 2] = ["linux-image-", "linux-modules-"];

impl Kernel {
    /// Takes a kernel image and a modules directory of the caller.
    pub fn given(image: &Path, modules: &Path) -> Result<Self, Fault> {
        if !modules.join("modules.dep").is_file() {
            return Err(Fault::Content {
                path: modules.to_owned(),
                why: "no modules.dep in it: name a directory like /lib/modules/VERSION, and run \
                      depmod if the file is missing there"
                    .to_owned(),
            });
        }
        fs::File::open(image).map_err(Fault::file("read", image))?;
        Ok(Self {
            image: image.to_owned(),
            modules: modules.to_owned(),
        })
    }

    /// Gives the distribution's cloud kernel, downloaded if it is not here yet.
    pub fn fetch(lab: &Lab, arch: Arch) -> Result<Self, Fault> {
        let tree = lab
            .directory()
            .join(format!("kernel-{}", arch.traits().debian));
        if !tree.is_dir() {
            let depmod = lab.tool("depmod")?;
            let _lock = lab.lock()?;
            if !tree.is_dir() {
                let archives = archives(lab, arch)?;
                let fresh = tree.with_extension("fresh");
                crate::fetch::remove_directory(&fresh)?;
                unpack(&archives, &fresh, |_| true)?;
                // Newer packages have /usr/lib/modules, and depmod looks below /lib/modules only.
                if !fresh.join("lib").exists() {
                    std::os::unix::fs::symlink("usr/lib", fresh.join("lib"))
                        .map_err(Fault::file("create", &fresh))?;
                }
                let release = release_in(&fresh)?;
                progress::run(depmod.command().arg("-b").arg(&fresh).arg(&release))?;
                fs::rename(&fresh, &tree).map_err(Fault::file("rename", &fresh))?;
            }
        }
        let release = release_in(&tree)?;
        Self::given(
            &tree.join(format!("boot/vmlinuz-{release}")),
            &tree.join("lib/modules").join(&release),
        )
    }
}

/// Downloads the packages that the newest cloud kernel is in.
fn archives(lab: &Lab, arch: Arch) -> Result<Vec<PathBuf>, Fault> {
    let apt = crate::fetch::on_path("apt-get").map(|_| Apt::for_guest(lab, arch));
    let Some(apt) = apt.transpose()? else {
        return Err(Fault::Missing {
            what: "a kernel".to_owned(),
            fix: "only Debian's and Ubuntu's can be fetched; give one with --kernel and --modules"
                .to_owned(),
        });
    };
    let debian = format!("{}{}", META[0], arch.traits().debian);
    for meta in [debian.as_str(), META[1]] {
        // A meta package leads to the image, and Ubuntu's image leads to its modules.
        let Some(depends) = apt.field(meta, "Depends")? else {
            continue;
        };
        let mut packages = kernel_packages(&depends);
        for package in packages.clone() {
            let depends = apt.field(&package, "Depends")?.unwrap_or_default();
            packages.extend(kernel_packages(&depends));
        }
        packages.sort();
        packages.dedup();
        let packages: Vec<_> = packages.iter().map(String::as_str).collect();
        return apt.alone(&packages);
    }
    Err(Fault::Missing {
        what: format!("a package {debian} or {}", META[1]),
        fix: "give a kernel with --kernel and --modules".to_owned(),
    })
}

/// Finds the names of kernel packages in a list of dependencies.
fn kernel_packages(depends: &str) -> Vec<String> {
    depends
        .split([',', '|'])
        .filter_map(|part| part.split_whitespace().next())
        .filter(|name| PARTS.iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// Finds the release of the one kernel in a tree.
fn release_in(tree: &Path) -> Result<String, Fault> {
    let boot = tree.join("boot");
    list(&boot)
        .iter()
        .find_map(|path| {
            path.file_name()?
                .to_str()?
                .strip_prefix("vmlinuz-")
                .map(str::to_owned)
        })
        .ok_or_else(|| Fault::Content {
            path: boot,
            why: "no kernel in it".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_package_of_debian_leads_to_its_image() {
        let depends = "linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)";
        assert_eq!(
            kernel_packages(depends),
            ["linux-image-6.1.0-56-cloud-amd64"]
        );
    }

    #[test]
    fn image_of_ubuntu_leads_to_its_modules_and_to_nothing_else() {
        let depends = "kmod, linux-base (>= 4.5ubuntu1~16.04.1), linux-modules-6.8.0-31-generic";
        assert_eq!(kernel_packages(depends), ["linux-modules-6.8.0-31-generic"]);
    }

    #[test]
    fn modules_without_an_index_are_refused_with_advice() {
        let fault = Kernel::given(Path::new("/dev/null"), Path::new("/nonexistent")).unwrap_err();
        assert!(fault.to_string().contains("depmod"), "{fault}");
    }
}

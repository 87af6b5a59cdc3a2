//! Disk images with an ext4 file system, read and changed without mounting them.
//!
//! `debugfs` does the work; it does not replay the journal, so a machine must have let go of its
//! root in good order before its image is read here.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

/// Puts one file of ours into an image, owned by root.
pub fn insert(lab: &Lab, image: &Path, file: &Path, to: &str, mode: u32) -> Result<(), Fault> {
    // debugfs takes a command apart at the blanks, so the file is named from where it is.
    let (directory, name) = (
        file.parent(),
        file.file_name().unwrap_or_default().to_string_lossy(),
    );
    let script = format!(
        "rm {to}\nwrite {name} {to}\nsif {to} mode {:o}\nsif {to} uid 0\nsif {to} gid 0\n",
        0o100_000 | mode
    );
    let mut debugfs = lab.tool("debugfs")?.command();
    debugfs.current_dir(directory.unwrap_or(Path::new("/")));
    edit(debugfs, image, &script)
}

/// Reads one file out of an image that nobody has mounted; `None` if it is not there.
pub fn read(lab: &Lab, image: &Path, path: &str) -> Result<Option<Vec<u8>>, Fault> {
    let mut command = lab.tool("debugfs")?.command();
    command.arg("-R").arg(format!("cat {path}")).arg(image);
    let output = command
        .output()
        .map_err(Fault::file("run debugfs on", image))?;
    // debugfs ends with 0 either way, and says on the other output that there is no such file.
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!said.contains("File not found")).then_some(output.stdout))
}

/// Reads the UUID of an ext4 file system that fills an image; `None` if there is none.
pub fn uuid(image: &Path) -> Result<Option<String>, Fault> {
    use std::os::unix::fs::FileExt as _;
    // The superblock is at 1024, its magic number at 56 and the UUID at 104 in it.
    let mut bytes = [0; 64];
    let file = fs::File::open(image).map_err(Fault::file("read", image))?;
    if file.read_exact_at(&mut bytes, 1024 + 56).is_err() || bytes[..2] != [0x53, 0xef] {
        return Ok(None);
    }
    let mut text = String::new();
    for (index, byte) in bytes[48..].iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    Ok(Some(text))
}

/// Runs commands of `debugfs`, whose command line is given, on an image.
pub(crate) fn edit(mut debugfs: Command, image: &Path, script: &str) -> Result<(), Fault> {
    let commands = image.with_extension("debugfs");
    fs::write(&commands, script).map_err(Fault::file("write", &commands))?;
    let result = progress::run(debugfs.arg("-w").arg("-f").arg(&commands).arg(image));
    fs::remove_file(&commands).map_err(Fault::file("remove", &commands))?;
    result.map(|_| ())
}

//! Whether a program is static: asked of its own headers, and of the three tools that people ask.
//!
//! A program without an interpreter and without a dynamic section runs in an empty initramfs.

use std::fs;
use std::path::Path;
use std::process::Command;

use object::elf::{FileHeader64, PT_DYNAMIC, PT_INTERP};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};

use crate::arch::Arch;
use crate::fault::Fault;
use crate::fetch::Lab;
use crate::progress;

/// Fails unless the program is static, for that processor and stripped.
pub fn is_static(lab: &Lab, program: &Path, arch: Arch) -> Result<(), Fault> {
    let wrong = |why: String| Fault::Content {
        path: program.to_owned(),
        why,
    };
    let bytes = fs::read(program).map_err(Fault::file("read", program))?;
    headers(&bytes, arch).map_err(&wrong)?;

    let file = lab.tool("file")?;
    let mut command = file.command();
    if let Some(tree) = file.tree() {
        command.env("MAGIC", tree.join("usr/lib/file/magic.mgc"));
    }
    let said = progress::run(command.args(["--brief", "--"]).arg(program))?;
    for word in [
        "ELF 64-bit LSB executable",
        "statically linked",
        ", stripped",
    ] {
        if !said.contains(word) {
            return Err(wrong(format!(
                "`file` does not say `{word}`: {}",
                said.trim()
            )));
        }
    }

    let readelf = lab.tool("readelf")?;
    let said = progress::run(readelf.command().args(["--wide", "--dynamic"]).arg(program))?;
    if !said.contains("no dynamic section") {
        return Err(wrong(format!(
            "`readelf --dynamic` shows one: {}",
            said.trim()
        )));
    }
    let said = progress::run(
        readelf
            .command()
            .args(["--wide", "--segments"])
            .arg(program),
    )?;
    if let Some(line) = said
        .lines()
        .find(|line| line.contains("INTERP") || line.contains("DYNAMIC"))
    {
        return Err(wrong(format!(
            "`readelf --segments` shows `{}`",
            line.trim()
        )));
    }

    // It ends with 1 here, which is what is hoped for; for a static PIE it says something else.
    // It belongs to the C library that is installed, so there is no other.
    let output = Command::new("ldd")
        .env("LC_ALL", "C")
        .arg(program)
        .output()
        .map_err(Fault::file("run", Path::new("ldd")))?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !said.contains("not a dynamic executable") {
        return Err(wrong(format!(
            "`ldd` does not say `not a dynamic executable`: {}",
            said.trim()
        )));
    }
    Ok(())
}

/// Looks at the headers; the error says what is wrong.
fn headers(bytes: &[u8], arch: Arch) -> Result<(), String> {
    let damaged = |error: object::read::Error| format!("damaged: {error}");
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(damaged)?;
    let endian = header.endian().map_err(damaged)?;
    let machine = match arch {
        Arch::X86_64 => elf::EM_X86_64,
        Arch::Aarch64 => elf::EM_AARCH64,
    };
    if header.e_machine(endian) != machine {
        return Err(format!("it is not for {}", arch.traits().name));
    }
    if header.e_type(endian) != elf::ET_EXEC {
        return Err("it is not a plain executable at a fixed address".to_owned());
    }
    for segment in header.program_headers(endian, bytes).map_err(damaged)? {
        match segment.p_type(endian) {
            PT_INTERP => return Err("it names an interpreter".to_owned()),
            PT_DYNAMIC => return Err("it has a dynamic section".to_owned()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest ELF file with one segment, of this type.
    fn program(machine: u16, kind: u16, segment: u32) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
        bytes.resize(16, 0);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        // Program headers behind this header, no sections.
        bytes.extend(64_u64.to_le_bytes());
        bytes.extend(0_u64.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        for number in [64_u16, 56, 1, 64, 0, 0] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(segment.to_le_bytes());
        bytes.resize(64 + 56, 0);
        bytes
    }

    #[test]
    fn plain_executable_for_the_right_processor_is_static() {
        assert_eq!(headers(&program(62, 2, 1), Arch::X86_64), Ok(()));
        assert_eq!(headers(&program(183, 2, 1), Arch::Aarch64), Ok(()));
    }

    #[test]
    fn interpreter_and_dynamic_section_are_found() {
        let why = headers(&program(62, 2, 3), Arch::X86_64).unwrap_err();
        assert!(why.contains("interpreter"), "{why}");
        let why = headers(&program(62, 2, 2), Arch::X86_64).unwrap_err();
        assert!(why.contains("dynamic"), "{why}");
    }

    #[test]
    fn other_processor_pie_and_damage_are_refused() {
        assert!(headers(&program(183, 2, 1), Arch::X86_64).is_err());
        assert!(headers(&program(62, 3, 1), Arch::X86_64).is_err());
        assert!(headers(&program(62, 2, 1)[..100], Arch::X86_64).is_err());
        assert!(headers(b"#!/bin/sh\n", Arch::X86_64).is_err());
    }

    #[test]
    fn this_very_program_is_not_static() {
        let bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(headers(&bytes, Arch::host().unwrap()).is_err());
    }
}

//! Looks at ELF files just enough to notice what could never boot.
//!
//! Not a parser of ELF: sections, symbols and notes are not read. Follows elf(5).

const MAGIC: &[u8] = b"\x7fELF";
/// `PT_INTERP`: the program asks for a dynamic loader.
const INTERPRETER: u32 = 3;
/// `ELFCLASS64`; every platform that preroot is for is of this class.
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;

/// Says whether these are the bytes of an ELF file.
pub(crate) fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Gives the processor an ELF file is for.
pub(crate) fn machine(bytes: &[u8]) -> Option<u16> {
    is_elf(bytes).then(|| half(bytes, 18))?
}

/// Says whether the kernel would look for a dynamic loader to run this program.
pub(crate) fn wants_interpreter(bytes: &[u8]) -> bool {
    let known = is_elf(bytes) && bytes.get(4..6) == Some(&[CLASS_64, LITTLE_ENDIAN]);
    let table = || {
        let start = usize::try_from(u64::from_le_bytes(array(bytes, 32)?)).ok()?;
        Some((start, half(bytes, 54)? as usize, half(bytes, 56)? as usize))
    };
    let Some((start, size, count)) = table().filter(|_| known) else {
        return false;
    };
    (0..count).any(|index| {
        let at = start.saturating_add(index * size);
        array(bytes, at).map(u32::from_le_bytes) == Some(INTERPRETER)
    })
}

/// Gives the kernel release that a module is built for.
pub(crate) fn release(module: &[u8]) -> Option<String> {
    const KEY: &[u8] = b"\0vermagic=";
    let at = module.windows(KEY.len()).position(|window| window == KEY)? + KEY.len();
    let value = module
        .get(at..)?
        .split(|&byte| byte == b' ' || byte == 0)
        .next()?;
    String::from_utf8(value.to_vec()).ok()
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

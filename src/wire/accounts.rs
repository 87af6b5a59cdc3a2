//! The account files: passwd, shadow, group, gshadow, subuid and subgid, as lines.
//!
//! Edits one line at a time and keeps every other byte as it was, bad lines, comments and NIS markers
//! included: these files belong to the image. Not a database: nothing is looked up anywhere but in the
//! text given. Formats: passwd(5), shadow(5), group(5), gshadow(5), subuid(5), login.defs(5).

use alloc::vec::Vec;
use core::ops::RangeInclusive;

use zeroize::Zeroizing;

/// Largest account file; larger ones come from a directory service, not from an image.
pub const FILE_MAX: usize = 256 * 1024;

/// Column of the user or group id in passwd and group.
pub const ID: usize = 2;
/// Column of the members in group and gshadow.
pub const MEMBERS: usize = 3;
/// Column of the password hash in every file that has one.
pub const HASH: usize = 1;

/// Account file content; wiped, because shadow is among them.
pub type File = Zeroizing<Vec<u8>>;

/// What passwd says of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User<'a> {
    /// The user id.
    pub uid: u32,
    /// The primary group's id.
    pub gid: u32,
    /// The home directory.
    pub home: &'a str,
}

/// Finds the line of `name`, without its line break; the first one counts, as for the C library.
pub fn find<'a>(file: &'a [u8], name: &str) -> Option<&'a [u8]> {
    lines(file).find(|line| column(line, 0) == Some(name.as_bytes()))
}

/// Finds a user in passwd; a line that is too damaged to be used counts as none.
pub fn user<'a>(passwd: &'a [u8], name: &str) -> Option<User<'a>> {
    let line = find(passwd, name)?;
    Some(User {
        uid: number(column(line, ID)?)?,
        gid: number(column(line, 3)?)?,
        home: core::str::from_utf8(column(line, 5)?).ok()?,
    })
}

/// Finds a group's id.
pub fn group(file: &[u8], name: &str) -> Option<u32> {
    number(column(find(file, name)?, ID)?)
}

/// Gives the column of a line, counted from 0.
pub fn column(line: &[u8], index: usize) -> Option<&[u8]> {
    line.split(|byte| *byte == b':').nth(index)
}

/// Gives the first id of `range` that is in the id column of none of `files`; `wish` first, if it is free.
pub fn free_id(files: &[&[u8]], range: RangeInclusive<u32>, wish: Option<u32>) -> Option<u32> {
    let mut used: Vec<u32> = files
        .iter()
        .flat_map(|file| lines(file))
        .filter_map(|line| number(column(line, ID)?))
        .filter(|id| range.contains(id))
        .collect();
    used.sort_unstable();
    let is_free = |id: &u32| used.binary_search(id).is_err();
    wish.filter(|id| range.contains(id) && is_free(id)).or_else(|| range.clone().find(is_free))
}

/// Gives the start of the first stretch of `count` subordinate ids in `range` that no line reaches into.
pub fn free_stretch(file: &[u8], range: RangeInclusive<u32>, count: u32) -> Option<u32> {
    let mut taken: Vec<(u32, u32)> = lines(file)
        .filter_map(|line| {
            let first = number(column(line, 1)?)?;
            Some((first, first.saturating_add(number(column(line, 2)?)?)))
        })
        .collect();
    taken.sort_unstable();
    let mut start = *range.start();
    for (first, end) in taken {
        if start.checked_add(count)? <= first {
            break;
        }
        start = start.max(end);
    }
    let last = start.checked_add(count)?.checked_sub(1)?;
    (last <= *range.end()).then_some(start)
}

/// Adds a line at the end, before the NIS markers if there are any.
pub fn append(file: &[u8], line: &str) -> File {
    let at = lines_with_break(file)
        .scan(0_usize, |offset, line| {
            let start = *offset;
            *offset = offset.saturating_add(line.len());
            Some((start, line))
        })
        .find(|(_, line)| line.starts_with(b"+") || line.starts_with(b"-"))
        .map_or(file.len(), |(start, _)| start);
    let (before, after) = file.split_at_checked(at).unwrap_or((file, &[]));
    let mut out = with_room(file, line.len());
    out.extend_from_slice(before);
    if before.last().is_some_and(|byte| *byte != b'\n') {
        out.push(b'\n');
    }
    out.extend_from_slice(line.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(after);
    out
}

/// Replaces one column of the first line of `name`; columns that the line lacks are added empty.
pub fn replace(file: &[u8], name: &str, index: usize, value: &[u8]) -> File {
    let mut out = with_room(file, value.len());
    let mut done = false;
    for whole in lines_with_break(file) {
        let line = whole.strip_suffix(b"\n").unwrap_or(whole);
        if done || column(line, 0) != Some(name.as_bytes()) {
            out.extend_from_slice(whole);
            continue;
        }
        done = true;
        let columns = line.split(|byte| *byte == b':').count();
        for position in 0..columns.max(index.saturating_add(1)) {
            if position > 0 {
                out.push(b':');
            }
            let old = column(line, position).unwrap_or_default();
            out.extend_from_slice(if position == index { value } else { old });
        }
        if whole.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
    out
}

/// Adds `user` to the members of `group`; nothing when it is a member already or there is no such group.
pub fn add_member(file: &[u8], group: &str, user: &str) -> Option<File> {
    let members = column(find(file, group)?, MEMBERS).unwrap_or_default();
    if members.split(|byte| *byte == b',').any(|member| member.trim_ascii() == user.as_bytes()) {
        return None;
    }
    let mut value = members.trim_ascii_end().to_vec();
    if !matches!(value.last(), None | Some(b',')) {
        value.push(b',');
    }
    value.extend_from_slice(user.as_bytes());
    Some(replace(file, group, MEMBERS, &value))
}

/// Reads a value of login.defs; the last one counts, as for the shadow tools.
pub fn login_defs<'a>(file: &'a [u8], key: &str) -> Option<&'a str> {
    let words = |line: &'a [u8]| {
        let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        (words.next() == Some(key.as_bytes())).then(|| words.next()).flatten()
    };
    core::str::from_utf8(lines(file).filter_map(words).last()?).ok()
}

/// Reads a number as login.defs writes it: decimal, `0` octal or `0x` hexadecimal.
pub fn login_defs_number(file: &[u8], key: &str) -> Option<u32> {
    let text = login_defs(file, key)?;
    match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        _ => text.parse().ok(),
    }
}

/// Reads a value of a `KEY=VALUE` file such as /etc/default/useradd; the last one counts.
pub fn assignment<'a>(file: &'a [u8], key: &str) -> Option<&'a str> {
    let value = |line: &'a [u8]| line.strip_prefix(key.as_bytes())?.strip_prefix(b"=");
    let value = core::str::from_utf8(lines(file).filter_map(value).last()?).ok()?;
    Some(value.trim().trim_matches(['"', '\'']))
}

/// Goes through the lines, without their line breaks.
pub fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines_with_break(file).map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

fn lines_with_break(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split_inclusive(|byte| *byte == b'\n')
}

fn number(text: &[u8]) -> Option<u32> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// Makes room once: a growing vector would leave unwiped copies of shadow behind.
fn with_room(file: &[u8], more: usize) -> File {
    // Line breaks and colons of one line that has fewer columns than it should.
    const SLACK: usize = 16;
    Zeroizing::new(Vec::with_capacity(file.len().saturating_add(more).saturating_add(SLACK)))
}

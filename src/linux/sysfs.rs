//! Small files of sysfs and procfs, and the names in a directory.
//!
//! Not for files that may be large: what does not fit the caller's buffer is cut.

use core::mem::MaybeUninit;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags, RawDir};
use rustix::io;

use super::{content, path};

/// Opens a directory below another one, or by an absolute path.
pub fn open_directory(at: impl AsFd, path: &str) -> io::Result<OwnedFd> {
    path::open(at.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Reads a file from its start, as much as fits.
pub fn read<'b>(at: impl AsFd, path: &str, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let file = path::open(at.as_fd(), path, OFlags::RDONLY)?;
    Ok(content::read(file.as_fd(), buffer)?)
}

/// Reads a file that holds one word or one line, without its line end.
pub fn read_line<'b>(at: impl AsFd, path: &str, buffer: &'b mut [u8]) -> Option<&'b str> {
    let content = read(at, path, buffer).ok()?;
    Some(str::from_utf8(content).ok()?.trim_end())
}

/// Reads a file that holds one number.
pub fn read_number(at: impl AsFd, path: &str) -> Option<u64> {
    read_line(at, path, &mut [0; 24])?.parse().ok()
}

/// Shows every name of an open directory, with its type; names that are not UTF-8 are left out.
pub fn each_name(directory: impl AsFd, visit: &mut dyn FnMut(&str, FileType)) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut names = RawDir::new(directory, &mut buffer);
    while let Some(entry) = names.next() {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && !matches!(name, "." | "..")
        {
            visit(name, entry.file_type());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::fs;
    use std::string::{String, ToString};
    use std::vec::Vec;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(std::format!("preroot-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_file_is_read_as_far_as_it_fits() {
        let path = directory("read");
        fs::write(path.join("f"), "253:1\n").unwrap();
        let at = open_directory(CWD, path.to_str().unwrap()).unwrap();
        assert_eq!(read(&at, "f", &mut [0; 3]).unwrap(), b"253");
        assert_eq!(read_line(&at, "f", &mut [0; 16]), Some("253:1"));
        assert_eq!(read_number(&at, "f"), None);
        fs::write(path.join("f"), "17\n").unwrap();
        assert_eq!(read_number(&at, "f"), Some(17));
        assert_eq!(read(&at, "g", &mut [0; 3]), Err(io::Errno::NOENT));
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn all_names_of_a_large_directory_are_shown() {
        let path = directory("names");
        let mut expect: Vec<String> = (0..300)
            .map(|n| std::format!("a-rather-long-name-{n}"))
            .collect();
        for name in &expect {
            fs::write(path.join(name), "").unwrap();
        }
        let mut names = Vec::new();
        let at = open_directory(CWD, path.to_str().unwrap()).unwrap();
        each_name(&at, &mut |name, _| names.push(name.to_string())).unwrap();
        names.sort();
        expect.sort();
        assert_eq!(names, expect);
        fs::remove_dir_all(path).unwrap();
    }
}

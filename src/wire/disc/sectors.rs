//! Bytes of a device, in few reads.
//!
//! A slow drive is behind this: what lies beside a wanted sector is read along with it, and two such
//! stretches are kept, one for the structure being followed and one for what it leads to. Large
//! reads go straight to the caller. Not a file system, and no cache beyond that.

use alloc::vec::Vec;

use embedded_io::{Error, ErrorKind, Read, Seek, SeekFrom};

use super::fault::{DiscFault, Structure};

/// The unit of an optical drive.
pub(in crate::wire) const SECTOR: u64 = 2048;
const SECTOR_BYTES: usize = SECTOR as usize;
/// The largest structure that [`Sectors::view`] shows: a UDF block of 4096 bytes.
pub(in crate::wire) const LARGEST_VIEW: usize = 4096;
/// Six sectors: a volume descriptor sequence has six members, and the descriptors of an ISO 9660 and UDF
/// bridge as many. Larger windows saved next to nothing on the golden discs.
const WINDOW: usize = 6 * SECTOR_BYTES;
/// Transfers that one operation may take. A directory of thousands of names or a file in hundreds
/// of pieces stays far below; a disc that leads in circles does not.
const TRANSFERS: u32 = 4096;
/// How often one transfer is taken up again after a signal.
const INTERRUPTIONS: u32 = 64;

/// Reads a device by byte offsets and keeps the last two stretches.
pub(in crate::wire) struct Sectors<D> {
    device: D,
    windows: [Window; 2],
    /// The window used last; the other one is the next to be replaced.
    recent: usize,
    transfers_left: u32,
}

struct Window {
    start: u64,
    filled: usize,
    bytes: Vec<u8>,
}

impl Window {
    fn empty() -> Self {
        Self {
            start: 0,
            filled: 0,
            bytes: alloc::vec![0; WINDOW],
        }
    }

    fn get(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let from = usize::try_from(offset.checked_sub(self.start)?).ok()?;
        self.bytes
            .get(..self.filled)?
            .get(from..from.checked_add(length)?)
    }
}

/// Numbers the sector that holds a byte, for messages.
// Out of line: it has many callers.
#[inline(never)]
pub(in crate::wire) fn sector_of(offset: u64) -> u32 {
    u32::try_from(offset / SECTOR).unwrap_or(u32::MAX)
}

impl<D: Read + Seek> Sectors<D> {
    pub(in crate::wire) fn new(device: D) -> Self {
        Self {
            device,
            windows: [Window::empty(), Window::empty()],
            recent: 0,
            transfers_left: TRANSFERS,
        }
    }

    /// Grants a new operation its transfers.
    pub(in crate::wire) fn begin(&mut self) {
        self.transfers_left = TRANSFERS;
    }

    /// Asks the device for its length in bytes; many drives do not know or do not say the truth.
    pub(in crate::wire) fn length(&mut self) -> Option<u64> {
        self.device
            .seek(SeekFrom::End(0))
            .ok()
            .filter(|&length| length > 0)
    }

    /// Shows up to [`LARGEST_VIEW`] bytes anywhere on the device.
    pub(in crate::wire) fn view(&mut self, offset: u64, length: usize) -> Result<&[u8], DiscFault> {
        debug_assert!(length <= LARGEST_VIEW, "a view is at most one block");
        let held = |window: &Window| window.get(offset, length).is_some();
        if let Some(index) = self.windows.iter().position(held) {
            self.recent = index;
        } else {
            self.recent = usize::from(self.recent == 0);
            self.fill(offset, length)?;
        }
        let short = DiscFault::Short {
            sector: sector_of(offset),
        };
        let window = self.windows.get(self.recent).ok_or(short)?;
        window.get(offset, length).ok_or(short)
    }

    /// Copies bytes from anywhere on the device; whole sectors go straight to `out`.
    pub(in crate::wire) fn read(
        &mut self,
        mut offset: u64,
        mut out: &mut [u8],
    ) -> Result<(), DiscFault> {
        while !out.is_empty() {
            let inside = (offset % SECTOR) as usize;
            let whole = out.len().saturating_sub(out.len() % SECTOR_BYTES);
            let count = if inside == 0 && whole >= WINDOW {
                let (body, _) = out.split_at_mut(whole);
                let got = transfer(&mut self.device, &mut self.transfers_left, offset, body)?;
                if got < whole {
                    let end = offset.saturating_add(got as u64);
                    return Err(DiscFault::Short {
                        sector: sector_of(end),
                    });
                }
                whole
            } else {
                // To the end of the sector when a large read follows, else all that one view can show.
                let reach = if whole >= WINDOW {
                    SECTOR_BYTES
                } else {
                    LARGEST_VIEW
                };
                let count = out.len().min(reach.saturating_sub(inside));
                let bytes = self.view(offset, count)?;
                out.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
                count
            };
            offset = offset.saturating_add(count as u64);
            out = out.get_mut(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Replaces the recent window by one that holds the given bytes.
    fn fill(&mut self, offset: u64, length: usize) -> Result<(), DiscFault> {
        let Some(window) = self.windows.get_mut(self.recent) else {
            return Ok(());
        };
        let inside = offset % SECTOR;
        window.start = offset.saturating_sub(inside);
        window.filled = 0;
        let needed = inside
            .saturating_add(length as u64)
            .next_multiple_of(SECTOR) as usize;
        let budget = &mut self.transfers_left;
        let mut result = transfer(&mut self.device, budget, window.start, &mut window.bytes);
        if result.is_err() {
            // A sector after the wanted ones may be the bad one, or lie beyond the end of the disc.
            let wanted = window.bytes.get_mut(..needed).unwrap_or_default();
            result = transfer(&mut self.device, budget, window.start, wanted);
        }
        window.filled = result?;
        Ok(())
    }
}

/// Reads from `start` until `out` is full or the device ends.
fn transfer<D: Read + Seek>(
    device: &mut D,
    budget: &mut u32,
    start: u64,
    out: &mut [u8],
) -> Result<usize, DiscFault> {
    let sector = sector_of(start);
    let tangle = DiscFault::Damaged {
        structure: Structure::Tangle,
        sector,
    };
    *budget = budget.checked_sub(1).ok_or(tangle)?;
    let fault = |error: D::Error| DiscFault::Device {
        sector,
        kind: error.kind(),
    };
    device.seek(SeekFrom::Start(start)).map_err(fault)?;
    let mut filled = 0_usize;
    let mut interruptions = 0_u32;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match device.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error)
                if error.kind() == ErrorKind::Interrupted && interruptions < INTERRUPTIONS =>
            {
                interruptions = interruptions.saturating_add(1);
            }
            Err(error) => return Err(fault(error)),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use embedded_io::ErrorType;

    use super::super::testing::Drive;
    use super::*;
    use crate::wire::testing::Random;

    fn numbered(length: usize) -> Vec<u8> {
        (0_u32..).flat_map(u32::to_le_bytes).take(length).collect()
    }

    #[test]
    fn bytes_come_from_where_they_are_whatever_the_stretch() {
        let image = numbered(40 * 2048);
        let mut sectors = Sectors::new(Drive::new(&image));
        let mut random = Random::new();
        for _ in 0..500 {
            sectors.begin();
            let from = random.below(image.len());
            let length = random.below(image.len() - from + 1);
            let mut out = vec![0; length];
            sectors.read(from as u64, &mut out).unwrap();
            assert_eq!(out, image[from..from + length], "{from} + {length}");
            let length = length.min(LARGEST_VIEW);
            assert_eq!(
                sectors.view(from as u64, length).unwrap(),
                &image[from..from + length]
            );
        }
    }

    #[test]
    fn what_lies_beyond_the_end_is_short_and_not_empty() {
        let image = numbered(3 * 2048);
        let mut sectors = Sectors::new(Drive::new(&image));
        assert_eq!(
            sectors.view(3 * 2048 - 1, 2),
            Err(DiscFault::Short { sector: 2 })
        );
        assert_eq!(
            sectors.view(1 << 50, 1),
            Err(DiscFault::Short { sector: u32::MAX })
        );
        let fault = sectors.read(0, &mut vec![0; 20 * 2048]);
        assert_eq!(fault, Err(DiscFault::Short { sector: 3 }));
    }

    #[test]
    fn one_operation_takes_a_bounded_number_of_transfers() {
        let image = numbered(100 * 2048);
        let mut sectors = Sectors::new(Drive::new(&image));
        let mut far = (0..).map(|n: u64| (n % 3) * 40 * 2048);
        let tangle = far.find_map(|offset| sectors.view(offset, 1).err());
        let structure = Structure::Tangle;
        assert!(
            matches!(tangle, Some(DiscFault::Damaged { structure: found, .. }) if found == structure)
        );
        sectors.begin();
        assert_eq!(sectors.view(50 * 2048, 1).map(<[u8]>::len), Ok(1));
    }

    /// A drive that a signal interrupts before every transfer, so many times.
    struct Interrupted<'a>(Drive<'a>, u32, u32);

    impl ErrorType for Interrupted<'_> {
        type Error = ErrorKind;
    }

    impl Read for Interrupted<'_> {
        fn read(&mut self, out: &mut [u8]) -> Result<usize, ErrorKind> {
            if self.2 == 0 {
                self.2 = self.1;
                return self.0.read(out);
            }
            self.2 -= 1;
            Err(ErrorKind::Interrupted)
        }
    }

    impl Seek for Interrupted<'_> {
        fn seek(&mut self, to: SeekFrom) -> Result<u64, ErrorKind> {
            self.0.seek(to)
        }
    }

    #[test]
    fn interrupted_read_is_taken_up_again_but_not_for_ever() {
        let image = numbered(20 * 2048);
        let mut sectors = Sectors::new(Interrupted(Drive::new(&image), 3, 3));
        assert_eq!(sectors.view(5, 2), Ok(&image[5..7]));
        let mut sectors = Sectors::new(Interrupted(Drive::new(&image), u32::MAX, u32::MAX));
        let fault = DiscFault::Device {
            sector: 0,
            kind: ErrorKind::Interrupted,
        };
        assert_eq!(sectors.view(5, 2), Err(fault));
    }
}

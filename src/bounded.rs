//! Reading files that others write: what is longer than its bound is an error, and never cut.

use std::fs::File;
use std::io::{self, Read as _};
use std::mem;

use zeroize::Zeroizing;

/// All of the file, of which no copy is left in memory.
///
/// # Errors
/// It cannot be read, or has more than `max` bytes ([`io::ErrorKind::FileTooLarge`]).
pub(crate) fn secret(file: &File, max: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let meta = file.metadata()?;
    // Room for all of it at once: a vector that grows leaves copies behind. A pipe does not say how much it has.
    let room = if meta.is_file() { meta.len().min(max) } else { max };
    let room = usize::try_from(room).unwrap_or(usize::MAX).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        let why = format!("is longer than {max} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    Ok(bytes)
}

/// The same as text.
///
/// # Errors
/// As above, or it is not UTF-8 ([`io::ErrorKind::InvalidData`]).
pub(crate) fn secret_text(file: &File, max: u64) -> io::Result<Zeroizing<String>> {
    let mut bytes = secret(file, max)?;
    String::from_utf8(mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|e| {
        let why = format!("is no text (UTF-8): {}", e.utf8_error());
        drop(Zeroizing::new(e.into_bytes()));
        io::Error::new(io::ErrorKind::InvalidData, why)
    })
}

/// For what is no secret.
///
/// # Errors
/// As [`secret`].
pub(crate) fn bytes(file: &File, max: u64) -> io::Result<Vec<u8>> {
    secret(file, max).map(|mut bytes| mem::take(&mut *bytes))
}

/// For what is no secret.
///
/// # Errors
/// As [`secret_text`].
pub(crate) fn text(file: &File, max: u64) -> io::Result<String> {
    secret_text(file, max).map(|mut text| mem::take(&mut *text))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_longer_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "1234").unwrap();
        let open = || File::open(&path).unwrap();
        assert_eq!(text(&open(), 4).unwrap(), "1234");
        let kind = |result: io::Result<String>| result.unwrap_err().kind();
        assert_eq!(kind(text(&open(), 3)), io::ErrorKind::FileTooLarge);
        assert_eq!(bytes(&open(), 3).unwrap_err().to_string(), "is longer than 3 bytes");
        std::fs::write(&path, b"12\xff").unwrap();
        assert_eq!(kind(text(&open(), 4)), io::ErrorKind::InvalidData);
        assert_eq!(*secret(&open(), 4).unwrap(), b"12\xff");
    }

    #[test]
    fn a_pipe_is_read_to_its_end_and_not_beyond_the_bound() {
        for (most, fits) in [(6, true), (5, false)] {
            let (read, mut write) = io::pipe().unwrap();
            write.write_all(b"secret").unwrap();
            drop(write);
            let got = secret_text(&File::from(std::os::fd::OwnedFd::from(read)), most);
            assert_eq!(got.is_ok_and(|text| *text == "secret"), fits);
        }
    }
}

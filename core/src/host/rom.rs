//! A function's ROM by sysfs.
//!
//! The kernel gives it between two writes to the file `rom`: anything but `0` opens it, `0` closes it (Linux,
//! drivers/pci/pci-sysfs.c). It maps the ROM by its base address register and neither wakes the function nor lets
//! it decode memory, without which every byte reads as ones; so that is done here, and undone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use trapline_devices::pci::spec::{COMMAND, Command};
use trapline_devices::rom::LARGEST;

use super::binding::{Kernel, WriteError};
use super::function::DEVICES;
use super::{PciAddress, Tree};

/// Why a ROM could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RomError {
    /// The function has none.
    #[error(
        "it has no ROM of its own, as adapters in a processor or a notebook often have: the kernel shows none in sysfs"
    )]
    None,
    /// A file of the function could not be written.
    #[error("cannot write {text:?} to its file {file}: {source}")]
    Write {
        /// Its name.
        file: &'static str,
        /// What was to be written.
        text: &'static str,
        /// Why not.
        source: WriteError,
    },
    /// The kernel refused, or has found no image.
    #[error(
        "the kernel gives no ROM of it ({}): there is no 55 aa where it looks; its driver or its sleep may be in the \
         way, so try trapline bind and --by vfio", crate::config::host_error(.0)
    )]
    Read(io::Error),
    /// There was nothing to read.
    #[error("the kernel gives not one byte of its ROM")]
    Empty,
}

/// Reads the ROM of the function at `address`: what the kernel takes for its images. Blocks for the function.
///
/// # Errors
/// See [`RomError`]. The function is as it was before, in any case.
pub fn read(tree: &Tree, address: PciAddress, kernel: &mut dyn Kernel) -> Result<Vec<u8>, RomError> {
    let at = |name: &str| format!("{DEVICES}/{address}/{name}");
    if !tree.has(at("rom")) {
        return Err(RomError::None);
    }
    let mut write = |file: &'static str, text: &'static str| {
        kernel.write(&at(file), text).map_err(|source| RomError::Write { file, text, source })
    };
    const POWER: &str = "power/control";
    let sleeps = tree.text(at(POWER)).is_some_and(|text| text == "auto");
    if sleeps {
        write(POWER, "on")?;
    }
    let config = tree.path(at("config"));
    let command = decode(&config);
    let bytes = write("rom", "1").and_then(|()| all(tree, &at("rom")));
    let closed = write("rom", "0");
    if let Some((config, command)) = command {
        // What the function decoded before.
        let _ = config.write_all_at(&command.into_bits().to_le_bytes(), COMMAND.into());
    }
    let asleep = if sleeps { write(POWER, "auto") } else { Ok(()) };
    let bytes = bytes?;
    closed.and(asleep)?;
    if bytes.is_empty() { Err(RomError::Empty) } else { Ok(bytes) }
}

/// Lets the function decode memory. What it decoded before, if that was less; who may not see to it may be lucky.
fn decode(config: &std::path::Path) -> Option<(File, Command)> {
    let file = OpenOptions::new().read(true).write(true).open(config).ok()?;
    let mut bytes = [0; 2];
    file.read_exact_at(&mut bytes, COMMAND.into()).ok()?;
    let command = Command::from_bits(u16::from_le_bytes(bytes));
    if command.memory() {
        return None;
    }
    let with = command.with_memory(true).into_bits().to_le_bytes();
    file.write_all_at(&with, COMMAND.into()).ok()?;
    Some((file, command))
}

fn all(tree: &Tree, path: &str) -> Result<Vec<u8>, RomError> {
    let mut bytes = Vec::new();
    let file = File::open(tree.path(path)).map_err(RomError::Read)?;
    file.take(LARGEST).read_to_end(&mut bytes).map_err(RomError::Read)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    const CARD: &str = "0000:01:00.0";
    const ROM: &[u8] = b"\x55\xaa the ROM";

    /// A kernel whose file `rom` gives something only between two writes, and while the function is awake and
    /// decodes memory.
    struct Sysfs<'a> {
        fake: &'a Fake,
        log: Vec<String>,
        refuses: Option<&'static str>,
    }

    impl Sysfs<'_> {
        fn read(fake: &Fake, refuses: Option<&'static str>) -> (Result<Vec<u8>, RomError>, String) {
            let mut kernel = Sysfs { fake, log: Vec::new(), refuses };
            let bytes = read(fake.tree(), CARD.parse().unwrap(), &mut kernel);
            (bytes, kernel.log.join(", "))
        }
    }

    impl Kernel for Sysfs<'_> {
        fn write(&mut self, file: &str, text: &str) -> Result<(), WriteError> {
            let name = file.strip_prefix(&format!("{DEVICES}/{CARD}/")).unwrap();
            self.log.push(format!("{name} {text}"));
            if self.refuses == Some(name) {
                return Err(WriteError::Refused(io::ErrorKind::PermissionDenied.into()));
            }
            let config = std::fs::read(self.fake.tree().path(format!("{DEVICES}/{CARD}/config"))).unwrap();
            let awake = self.log.first().is_some_and(|first| first == "power/control on");
            match (name, text) {
                ("rom", "1") if awake && config[4] & 2 != 0 => self.fake.write(file, ROM),
                ("rom", _) => self.fake.write(file, [0xff; 4]),
                _ => self.fake.write(file, text),
            }
            Ok(())
        }

        fn load(&mut self, _: &str) -> Result<(), WriteError> {
            unreachable!("a ROM needs no module")
        }
    }

    fn card() -> Fake {
        let fake = Fake::new();
        fake.function(CARD, "1234:1111", 0x03_0000, None, Some(1));
        fake.set(CARD, "rom", "");
        fake.set(CARD, "power/control", "auto\n");
        fake
    }

    fn command(fake: &Fake) -> u8 {
        std::fs::read(fake.tree().path(format!("{DEVICES}/{CARD}/config"))).unwrap()[4]
    }

    #[test]
    fn a_function_that_sleeps_is_woken_and_left_as_it_was() {
        let fake = card();
        let (bytes, log) = Sysfs::read(&fake, None);
        assert_eq!(bytes.unwrap(), ROM);
        assert_eq!(log, "power/control on, rom 1, rom 0, power/control auto");
        assert_eq!(
            (command(&fake), fake.tree().text(format!("{DEVICES}/{CARD}/power/control")).unwrap()),
            (0, "auto".into())
        );
    }

    #[test]
    fn what_fails_is_named_and_leaves_the_function_as_it_was() {
        let fake = card();
        let (bytes, log) = Sysfs::read(&fake, Some("rom"));
        assert_eq!(bytes.unwrap_err().to_string(), "cannot write \"1\" to its file rom: permission denied");
        assert_eq!((log.as_str(), command(&fake)), ("power/control on, rom 1, rom 0, power/control auto", 0));
        let none = Fake::new();
        none.function(CARD, "1234:1111", 0x03_0000, None, None);
        let (bytes, log) = Sysfs::read(&none, None);
        assert!(bytes.unwrap_err().to_string().starts_with("it has no ROM") && log.is_empty());
    }
}

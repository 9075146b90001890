//! The capability that tells an NVIDIA driver which adapters can reach each other directly (GPUDirect
//! peer-to-peer): all those with the same clique. On the host the driver sees the bridges and finds that out itself;
//! the guest has other bridges.

use trapline_io::Width;

use super::super::config::Config;
use super::super::options::CLIQUE_LARGEST;
use super::super::registers::Registers;
use super::{DISPLAY, NVIDIA};
use crate::pci::spec;

/// Where it may be: the driver looks at these places, which no adapter uses otherwise.
const PLACES: [u16; 2] = [0xc8, 0xd4];
/// Behind id and next pointer: length, signature.
const BODY: [u8; 4] = [8, b'P', b'2', b'P'];
const LEN: u16 = 8;
/// The clique's place in the byte behind the signature; the version below it is 0.
const CLIQUE_SHIFT: u8 = 3;

/// Adds it at the end of the list.
///
/// # Errors
/// In words, why it cannot be.
pub(in super::super) fn add(
    config: &mut Config,
    registers: &Registers,
    clique: u8,
) -> Result<(), &'static str> {
    let class = registers.dword(spec::REVISION_ID) >> 24;
    if registers.word(spec::VENDOR_ID) != NVIDIA || class != DISPLAY {
        return Err("it is no display adapter of NVIDIA's");
    }
    if clique > CLIQUE_LARGEST {
        return Err("there are cliques 0 to 15");
    }
    let free = |at: &u16| !registers.capabilities().any(|(start, _)| (*at..*at + LEN).contains(&start));
    let at =
        PLACES.into_iter().find(free).ok_or("other capabilities are where it would be (0xc8 and 0xd4)")?;
    config.keep(at, LEN);
    config.link(at, spec::CAP_VENDOR);
    let body = BODY.into_iter().chain([clique << CLIQUE_SHIFT, 0]);
    for (offset, byte) in (at + 2..).zip(body) {
        config.space_mut().preset(offset, Width::B1, byte.into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GEFORCE, RADEON, config_of, registers};
    use super::*;

    /// What the guest sees, and its list of capabilities.
    type Shown = (Config, Vec<(u16, u8)>);

    fn with(bytes: &[u8], clique: u8) -> Result<Shown, &'static str> {
        let registers = Registers::of(bytes);
        let mut config = config_of(bytes);
        add(&mut config, &registers, clique)?;
        let list = crate::pci::capabilities(|at| config.space().byte(at)).collect();
        Ok((config, list))
    }

    #[test]
    fn it_is_the_last_of_the_list_with_the_clique_in_it() {
        let (config, list) = with(&registers(GEFORCE), 5).unwrap();
        assert_eq!(list.last(), Some(&(0xc8, 0x09)));
        let bytes: Vec<u8> = (0xc8..0xd0).map(|at| config.space().byte(at)).collect();
        assert_eq!(bytes, [9, 0, 8, b'P', b'2', b'P', 0x28, 0]);
    }

    #[test]
    fn it_goes_where_there_is_room() {
        let mut bytes = registers(GEFORCE);
        bytes[0x34] = 0xc8;
        bytes[0xc8..0xca].copy_from_slice(&[9, 0]);
        assert_eq!(with(&bytes, 0).unwrap().1.last(), Some(&(0xd4, 0x09)));
        bytes[0xc9] = 0xd4;
        bytes[0xd4..0xd6].copy_from_slice(&[9, 0]);
        assert!(with(&bytes, 0).unwrap_err().contains("0xd4"));
    }

    #[test]
    fn others_have_none() {
        assert!(with(&registers(RADEON), 0).is_err());
        assert!(with(&registers(GEFORCE.with_class(0x0403)), 0).is_err());
        assert!(with(&registers(GEFORCE.with_class(0x0302)), 15).is_ok());
        assert!(with(&registers(GEFORCE), 16).is_err());
    }
}

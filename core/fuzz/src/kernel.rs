//! A bzImage with a setup header of any content: it is taken, or refused with a reason.

use arbitrary::Arbitrary;
use trapline::firmware::linux::Linux;
use trapline_devices::q35::RamSplit;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Whether the image gets the marks of a kernel.
    marked: bool,
    version: u16,
    sectors: u8,
    header: Vec<u8>,
    kernel: u16,
    initrd: Option<u16>,
    command_line: String,
    mebibytes: u16,
}

/// Carries out what `data` says.
pub fn run(data: &[u8]) {
    let Some(input) = super::input::<Input>(data) else { return };
    let mut image = input.header;
    if input.marked {
        let setup = (usize::from(input.sectors.max(1)) + 1) * 512;
        image.resize(setup.max(image.len()) + usize::from(input.kernel), 0);
        image[0x1f1] = input.sectors;
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&input.version.to_le_bytes());
        image[0x211] |= 1;
    }
    let ram = RamSplit::of(u64::from(input.mebibytes) << 20);
    let initrd = input.initrd.map(|length| vec![0x5a; length.into()]);
    if let Err(problem) = Linux::new(&image, initrd.as_deref(), &input.command_line, ram) {
        assert!(!problem.to_string().is_empty());
    }
}

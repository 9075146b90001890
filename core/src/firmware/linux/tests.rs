use super::*;
use proptest::prelude::*;

const RAM: RamSplit = RamSplit { low: 256 << 20, high: 0, gap: None };

/// A bzImage of protocol 2.15 with `sectors` of setup and a protected mode part of `kernel` bytes.
fn image(sectors: u8, kernel: usize) -> Vec<u8> {
    let mut image = vec![0; (usize::from(sectors) + 1) * SECTOR];
    image[header::SETUP_SECTS] = sectors;
    image[header::BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
    image[header::MAGIC..][..4].copy_from_slice(b"HdrS");
    image[header::VERSION..][..2].copy_from_slice(&[0x0f, 0x02]);
    image[header::LOADFLAGS] = header::LOADED_HIGH;
    image[header::INITRD_ADDR_MAX..][..4].copy_from_slice(&0x7fff_ffffu32.to_le_bytes());
    image[header::CMDLINE_SIZE..][..4].copy_from_slice(&2047u32.to_le_bytes());
    image[header::PREF_ADDRESS..][..4].copy_from_slice(&0x100_0000u32.to_le_bytes());
    image[header::INIT_SIZE..][..4].copy_from_slice(&0x80_0000u32.to_le_bytes());
    image.extend((0..kernel).map(|at| at.to_le_bytes()[0]));
    image
}

/// The items of a kernel, and nothing else.
fn items(linux: Linux) -> Items {
    let mut items = Items::new();
    linux.add_items(&mut items);
    items
}

fn item(items: &mut Items, key: u16) -> Vec<u8> {
    items.contents(key).to_vec()
}

fn number(items: &mut Items, key: u16) -> u32 {
    u32::from_le_bytes(item(items, key).try_into().unwrap())
}

#[test]
fn a_kernel_is_cut_placed_and_patched() {
    let image = image(4, 5000);
    let mut items = items(Linux::new(&image, Some(&[7; 10_000]), "console=tty0", RAM).unwrap());
    assert_eq!(number(&mut items, key::SETUP_ADDRESS), 0x1_0000);
    assert_eq!(number(&mut items, key::SETUP_SIZE), 2560);
    assert_eq!(number(&mut items, key::KERNEL_ADDRESS), 0x10_0000);
    assert_eq!(item(&mut items, key::KERNEL_DATA), image[2560..]);
    assert_eq!(item(&mut items, key::CMDLINE_DATA), b"console=tty0\0");
    assert_eq!(number(&mut items, key::CMDLINE_SIZE), 13);
    let at = number(&mut items, key::INITRD_ADDRESS);
    assert_eq!(at, (255 << 20) - 12288, "the highest page below the firmware's tables");
    assert_eq!(number(&mut items, key::INITRD_SIZE), 10_000);
    let setup = item(&mut items, key::SETUP_DATA);
    assert_eq!(u32_at(&setup, header::RAMDISK_IMAGE), at);
    assert_eq!(u32_at(&setup, header::RAMDISK_SIZE), 10_000);
    assert_eq!(u32_at(&setup, header::CMD_LINE_PTR), 0x2_0000);
    assert_eq!(u16_at(&setup, header::HEAP_END), 0xfe00);
    assert_eq!((setup[header::TYPE_OF_LOADER], setup[header::LOADFLAGS]), (0xff, 0x81));
}

#[test]
fn no_ram_disk_is_told_as_none() {
    let mut items = items(Linux::new(&image(4, 100), None, "", RAM).unwrap());
    let setup = item(&mut items, key::SETUP_DATA);
    assert_eq!((u32_at(&setup, header::RAMDISK_IMAGE), u32_at(&setup, header::RAMDISK_SIZE)), (0, 0));
    assert_eq!(number(&mut items, key::INITRD_SIZE), 0);
    assert_eq!(item(&mut items, key::CMDLINE_DATA), [0]);
}

#[test]
fn zero_setup_sectors_mean_four() {
    let mut image = image(4, 100);
    image[header::SETUP_SECTS] = 0;
    let mut items = items(Linux::new(&image, None, "", RAM).unwrap());
    assert_eq!(number(&mut items, key::SETUP_SIZE), 2560);
}

#[test]
fn what_is_no_bzimage_is_refused() {
    let try_image = |image: &[u8]| Linux::new(image, None, "", RAM).expect_err("a bad image");
    assert!(matches!(try_image(&[]), LinuxError::NotAKernel(_)));
    assert!(matches!(try_image(&[0; 4096]), LinuxError::NotAKernel(_)));
    assert!(matches!(try_image(&image(4, 0)), LinuxError::NotAKernel(_)));
    assert_eq!(try_image(&image(100, 10)), LinuxError::SetupSize(101 * 512));
    let mut old = image(4, 100);
    old[header::VERSION] = 1;
    let error = try_image(&old);
    assert!(error.to_string().contains("2.01, but 2.02"), "{error}");
    let mut low = image(4, 100);
    low[header::LOADFLAGS] = 0;
    assert_eq!(try_image(&low), LinuxError::TooOld(0x20f));
}

#[test]
fn command_line_and_memory_have_limits() {
    let image = image(4, 100);
    let long = "x".repeat(2048);
    let error = Linux::new(&image, None, &long, RAM).unwrap_err();
    assert_eq!(error, LinuxError::CommandLine { len: 2048, limit: 2047 });
    assert!(Linux::new(&image, None, &long[1..], RAM).is_ok());
    assert_eq!(Linux::new(&image, None, "a\0b", RAM), Err(LinuxError::Nul));
    assert_eq!(Linux::new(&image, Some(&[]), "", RAM), Err(LinuxError::EmptyRamDisk));
    // 16 MiB preferred address + 8 MiB to unpack + the firmware's MiB.
    let small = Linux::new(&image, None, "", RamSplit::of(16 << 20)).unwrap_err();
    assert_eq!(small, LinuxError::Memory { need: 25, have: 16 });
    assert!(Linux::new(&image, None, "", RamSplit::of(25 << 20)).is_ok());
}

proptest! {
    #[test]
    fn no_image_makes_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..4096), good: bool) {
        if good && bytes.len() > header::END {
            bytes[header::BOOT_FLAG..][..2].copy_from_slice(&[0x55, 0xaa]);
            bytes[header::MAGIC..][..4].copy_from_slice(b"HdrS");
            bytes[header::SETUP_SECTS] %= 8;
            bytes[header::LOADFLAGS] |= 1;
        }
        if let Ok(linux) = Linux::new(&bytes, Some(&[1]), "quiet", RAM) {
            let mut items = items(linux);
            prop_assert!(u64::from(number(&mut items, key::INITRD_ADDRESS)) < RAM.low);
        }
    }
}

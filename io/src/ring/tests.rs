use rustix::fs::MemfdFlags;
use vm_memory::{FileOffset, MmapRegion};

use super::*;

fn writes(lens: &[usize]) -> Vec<Write> {
    lens.iter().map(|&len| Write { at: 0, bytes: [0; 8], len }).collect()
}

#[test]
fn a_chain_ends_at_the_first_write_that_is_not_whole() {
    let three = writes(&[1, 4, 2]);
    let canceled = -Errno::CANCELED.raw_os_error();
    assert_eq!(first_broken(&three, &[1, 4, 2]), None);
    assert_eq!(first_broken(&three, &[1, 2, canceled]), Some((1, Broken::Failed)));
    assert_eq!(
        first_broken(&three, &[-Errno::IO.raw_os_error(), canceled, canceled]),
        Some((0, Broken::Failed))
    );
    assert_eq!(first_broken(&three, &[1, -Errno::INTR.raw_os_error(), canceled]), Some((1, Broken::NotDone)));
    assert_eq!(first_broken(&three, &[1, 4, i32::MIN]), Some((2, Broken::Failed)));
}

/// Two pages of memory of which the second cannot be touched: it maps a file past its end. Through
/// `/proc/self/mem` a write across the end of the first is short, one behind it fails with EIO.
fn page_with_an_end() -> MmapRegion {
    let fd = rustix::fs::memfd_create("page", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, 4096).unwrap();
    let file = FileOffset::new(std::fs::File::from(fd), 0);
    // Readable and writable, shared.
    MmapRegion::build(Some(file), 8192, 3, 1).unwrap()
}

/// All others of the run arrive, in order; the kernel's answers are real ones.
#[test]
fn a_short_and_a_failed_write_end_no_run() {
    let page = page_with_an_end();
    let base = page.as_ptr() as u64;
    let file = std::fs::File::options().read(true).write(true).open("/proc/self/mem").unwrap();
    let fd = Arc::new(OwnedFd::from(file));
    let mut run = Run::new(Arc::clone(&fd));
    let writes: [(u64, &[u8]); 6] = [
        (0, &[0x11; 4]),
        (4092, &[0x22; 8]),
        (0, &[0x33; 2]),
        (4096, &[0x44; 4]),
        (4200, &[0x44; 1]),
        (1, &[0x55; 1]),
    ];
    for (at, value) in writes {
        let mut bytes = [0; 8];
        bytes[..value.len()].copy_from_slice(value);
        assert!(run.push(Write { at: base + at, bytes, len: value.len() }));
    }
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap();
    assert_eq!(runtime.block_on(run.carry_out()), 3);
    let mut seen = [0; 4];
    assert_eq!(rustix::io::pread(&fd, &mut seen, base), Ok(4));
    assert_eq!(seen, [0x33, 0x55, 0x11, 0x11]);
}

#[test]
fn a_run_has_an_end() {
    let fd = Arc::new(rustix::fs::memfd_create("run", MemfdFlags::CLOEXEC).unwrap());
    let mut run = Run::new(fd);
    let write = Write { at: 0, bytes: [0; 8], len: 8 };
    assert!((0..RUN).all(|_| run.push(write)));
    assert!(!run.push(write));
}

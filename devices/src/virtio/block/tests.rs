use std::fs::{self, File, OpenOptions};
use std::time::Duration;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use driver::*;

mod driver;

const WITH_FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;

#[test]
fn a_driver_reads_writes_and_flushes() {
    let image = Image::new(2048);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    assert_eq!(bench.get(0x2000, Width::B8), 2048);
    assert_eq!(bench.get(0x2000 + 20, Width::B4), 512);
    assert_eq!(bench.request(IN, 7, 1024), (OK, 1025));
    assert_eq!(bench.bytes(DATA, 1024), [[7; 512], [8; 512]].concat());
    bench.wait_until(|bench| bench.line.level());
    assert_eq!(bench.get(0x1000, Width::B1), 1);
    assert!(!bench.line.level());

    bench.fill(DATA, &[0xa5; 512]);
    assert_eq!(bench.request(OUT, 2047, 512), (OK, 1));
    assert_eq!(bench.request(FLUSH, 0, 0), (OK, 1));
    assert_eq!(fs::read(&image.path).unwrap()[2047 * 512..], [0xa5; 512]);
    assert_eq!(bench.request(IDENTIFY, 0, 20), (OK, 21));
    assert_eq!(bench.bytes(DATA, 20), *b"disk.img\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.request(99, 0, 0), (UNSUPPORTED, 1));
}

#[test]
fn a_request_larger_than_a_buffer_in_many_pieces() {
    let image = Image::new(4096);
    // Without flushes each write is on the medium when it is answered.
    let mut bench = Bench::started(image.open(false), 0);
    let pattern: Vec<u8> = (0..1_000_448u32).map(|at| ((at * 7) >> 3).to_le_bytes()[0]).collect();
    bench.fill(DATA, &pattern);
    let lens = [1u32, 511, 131_072, 3, 400_000, 468_861];
    assert_eq!(lens.iter().sum::<u32>(), 1_000_448);
    let mut at = DATA;
    let mut pieces = Vec::new();
    for len in lens {
        pieces.push((at, len));
        at += u64::from(len);
    }
    let chain = |kind: u32| {
        let data = pieces.iter().map(|(at, len)| (*at, *len, kind == IN));
        let mut buffers: Vec<_> = [(HEADER, 16, false)].into_iter().chain(data).collect();
        buffers.push((STATUS, 1, true));
        buffers
    };
    bench.header(HEADER, OUT, 5);
    bench.chain(DESCRIPTORS, 0, &chain(OUT));
    assert_eq!(bench.submit(), (OK, 1));
    assert_eq!(fs::read(&image.path).unwrap()[5 * 512..][..pattern.len()], pattern);

    bench.fill(DATA, &vec![0; pattern.len()]);
    bench.header(HEADER, IN, 5);
    let buffers = chain(IN);
    bench.chain(INDIRECT, 0, &buffers);
    bench.descriptor(DESCRIPTORS, 0, INDIRECT, 16 * u32::try_from(buffers.len()).unwrap(), TABLE, 0);
    assert_eq!(bench.submit(), (OK, 1_000_449));
    assert_eq!(bench.bytes(DATA, pattern.len()), pattern);
}

#[test]
fn many_requests_at_once_are_all_answered() {
    let image = Image::new(2048);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    for round in 0..20u16 {
        let before = bench.used();
        for slot in 0..21u16 {
            let sector = u64::from(round * 21 + slot);
            let header = HEADER + 16 * u64::from(slot);
            bench.header(header, IN, sector);
            let data = DATA + 512 * u64::from(slot);
            let status = STATUS + u64::from(slot);
            bench.chain(DESCRIPTORS, 3 * slot, &[(header, 16, false), (data, 512, true), (status, 1, true)]);
            bench.offer(3 * slot);
        }
        bench.kick();
        bench.wait_until(|bench| bench.used() == before.wrapping_add(21));
        for slot in 0..21u16 {
            let sector = u64::from(round * 21 + slot).to_le_bytes()[0];
            assert_eq!(bench.bytes(DATA + 512 * u64::from(slot), 512), [sector; 512]);
        }
    }
}

#[test]
fn beyond_the_end_is_an_error_and_nothing_else_happens() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    bench.fill(DATA, &[0xa5; 4096]);
    for (kind, sector, len) in [
        (IN, 16, 512),
        (IN, 15, 1024),
        (OUT, 16, 512),
        (OUT, u64::MAX, 512),
        (IN, u64::MAX / 512, 512),
        (OUT, 0, 100),
    ] {
        assert_eq!(bench.request(kind, sector, len), (IO_ERROR, 1), "{kind} {sector} {len}");
    }
    assert_eq!(bench.request(IN, 15, 512), (OK, 513));
    assert_eq!(fs::read(&image.path).unwrap().len(), 16 * 512);
}

#[test]
fn a_read_only_disk_stays_as_it_is() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(true), WITH_FLUSH);
    bench.put(0x00, Width::B4, 0);
    assert_eq!(bench.get(0x04, Width::B4) >> VIRTIO_BLK_F_RO & 1, 1);
    bench.fill(DATA, &[0xa5; 512]);
    assert_eq!(bench.request(OUT, 3, 512), (IO_ERROR, 1));
    assert_eq!(bench.request(FLUSH, 0, 0), (OK, 1));
    assert_eq!(bench.request(IN, 3, 512), (OK, 513));
    assert_eq!(bench.bytes(DATA, 512), [3; 512]);
}

#[test]
fn errors_of_the_disk_reach_the_guest() {
    let image = Image::new(16);
    // The image shrank behind our back.
    let disk = image.open(false);
    OpenOptions::new().write(true).open(&image.path).unwrap().set_len(8 * 512 + 100).unwrap();
    let mut bench = Bench::started(disk, WITH_FLUSH);
    assert_eq!(bench.request(IN, 7, 512), (OK, 513));
    assert_eq!(bench.request(IN, 8, 512), (IO_ERROR, 1));
    assert_eq!(bench.request(IN, 12, 512), (IO_ERROR, 1));
    drop(bench);

    let full = OpenOptions::new().read(true).write(true).open("/dev/full").expect("needs /dev/full");
    let mut bench = Bench::started(Disk::unchecked(full, 16, false), WITH_FLUSH);
    assert_eq!(bench.request(OUT, 0, 512), (IO_ERROR, 1));
    // A device that cannot sync: the flush fails, and what follows it too.
    assert_eq!(bench.request(FLUSH, 0, 0), (IO_ERROR, 1));
    assert_eq!(bench.request(FLUSH, 0, 0), (IO_ERROR, 1));
    assert_eq!(bench.request(IN, 0, 512), (OK, 513));
}

/// A disk that answers when the test lets it: a pipe with nothing in it.
fn slow_disk() -> (Disk, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    (Disk::unchecked(File::from(std::os::fd::OwnedFd::from(reader)), 16, false), writer)
}

/// Gives the request that reads the slow disk its first byte, and waits until it is under way by having it.
fn begin(bench: &mut Bench, disk: &mut std::io::PipeWriter) {
    use std::io::Write;
    disk.write_all(&[0x22]).unwrap();
    bench.wait_until(|_| rustix::io::ioctl_fionread(&*disk) == Ok(0));
}

#[test]
fn a_reset_makes_what_is_under_way_void() {
    use std::io::Write;
    let (disk, mut late) = slow_disk();
    let mut bench = Bench::started(disk, WITH_FLUSH);
    bench.header(HEADER, IN, 0);
    bench.fill(DATA, &[0x11; 512]);
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    bench.fill(STATUS, &[UNTOUCHED]);
    bench.offer(0);
    bench.kick();
    begin(&mut bench, &mut late);
    bench.put(0x14, Width::B1, 0);
    assert_eq!(bench.get(0x14, Width::B1), 0);
    // The driver starts anew; its first request waits for the old one to end.
    bench.start(WITH_FLUSH, 64);
    bench.header(HEADER, IDENTIFY, 0);
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 20, true), (STATUS, 1, true)]);
    bench.offer(0);
    bench.kick();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(bench.bytes(STATUS, 1), [UNTOUCHED]);
    assert_eq!(bench.used(), 0);
    late.write_all(&[0x22; 511]).unwrap();
    bench.wait_until(|bench| bench.used() == 1);
    assert_eq!(bench.bytes(DATA, 21), *b"test.img\0\0\0\0\0\0\0\0\0\0\0\0\x11");
    assert_eq!(bench.bytes(STATUS, 1), [OK]);
}

#[test]
fn short_reads_are_continued() {
    use std::io::Write;
    let (disk, mut source) = slow_disk();
    let mut bench = Bench::started(disk, WITH_FLUSH);
    let feeder = std::thread::spawn(move || {
        for piece in [100, 1, 411] {
            std::thread::sleep(Duration::from_millis(10));
            source.write_all(&vec![0x33; piece]).unwrap();
        }
    });
    assert_eq!(bench.request(IN, 0, 512), (OK, 513));
    assert_eq!(bench.bytes(DATA, 512), [0x33; 512]);
    feeder.join().unwrap();
}

#[test]
fn a_worker_that_stops_under_load_ends() {
    let (disk, mut late) = slow_disk();
    let mut bench = Bench::started(disk, WITH_FLUSH);
    bench.header(HEADER, IN, 0);
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    bench.offer(0);
    bench.kick();
    begin(&mut bench, &mut late);
    drop(bench);
    drop(late);
}

#[test]
fn broken_rings_stop_the_device_until_it_is_reset() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    let break_by = |bench: &mut Bench, what: &str| {
        bench.kick();
        bench.wait_until(|bench| bench.get(0x14, Width::B1) & 0x40 != 0);
        assert_eq!(bench.get(0x1000, Width::B1) & 2, 2, "{what}");
        assert_eq!(bench.used(), 0, "{what}");
        bench.start(WITH_FLUSH, 64);
        assert_eq!(bench.request(IN, 1, 512), (OK, 513), "{what}");
        bench.start(WITH_FLUSH, 64);
    };
    // A loop.
    bench.header(HEADER, IN, 0);
    bench.descriptor(DESCRIPTORS, 0, HEADER, 16, NEXT, 0);
    bench.offer(0);
    break_by(&mut bench, "a loop");
    bench.descriptor(DESCRIPTORS, 0, HEADER, 16, NEXT, 999);
    bench.offer(0);
    break_by(&mut bench, "a descriptor beyond the table");
    bench.offer(64);
    break_by(&mut bench, "a head beyond the table");
    bench.chain(DESCRIPTORS, 0, &[(DATA, 512, true), (HEADER, 16, false)]);
    bench.offer(0);
    break_by(&mut bench, "readable after writable");
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false)]);
    bench.offer(0);
    break_by(&mut bench, "no room for the status");
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 15, false), (STATUS, 1, true)]);
    bench.offer(0);
    break_by(&mut bench, "a short header");
    bench.chain(DESCRIPTORS, 0, &[(1 << 40, 16, false), (STATUS, 1, true)]);
    bench.offer(0);
    break_by(&mut bench, "a header outside RAM");
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (u64::MAX, 1, true)]);
    bench.offer(0);
    break_by(&mut bench, "a status outside RAM");
    bench.memory.write_obj(200u16, GuestAddress(AVAILABLE + 2)).unwrap();
    break_by(&mut bench, "an index too far");
    bench.descriptor(DESCRIPTORS, 0, INDIRECT, 16, TABLE, 0);
    bench.descriptor(INDIRECT, 0, INDIRECT, 16, TABLE, 0);
    bench.offer(0);
    break_by(&mut bench, "a table in a table");
}

#[test]
fn data_outside_ram_is_an_error() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    for kind in [IN, OUT] {
        bench.header(HEADER, kind, 0);
        for at in [RAM as u64 - 256, 1 << 40, u64::MAX - 100] {
            bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (at, 512, kind == IN), (STATUS, 1, true)]);
            assert_eq!(bench.submit().0, IO_ERROR);
        }
    }
    assert_eq!(bench.request(IN, 0, 512), (OK, 513));
}

#[test]
fn rings_outside_ram_break_the_device() {
    let image = Image::new(16);
    let mut bench = Bench::new(image.open(false));
    for (offset, value) in
        [(0x20, RAM as u64 - 16), (0x28, u64::MAX - 1), (0x30, 2), (0x18, 63), (0x18, 0), (0x18, 512)]
    {
        bench.put(0x14, Width::B1, 0);
        bench.put(0x08, Width::B4, 1);
        bench.put(0x0c, Width::B4, 1);
        bench.put(0x14, Width::B1, 11);
        for (register, place) in [(0x20, DESCRIPTORS), (0x28, AVAILABLE), (0x30, USED)] {
            bench.put(register, Width::B8, place);
        }
        bench.put(offset, if offset == 0x18 { Width::B2 } else { Width::B8 }, value);
        bench.put(0x1c, Width::B2, 1);
        bench.put(0x14, Width::B1, 15);
        assert_eq!(bench.get(0x14, Width::B1), 15 | 0x40, "{offset:#x} {value:#x}");
    }
}

#[test]
fn nothing_is_fetched_without_bus_mastering() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    bench.block.write(Region::CONFIG, 4, Width::B2, 2).unwrap();
    bench.header(HEADER, IN, 1);
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    bench.offer(0);
    bench.kick();
    bench.signal();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(bench.used(), 0);
    bench.block.write(Region::CONFIG, 4, Width::B2, 6).unwrap();
    bench.wait_until(|bench| bench.used() == 1);
}

#[test]
fn the_doorbell_kicks() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    bench.header(HEADER, IN, 1);
    bench.chain(DESCRIPTORS, 0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    for round in 1..=50 {
        bench.offer(0);
        bench.signal();
        bench.wait_until(|bench| bench.used() == round);
    }
    // Once is enough for what was offered before, and once for nothing does no harm.
    bench.offer(0);
    bench.offer(0);
    bench.signal();
    bench.signal();
    bench.wait_until(|bench| bench.used() == 52);
}

#[test]
fn a_driver_that_polls_is_not_interrupted() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH);
    bench.memory.write_obj(1u16, GuestAddress(AVAILABLE)).unwrap();
    assert_eq!(bench.request(IN, 1, 512), (OK, 513));
    assert_eq!(bench.line.rises(), 0);
    bench.block.reset();
    assert_eq!(bench.get(0x14, Width::B1), 0);
    assert_eq!(bench.block.claims(), Claims::default());
}

#[test]
fn event_indexes_are_honoured() {
    let image = Image::new(16);
    let mut bench = Bench::started(image.open(false), WITH_FLUSH | 1 << 29);
    // Interrupt when the used index passes 1, so with the second request.
    bench.memory.write_obj(1u16, GuestAddress(AVAILABLE + 4 + 2 * 64)).unwrap();
    assert_eq!(bench.request(IN, 1, 512), (OK, 513));
    assert_eq!(bench.line.rises(), 0);
    assert_eq!(bench.request(IN, 1, 512), (OK, 513));
    bench.wait_until(|bench| bench.line.rises() == 1);
    // The device tells at which index it wants to be kicked.
    let wanted = GuestAddress(USED + 4 + 8 * 64);
    bench.wait_until(|bench| bench.memory.read_obj::<u16>(wanted).unwrap() == 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn random_rings_neither_hang_nor_panic(
        descriptors in prop::collection::vec(
            (prop_oneof![0u64..0x2_0000, any::<u64>()], prop_oneof![0u32..2048, any::<u32>()], 0u16..8, 0u16..18),
            16,
        ),
        heads in prop::collection::vec(0u16..20, 1..40),
        kinds in prop::collection::vec((0u32..10, 0u64..20), 16),
    ) {
        let image = Image::new(16);
        let mut bench = Bench::new(image.open(false));
        bench.start(WITH_FLUSH, 16);
        for (index, (at, len, flags, next)) in (0u16..).zip(&descriptors) {
            bench.descriptor(DESCRIPTORS, index, *at, *len, *flags, *next);
        }
        for (at, (kind, sector)) in (HEADER..).step_by(16).zip(&kinds) {
            bench.header(at, *kind, *sector);
        }
        for head in heads {
            bench.offer(head);
            bench.kick();
        }
        // It may be broken now, but it can be reset and used.
        bench.start(WITH_FLUSH, 16);
        let (status, _) = bench.request(IN, 2, 512);
        prop_assert_eq!(status, OK);
        prop_assert_eq!(fs::metadata(&image.path).unwrap().len(), 16 * 512);
    }

    #[test]
    fn no_register_traffic_panics(
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0u64..0x4000, 0usize..4, any::<u64>()), 0..100),
    ) {
        let image = Image::new(16);
        let mut bench = Bench::new(image.open(false));
        for (config, write, offset, width, value) in steps {
            let width = [Width::B1, Width::B2, Width::B4, Width::B8][width];
            let (region, offset) = if config {
                (Region::CONFIG, offset & 0xff & !(width.bytes() as u64 - 1))
            } else {
                (BAR, offset)
            };
            if config && width == Width::B8 {
                continue;
            }
            if write {
                let _ = bench.block.write(region, offset, width, value & width.all_ones());
            } else {
                let _ = bench.block.read(region, offset, width);
            }
        }
        let _ = bench.block.claims();
    }
}

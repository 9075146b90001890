//! Against another implementation: the crate `vfio_user`, as client and as server.
//!
//! Its client (0.1.7) reports "resettable" the wrong way round and hangs on an error reply, so neither
//! is asked of it here.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::SealFlags;
use trapline_devices::assigned::{Backend, Function, Options};
use trapline_devices::vfio_user::Client;
use trapline_devices::vfio_user::client::Settings;
use trapline_devices::vfio_user::server::Memory;
use trapline_devices::vfio_user::wire::{DmaFlags, IrqSetFlags};
use trapline_io::{Fault, Region, Width};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, vfio_region_info, vfio_region_sparse_mmap_area,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion, SparseArea};

#[path = "vfio_user_toy/device.rs"]
mod toy;
use toy::{FRAME_BUFFER, Served, blob, description, memfd, sealed};

#[test]
fn its_client_drives_our_server() {
    let areas = Some(vec![(0, 0x1000), (0x2000, 0x1000)]);
    let mut served = Served::with(description(Memory { areas, ..sealed() }));
    let mut client = vfio_user::Client::new(&served.path).unwrap();
    let frame_buffer = client.region(0).unwrap();
    assert_eq!((frame_buffer.size, frame_buffer.flags), (FRAME_BUFFER, 0b1111));
    assert!(frame_buffer.file_offset.is_some());
    let areas: Vec<_> = frame_buffer.sparse_areas.iter().map(|area| (area.offset, area.size)).collect();
    assert_eq!(areas, [(0, 0x1000), (0x2000, 0x1000)]);
    assert_eq!(client.region(6).unwrap().flags, 1);
    client.region_write(2, 8, &[1, 2, 3, 4]).unwrap();
    let mut word = [0; 4];
    client.region_read(2, 8, &mut word).unwrap();
    assert_eq!(word, [1, 2, 3, 4]);
    let mut long = vec![0; blob().len()];
    client.region_read(9, 0, &mut long).unwrap();
    assert_eq!(long, blob());
    let memory = memfd(0x2000, SealFlags::SHRINK);
    client.dma_map(0, 0x1000, 0x2000, memory.as_raw_fd()).unwrap();
    client.dma_unmap(0x1000, 0x2000).unwrap();
    assert_eq!(client.get_irq_info(2).unwrap().count, 20);
    let signal = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    client.set_irqs(2, flags, 3, 1, &[signal.as_raw_fd()]).unwrap();
    client.reset().unwrap();
    client.region_read(2, 8, &mut word).unwrap();
    assert_eq!(word, [0; 4]);
    drop(client);
    assert_eq!(served.end().unwrap().resets, 1);
}

/// What their server was asked.
#[derive(Default)]
struct Asked {
    dma: Vec<(u64, u64, bool)>,
    irqs: Vec<(u32, u32, u32, usize)>,
    resets: u32,
}

struct TheirDevice {
    registers: Vec<u8>,
    config: [u8; 256],
    asked: Arc<Mutex<Asked>>,
}

impl TheirDevice {
    fn bytes(&mut self, region: u32, offset: u64, len: usize) -> std::io::Result<&mut [u8]> {
        let at = usize::try_from(offset).unwrap();
        let all: &mut [u8] = if region == 7 { &mut self.config } else { &mut self.registers };
        all.get_mut(at..at + len).ok_or_else(|| std::io::Error::other("out of range"))
    }
}

impl ServerBackend for TheirDevice {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        data.copy_from_slice(self.bytes(region, offset, data.len())?);
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.bytes(region, offset, data.len())?.copy_from_slice(data);
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        _: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> std::io::Result<()> {
        self.asked.lock().unwrap().dma.push((address, size, fd.is_some()));
        Ok(())
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, size: u64) -> std::io::Result<()> {
        self.asked.lock().unwrap().dma.retain(|window| (window.0, window.1) != (address, size));
        Ok(())
    }

    fn reset(&mut self) -> std::io::Result<()> {
        self.asked.lock().unwrap().resets += 1;
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        _: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> std::io::Result<()> {
        self.asked.lock().unwrap().irqs.push((index, start, count, fds.len()));
        Ok(())
    }
}

fn their_region(index: u32, size: u64, flags: u32) -> ServerRegion {
    let region_info = vfio_region_info { argsz: 32, flags, index, size, ..Default::default() };
    ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
}

#[test]
fn our_client_drives_its_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peer.sock");
    let memory = memfd(0x4000, SealFlags::SHRINK);
    let mut regions: Vec<_> = (0..9).map(|index| their_region(index, 0, 0)).collect();
    regions[0] = their_region(0, 0x4000, 0b0111);
    regions[0].mmap_fd = Some(memory.as_raw_fd());
    let area = vfio_region_sparse_mmap_area { offset: 0x1000, size: 0x2000 };
    regions[0].sparse_areas.push(SparseArea { area });
    regions[2] = their_region(2, 4096, 3);
    regions[7] = their_region(7, 256, 3);
    let irqs = vec![IrqInfo { index: 0, flags: 1, count: 1 }];
    let server = vfio_user::Server::new(&path, true, irqs, regions).unwrap();
    let asked = Arc::new(Mutex::new(Asked::default()));
    let mut config = [0; 256];
    config[..12].copy_from_slice(&[0x86, 0x80, 0x34, 0x12, 0, 0, 0, 0, 1, 0, 0x80, 3]);
    let mut device = TheirDevice { registers: vec![0; 1024], config, asked: Arc::clone(&asked) };
    let thread = std::thread::spawn(move || server.run(&mut device).unwrap());

    let mut client = Client::connect(&path, Settings::default()).unwrap();
    assert!(client.resettable());
    let mapping = &client.regions()[0].mappings[0];
    assert_eq!((mapping.offset, mapping.memory.size()), (0x1000, 0x2000));
    client.write(Region(2), 0x10, Width::B4, 0x1122_3344).unwrap();
    assert_eq!(client.read(Region(2), 0x10, Width::B2), Ok(0x3344));
    assert_eq!(client.read(Region(2), 0x800, Width::B4), Err(Fault::Failed), "an error reply is no hang");
    assert_eq!(client.read(Region(2), 0x12, Width::B2), Ok(0x1122));
    let rights = DmaFlags::new().with_read(true);
    client.dma_map(0x1000, 0x1000, rights, Some((memory.as_fd(), 0))).unwrap();
    client.dma_map(0x8000, 0x1000, rights, None).unwrap();
    assert_eq!(asked.lock().unwrap().dma, [(0x1000, 0x1000, true), (0x8000, 0x1000, false)]);
    client.dma_unmap(0x1000, 0x1000).unwrap();
    assert_eq!(client.irq_info(0).unwrap().1, 1);
    let signal = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
    let flags = IrqSetFlags::new().with_eventfds(true).with_trigger(true);
    client.set_irqs(0, flags, 0, 1, &[signal.as_fd()]).unwrap();
    assert_eq!(asked.lock().unwrap().irqs, [(0, 0, 1, 1)]);

    let function = Function::open(client, Options::default()).unwrap();
    assert!(!function.has_vga());
    assert_eq!(asked.lock().unwrap().resets, 1);
    drop(function);
    thread.join().unwrap();
}

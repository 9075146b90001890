//! One client's connection: requests in, accesses to the device, replies out.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use trapline_io::{Device, Fault, Region, Width};
use zerocopy::IntoBytes;

use super::{Description, Interrupts, PATIENCE, RegionDescription};
use crate::vfio_user::channel::{Channel, ChannelError, Wait};
use crate::vfio_user::wire::{
    Area, Command, DeviceFlags, DeviceInfo, DmaMap, DmaUnmap, Header, IrqInfo, Kind, MAJOR, MAX_DATA, MINOR,
    Malformed, RegionAccess, RegionFlags, RegionInfo, RegionReply, Request, Version,
};

/// Most DMA windows of a client: what our capabilities announce.
const MAX_WINDOWS: usize = 65535;

/// How a session ended.
pub(super) struct End(pub ChannelError);

impl<E: Into<ChannelError>> From<E> for End {
    fn from(error: E) -> End {
        End(error.into())
    }
}

pub(super) struct Session<'a> {
    channel: Channel,
    description: &'a Description,
    interrupts: &'a Interrupts,
    device: &'a mut dyn Device,
    /// Most bytes of data the client takes.
    most_data: usize,
    /// First address and length of each window.
    windows: BTreeMap<u64, u64>,
    /// Payload of the reply.
    reply: Vec<u8>,
}

impl<'a> Session<'a> {
    pub fn new(
        socket: UnixStream,
        description: &'a Description,
        interrupts: &'a Interrupts,
        device: &'a mut dyn Device,
    ) -> std::io::Result<Session<'a>> {
        Ok(Session {
            channel: Channel::server(socket, PATIENCE)?,
            description,
            interrupts,
            device,
            most_data: MAX_DATA,
            windows: BTreeMap::new(),
            reply: Vec::new(),
        })
    }

    /// Serves until the connection ends.
    pub fn run(&mut self) -> End {
        if let Err(end) = self.greet() {
            return end;
        }
        loop {
            if let Err(end) = self.serve_one() {
                return end;
            }
        }
    }

    fn next(&mut self) -> Result<(Header, bool), End> {
        let Some(header) = self.channel.receive(Wait::Request)? else {
            return Err(ChannelError::Timeout.into());
        };
        match header.kind {
            Kind::Command { no_reply } => Ok((header, no_reply)),
            _ => Err(Malformed::Unexpected(header.command).into()),
        }
    }

    /// The negotiation that opens a connection.
    fn greet(&mut self) -> Result<(), End> {
        let (header, no_reply) = self.next()?;
        if header.command != Command::VERSION || no_reply {
            self.refuse(header, Errno::PROTO)?;
            return Err(Malformed::Unexpected(header.command).into());
        }
        let version = match Version::decode(self.channel.payload()) {
            Ok(version) if version.major == MAJOR => version,
            Ok(version) => {
                self.refuse(header, Errno::INVAL)?;
                let text = format!("major version {} is not spoken here", version.major);
                return Err(Malformed::Version(text).into());
            }
            Err(bad) => {
                self.refuse(header, Errno::INVAL)?;
                return Err(bad.into());
            }
        };
        let most = usize::try_from(version.capabilities.max_data_xfer_size).unwrap_or(MAX_DATA);
        self.most_data = most.min(MAX_DATA);
        let ours = Version { minor: version.minor.min(MINOR), ..Version::ours() };
        self.reply.clear();
        self.reply.extend_from_slice(&ours.encode());
        Ok(self.answer(header, &[])?)
    }

    fn serve_one(&mut self) -> Result<(), End> {
        let (header, no_reply) = self.next()?;
        let fds = self.channel.take_fds();
        let request = match Request::decode(header.command, self.channel.payload()) {
            Ok(request) => request,
            Err(bad) => {
                self.refuse(header, Errno::INVAL)?;
                return Err(bad.into());
            }
        };
        let reply = &mut self.reply;
        reply.clear();
        let mut file: Option<BorrowedFd<'_>> = None;
        let done = match request {
            Request::Version(_) => return Err(Malformed::Unexpected(header.command).into()),
            Request::DeviceInfo(_) => {
                device_info(self.description, reply);
                Ok(())
            }
            Request::RegionInfo(info) => {
                region_info(self.description, &info, reply).map(|found| file = found)
            }
            Request::IrqInfo(info) => irq_info(self.description, &info, reply),
            Request::SetIrqs(set, bools) => self.interrupts.set(&set, bools, fds),
            Request::RegionRead(access) => {
                let count = access.count.get() as usize;
                region_of(self.description, &access, self.most_data, |region| region.readable)
                    .and_then(|region| read(self.device, region, &access, count, reply))
            }
            Request::RegionWrite(access, data) => {
                region_of(self.description, &access, MAX_DATA, |region| region.writable)
                    .and_then(|region| write(self.device, region, &access, data))
                    .map(|()| reply.extend_from_slice(access.as_bytes()))
            }
            Request::Reset if self.description.resettable => {
                self.device.reset();
                Ok(())
            }
            Request::DmaMap(map) => map_window(&mut self.windows, &map),
            Request::DmaUnmap(unmap) => {
                unmap_window(&mut self.windows, &unmap).map(|()| reply.extend_from_slice(unmap.as_bytes()))
            }
            Request::DmaRead(_) | Request::DmaWrite(..) | Request::Reset | Request::Unknown(_) => {
                Err(Errno::OPNOTSUPP)
            }
        };
        match done {
            _ if no_reply => Ok(()),
            Ok(()) => Ok(self.answer(header, file.as_slice())?),
            Err(errno) => Ok(self.refuse(header, errno)?),
        }
    }

    fn answer(&self, header: Header, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let answer = Header::new(header.id, header.command, Kind::Reply, self.reply.len());
        self.channel.send([&answer.encode(), &self.reply, &[]], fds)
    }

    fn refuse(&self, header: Header, errno: Errno) -> Result<(), ChannelError> {
        if header.kind == (Kind::Command { no_reply: true }) {
            return Ok(());
        }
        let errno = u32::try_from(errno.raw_os_error()).unwrap_or(0);
        let answer = Header::new(header.id, header.command, Kind::Refusal(errno), 0);
        self.channel.send([&answer.encode(), &[], &[]], &[])
    }
}

fn device_info(description: &Description, reply: &mut Vec<u8>) {
    let flags = DeviceFlags::new().with_pci(true).with_reset(description.resettable);
    let info = DeviceInfo {
        argsz: 16.into(),
        flags: flags.into_bits().into(),
        regions: u32::try_from(description.regions.len()).unwrap_or(0).into(),
        irqs: u32::try_from(description.irqs.len()).unwrap_or(0).into(),
    };
    reply.extend_from_slice(info.as_bytes());
}

/// The answer about a region, and the descriptor that goes with it.
fn region_info<'d>(
    description: &'d Description,
    asked: &RegionInfo,
    reply: &mut Vec<u8>,
) -> Result<Option<BorrowedFd<'d>>, Errno> {
    let region = description.regions.get(asked.index.get() as usize).ok_or(Errno::INVAL)?;
    let memory = region.memory.as_ref();
    let flags =
        RegionFlags::new().with_read(region.readable).with_write(region.writable).with_mmap(memory.is_some());
    let info = RegionInfo {
        argsz: 0.into(),
        flags: flags.into_bits().into(),
        index: asked.index,
        cap_offset: 0.into(),
        size: region.size.into(),
        offset: memory.map_or(0, |memory| memory.offset).into(),
    };
    let areas = memory.and_then(|memory| memory.areas.as_ref()).map(|areas| {
        areas.iter().map(|(offset, size)| Area { offset: (*offset).into(), size: (*size).into() }).collect()
    });
    let (payload, whole) = RegionReply { info, areas }.encode(asked.argsz.get());
    reply.extend_from_slice(&payload);
    // An asker that must ask again would drop the descriptor of the first answer.
    Ok(memory.filter(|_| whole).map(|memory| memory.file.as_fd()))
}

fn irq_info(description: &Description, asked: &IrqInfo, reply: &mut Vec<u8>) -> Result<(), Errno> {
    let kind = description.irqs.get(asked.index.get() as usize).ok_or(Errno::INVAL)?;
    let info = IrqInfo {
        argsz: 16.into(),
        flags: kind.flags.into_bits().into(),
        index: asked.index,
        count: kind.count.into(),
    };
    reply.extend_from_slice(info.as_bytes());
    Ok(())
}

/// The region of an access that lies wholly inside, with the right to it.
fn region_of(
    description: &Description,
    access: &RegionAccess,
    most: usize,
    right: impl Fn(&RegionDescription) -> bool,
) -> Result<Region, Errno> {
    let index = access.region.get();
    let region = description.regions.get(index as usize).ok_or(Errno::INVAL)?;
    let count = access.count.get();
    let end = access.offset.get().checked_add(u64::from(count)).ok_or(Errno::INVAL)?;
    if count == 0 || count as usize > most || end > region.size {
        return Err(Errno::INVAL);
    }
    if !right(region) {
        return Err(Errno::ACCESS);
    }
    u8::try_from(index).map(Region).map_err(|_| Errno::INVAL)
}

fn read(
    device: &mut dyn Device,
    region: Region,
    access: &RegionAccess,
    count: usize,
    reply: &mut Vec<u8>,
) -> Result<(), Errno> {
    reply.extend_from_slice(access.as_bytes());
    for (offset, width) in pieces(region, access.offset.get(), count) {
        let whole = width.bytes() == count;
        let value = match device.read(region, offset, width) {
            Err(Fault::BadWidth) if !whole => read_halves(device, region, offset, width),
            other => other,
        };
        let value = value.map_err(errno)?;
        reply.extend(value.to_le_bytes().iter().take(width.bytes()));
    }
    Ok(())
}

fn write(device: &mut dyn Device, region: Region, access: &RegionAccess, data: &[u8]) -> Result<(), Errno> {
    let mut left = data;
    for (offset, width) in pieces(region, access.offset.get(), data.len()) {
        let Some((piece, rest)) = left.split_at_checked(width.bytes()) else { break };
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
        device.write(region, offset, width, u64::from_le_bytes(bytes)).map_err(errno)?;
        left = rest;
    }
    Ok(())
}

/// A piece of a long read in a width that the register does not take: as two of half the width.
fn read_halves(device: &mut dyn Device, region: Region, offset: u64, width: Width) -> Result<u64, Fault> {
    let half = width.half().ok_or(Fault::BadWidth)?;
    let mut part = |offset| match device.read(region, offset, half) {
        Err(Fault::BadWidth) => read_halves(device, region, offset, half),
        other => other,
    };
    let low = part(offset)? & half.all_ones();
    let high = part(offset + half.bytes() as u64)? & half.all_ones();
    Ok(low | high << (8 * half.bytes()))
}

/// An access of 1, 2, 4 or 8 bytes as it is; any other as the widest aligned accesses that it holds.
/// Configuration space knows aligned accesses of up to 4 bytes only. The end of the range has been
/// checked.
fn pieces(region: Region, offset: u64, count: usize) -> impl Iterator<Item = (u64, Width)> {
    let config = region == Region::CONFIG;
    let whole = if config { None } else { Width::of(count) };
    let widths: &[Width] = &[Width::B8, Width::B4, Width::B2, Width::B1];
    let widths = widths.get(usize::from(config)..).unwrap_or_default();
    let mut at = offset;
    let mut left = count;
    std::iter::from_fn(move || {
        let fits = |width: &&Width| width.bytes() <= left && at.is_multiple_of(width.bytes() as u64);
        let fitting = widths.iter().find(fits).copied();
        let width = if left == count { whole.or(fitting) } else { fitting }?;
        let here = at;
        at = at.wrapping_add(width.bytes() as u64);
        left -= width.bytes();
        Some((here, width))
    })
}

fn errno(fault: Fault) -> Errno {
    match fault {
        Fault::NoRegister => Errno::NXIO,
        Fault::BadWidth => Errno::INVAL,
        Fault::Failed => Errno::IO,
    }
}

fn map_window(windows: &mut BTreeMap<u64, u64>, map: &DmaMap) -> Result<(), Errno> {
    let (address, size) = (map.address.get(), map.size.get());
    let last = size.checked_sub(1).and_then(|extent| address.checked_add(extent)).ok_or(Errno::INVAL)?;
    let below = windows.range(..=last).next_back();
    if below.is_some_and(|(first, size)| first.saturating_add(size - 1) >= address) {
        return Err(Errno::EXIST);
    }
    if windows.len() >= MAX_WINDOWS {
        return Err(Errno::NOSPC);
    }
    windows.insert(address, size);
    Ok(())
}

fn unmap_window(windows: &mut BTreeMap<u64, u64>, unmap: &DmaUnmap) -> Result<(), Errno> {
    if windows.get(&unmap.address.get()) != Some(&unmap.size.get()) {
        return Err(Errno::NOENT);
    }
    windows.remove(&unmap.address.get());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_lengths_become_aligned_accesses() {
        let bytes = |(at, width): (u64, Width)| (at, width.bytes());
        let cut = |offset, count| pieces(Region(0), offset, count).map(bytes).collect::<Vec<_>>();
        assert_eq!(cut(1, 4), [(1, 4)]);
        assert_eq!(cut(1, 7), [(1, 1), (2, 2), (4, 4)]);
        assert_eq!(cut(8, 19), [(8, 8), (16, 8), (24, 2), (26, 1)]);
        assert_eq!(cut(0, 0), []);
        let config = |offset, count| pieces(Region::CONFIG, offset, count).map(bytes).collect::<Vec<_>>();
        assert_eq!(config(0, 8), [(0, 4), (4, 4)]);
        assert_eq!(config(3, 2), [(3, 1), (4, 1)]);
        assert_eq!(config(4, 2), [(4, 2)]);
    }

    #[test]
    fn windows_do_not_overlap() {
        let mut windows = BTreeMap::new();
        let mut map = |address: u64, size: u64| {
            let map = DmaMap { address: address.into(), size: size.into(), ..DmaMap::default() };
            map_window(&mut windows, &map)
        };
        assert_eq!(map(0x1000, 0x1000), Ok(()));
        assert_eq!(map(0x1fff, 1), Err(Errno::EXIST));
        assert_eq!(map(0, 0x1001), Err(Errno::EXIST));
        assert_eq!(map(0, 0x1000), Ok(()));
        assert_eq!(map(u64::MAX, 2), Err(Errno::INVAL));
        assert_eq!(map(5, 0), Err(Errno::INVAL));
        assert_eq!(map(0xffff_ffff_ffff_f000, 0x1000), Ok(()));
        let unmap = |address: u64, size: u64| DmaUnmap {
            address: address.into(),
            size: size.into(),
            ..DmaUnmap::default()
        };
        assert_eq!(unmap_window(&mut windows, &unmap(0x1000, 0x800)), Err(Errno::NOENT));
        assert_eq!(unmap_window(&mut windows, &unmap(0x1000, 0x1000)), Ok(()));
    }
}

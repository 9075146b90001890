//! Commands with their payloads.

use zerocopy::IntoBytes;

use super::{
    Command, DeviceInfo, DmaAccess, DmaMap, DmaUnmap, IrqInfo, IrqSet, IrqSetFlags, MAX_DATA, Malformed,
    RegionAccess, RegionInfo, Version, exactly, length, prefix,
};

/// A command, checked: its data is as long as it says, and no longer than [`MAX_DATA`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `VERSION`.
    Version(Version),
    /// `DMA_MAP`.
    DmaMap(DmaMap),
    /// `DMA_UNMAP`.
    DmaUnmap(DmaUnmap),
    /// `DEVICE_GET_INFO`.
    DeviceInfo(DeviceInfo),
    /// `DEVICE_GET_REGION_INFO`.
    RegionInfo(RegionInfo),
    /// `DEVICE_GET_IRQ_INFO`.
    IrqInfo(IrqInfo),
    /// `DEVICE_SET_IRQS`; with the bool data flag, one byte for each interrupt.
    SetIrqs(IrqSet, &'a [u8]),
    /// `REGION_READ`.
    RegionRead(RegionAccess),
    /// `REGION_WRITE`.
    RegionWrite(RegionAccess, &'a [u8]),
    /// `DMA_READ`.
    DmaRead(DmaAccess),
    /// `DMA_WRITE`.
    DmaWrite(DmaAccess, &'a [u8]),
    /// `DEVICE_RESET`.
    Reset,
    /// A command that is not understood here, payload not looked at.
    Unknown(Command),
}

impl<'a> Request<'a> {
    /// Gives a payload its meaning.
    ///
    /// # Errors
    /// The payload is not what the command asks for.
    pub fn decode(command: Command, payload: &'a [u8]) -> Result<Request<'a>, Malformed> {
        Ok(match command {
            Command::VERSION => Request::Version(Version::decode(payload)?),
            Command::DMA_MAP => Request::DmaMap(exactly(command, payload)?),
            Command::DMA_UNMAP => Request::DmaUnmap(exactly(command, payload)?),
            Command::DEVICE_INFO => Request::DeviceInfo(exactly(command, payload)?),
            Command::REGION_INFO => Request::RegionInfo(exactly(command, payload)?),
            Command::IRQ_INFO => Request::IrqInfo(exactly(command, payload)?),
            Command::SET_IRQS => {
                let (set, data) = prefix::<IrqSet>(command, payload)?;
                let bools = IrqSetFlags::from_bits(set.flags.get()).bools();
                expect_data(command, payload, data, if bools { u64::from(set.count.get()) } else { 0 })?;
                Request::SetIrqs(set, data)
            }
            Command::REGION_READ => {
                let access: RegionAccess = exactly(command, payload)?;
                bounded(command, u64::from(access.count.get()))?;
                Request::RegionRead(access)
            }
            Command::REGION_WRITE => {
                let (access, data) = prefix::<RegionAccess>(command, payload)?;
                expect_data(command, payload, data, u64::from(access.count.get()))?;
                Request::RegionWrite(access, data)
            }
            Command::DMA_READ => {
                let access: DmaAccess = exactly(command, payload)?;
                bounded(command, access.count.get())?;
                Request::DmaRead(access)
            }
            Command::DMA_WRITE => {
                let (access, data) = prefix::<DmaAccess>(command, payload)?;
                expect_data(command, payload, data, access.count.get())?;
                Request::DmaWrite(access, data)
            }
            Command::RESET => {
                length(command, payload, 0)?;
                Request::Reset
            }
            other => Request::Unknown(other),
        })
    }

    /// Which command it is.
    pub fn command(&self) -> Command {
        match self {
            Request::Version(_) => Command::VERSION,
            Request::DmaMap(_) => Command::DMA_MAP,
            Request::DmaUnmap(_) => Command::DMA_UNMAP,
            Request::DeviceInfo(_) => Command::DEVICE_INFO,
            Request::RegionInfo(_) => Command::REGION_INFO,
            Request::IrqInfo(_) => Command::IRQ_INFO,
            Request::SetIrqs(..) => Command::SET_IRQS,
            Request::RegionRead(_) => Command::REGION_READ,
            Request::RegionWrite(..) => Command::REGION_WRITE,
            Request::DmaRead(_) => Command::DMA_READ,
            Request::DmaWrite(..) => Command::DMA_WRITE,
            Request::Reset => Command::RESET,
            Request::Unknown(command) => *command,
        }
    }

    /// Calls `send` with the payload: the fixed part, and the data.
    pub fn encode<R>(&self, send: impl FnOnce(&[u8], &[u8]) -> R) -> R {
        match self {
            Request::Version(version) => send(&version.encode(), &[]),
            Request::DmaMap(map) => send(map.as_bytes(), &[]),
            Request::DmaUnmap(unmap) => send(unmap.as_bytes(), &[]),
            Request::DeviceInfo(info) => send(info.as_bytes(), &[]),
            Request::RegionInfo(info) => send(info.as_bytes(), &[]),
            Request::IrqInfo(info) => send(info.as_bytes(), &[]),
            Request::SetIrqs(set, data) => send(set.as_bytes(), data),
            Request::RegionRead(access) => send(access.as_bytes(), &[]),
            Request::RegionWrite(access, data) => send(access.as_bytes(), data),
            Request::DmaRead(access) => send(access.as_bytes(), &[]),
            Request::DmaWrite(access, data) => send(access.as_bytes(), data),
            Request::Reset | Request::Unknown(_) => send(&[], &[]),
        }
    }
}

fn expect_data(command: Command, payload: &[u8], data: &[u8], count: u64) -> Result<(), Malformed> {
    let count = bounded(command, count)?;
    length(command, payload, payload.len() - data.len() + count)
}

fn bounded(command: Command, count: u64) -> Result<usize, Malformed> {
    match usize::try_from(count) {
        Ok(count) if count <= MAX_DATA => Ok(count),
        _ => Err(Malformed::Value { command, what: "count", value: count }),
    }
}

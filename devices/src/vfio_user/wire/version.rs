//! Negotiation: version numbers, and capabilities as JSON.

use serde::{Deserialize, Serialize};
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Command, MAX_DATA, MAX_FDS, Malformed, prefix};

/// The major version spoken here; another one is another protocol.
pub const MAJOR: u16 = 0;
/// The highest minor version spoken here.
pub const MINOR: u16 = 1;

/// Longest version data taken.
const MAX_JSON: usize = 16 << 10;
/// The smallest transfer that can carry every access of a guest.
const MIN_XFER: u64 = 8;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Numbers {
    major: U16,
    minor: U16,
}

/// What an end can do. Members that are not understood are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Most descriptors that it takes with one message.
    pub max_msg_fds: u64,
    /// Most bytes of data in one message.
    pub max_data_xfer_size: u64,
    /// Most DMA windows at a time.
    pub max_dma_maps: u64,
    /// Page sizes of DMA windows, as bits.
    pub pgsizes: u64,
}

impl Default for Capabilities {
    /// What the protocol says of an end that says nothing.
    fn default() -> Capabilities {
        Capabilities {
            max_msg_fds: 1,
            max_data_xfer_size: MAX_DATA as u64,
            max_dma_maps: 65535,
            pgsizes: 4096,
        }
    }
}

impl Capabilities {
    /// What this implementation can do.
    pub fn ours() -> Capabilities {
        Capabilities { max_msg_fds: MAX_FDS as u64, ..Capabilities::default() }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Data {
    #[serde(default)]
    capabilities: Capabilities,
}

/// The first message of each end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Major version.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// What the sender can do.
    pub capabilities: Capabilities,
}

impl Version {
    /// The version and capabilities of this implementation.
    pub fn ours() -> Version {
        Version { major: MAJOR, minor: MINOR, capabilities: Capabilities::ours() }
    }

    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = Numbers { major: self.major.into(), minor: self.minor.into() };
        let mut payload = numbers.as_bytes().to_vec();
        let data = serde_json::json!(Data { capabilities: self.capabilities });
        payload.extend_from_slice(data.to_string().as_bytes());
        payload.push(0);
        payload
    }

    /// Gives a payload its meaning. Version data may be missing.
    ///
    /// # Errors
    /// It is too short, not ended by a zero byte, or not the JSON that belongs there.
    pub fn decode(payload: &[u8]) -> Result<Version, Malformed> {
        let (numbers, text) = prefix::<Numbers>(Command::VERSION, payload)?;
        let capabilities = match text {
            [] => Capabilities::default(),
            _ if text.len() > MAX_JSON => {
                return Err(Malformed::Version(format!("{} bytes are too many", text.len())));
            }
            [json @ .., 0] => parse(json)?,
            _ => return Err(Malformed::Version("it does not end with a zero byte".into())),
        };
        Ok(Version { major: numbers.major.get(), minor: numbers.minor.get(), capabilities })
    }
}

fn parse(json: &[u8]) -> Result<Capabilities, Malformed> {
    let data: Data = serde_json::from_slice(json).map_err(|error| Malformed::Version(error.to_string()))?;
    let xfer = data.capabilities.max_data_xfer_size;
    if xfer < MIN_XFER {
        return Err(Malformed::Version(format!("max_data_xfer_size {xfer} cannot carry an access")));
    }
    Ok(data.capabilities)
}

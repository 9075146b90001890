//! The monitor of the outer machine: QEMU's QMP, of which a handful of commands is used.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long an answer may take; the machine runs on while it is made.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection. Commands of several threads go one after another.
#[derive(Debug)]
pub struct Monitor {
    stream: Mutex<BufReader<UnixStream>>,
}

impl Monitor {
    /// Connects to the socket, which exists.
    pub fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("the outer machine's monitor does not answer")?;
        stream.set_read_timeout(Some(PATIENCE)).context("no deadline for the monitor")?;
        let monitor = Monitor { stream: Mutex::new(BufReader::new(stream)) };
        monitor.command("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }

    /// Carries out a command and gives back what it answers with. Blocks until then, with a deadline.
    pub fn command(&self, name: &str, arguments: &Value) -> Result<Value> {
        let mut stream = self.stream.lock().map_err(|_| anyhow!("the monitor is lost"))?;
        let request = json!({ "execute": name, "arguments": arguments });
        writeln!(stream.get_mut(), "{request}").context("the outer machine's monitor is gone")?;
        loop {
            let mut line = String::new();
            let read = stream.read_line(&mut line);
            if read.with_context(|| format!("the monitor does not answer to {name}"))? == 0 {
                bail!("the outer machine ended during {name}");
            }
            let answer: Value = serde_json::from_str(&line).context("the monitor's answer is no JSON")?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("the monitor refuses {name}: {}", error["desc"].as_str().unwrap_or("no reason given"));
            }
            // A greeting or an event.
        }
    }

    /// Writes what the adapter with this id shows to a file, a portable pixmap.
    pub fn screendump(&self, id: &str, file: &Path) -> Result<()> {
        self.command("screendump", &json!({ "device": id, "filename": file }))?;
        Ok(())
    }
}

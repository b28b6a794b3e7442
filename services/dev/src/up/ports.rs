//! The ports that `up` needs, and the processes that hold them if they are not free.

use std::{collections::BTreeMap, net::TcpListener};

use anyhow::bail;

/// A port, its user, and the flag that chooses it.
#[derive(Clone, Debug)]
pub struct Port {
    pub number: u16,
    pub user: String,
    pub flag: &'static str,
}

/// Fails with one sentence for the first port that is taken, or chosen twice.
pub fn check_free(ports: &[Port]) -> anyhow::Result<()> {
    let mut users: BTreeMap<u16, &Port> = BTreeMap::new();
    for port in ports {
        if let Some(other) = users.insert(port.number, port) {
            bail!(
                "port {} cannot be both that of {} and that of {}; choose another one with {}",
                port.number,
                other.user,
                port.user,
                port.flag
            );
        }
    }
    for port in ports {
        if let Err(error) = TcpListener::bind(("127.0.0.1", port.number)) {
            let why = match (error.kind(), holder(port.number)) {
                (std::io::ErrorKind::AddrInUse, Some(holder)) => format!("is taken by {holder}"),
                (std::io::ErrorKind::AddrInUse, None) => "is taken by another process".to_owned(),
                _ => format!("cannot be listened on ({error})"),
            };
            bail!(
                "port {} of 127.0.0.1, needed for {}, {why}; stop that, or choose another port with {}",
                port.number,
                port.user,
                port.flag
            );
        }
    }
    Ok(())
}

/// The process that listens on `port`, as far as Linux reveals it: `nats-server (process 17)`.
fn holder(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| std::fs::read_to_string(table).unwrap_or_default());
    let lines = tables.iter().flat_map(|table| table.lines().skip(1));
    let sockets: Vec<_> =
        lines.filter_map(|line| listener(line, port)).map(|inode| format!("socket:[{inode}]")).collect();
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            std::fs::read_link(file.path())
                .is_ok_and(|to| sockets.iter().any(|socket| to.as_os_str() == socket.as_str()))
        });
        holds.then_some(pid)
    });
    // A child may also hold its parent's socket: the parent is the older one.
    let pid = pids.min()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

/// The inode of the socket in a line of `/proc/net/tcp`, if it listens on `port`.
fn listener(line: &str, port: u16) -> Option<&str> {
    const LISTENS: &str = "0A";
    let fields: Vec<_> = line.split_whitespace().collect();
    let (_, hex) = fields.get(1)?.rsplit_once(':')?;
    let ours = fields.get(3) == Some(&LISTENS) && u16::from_str_radix(hex, 16) == Ok(port);
    if ours { fields.get(9).copied() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, flag: &'static str) -> Port {
        Port { number, user: format!("the user of {flag}"), flag }
    }

    #[test]
    fn a_taken_port_is_named_with_its_holder_and_the_flag_to_change() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = taken.local_addr().unwrap().port();
        let error = check_free(&[port(number, "--port")]).unwrap_err().to_string();
        let us = format!("process {}", std::process::id());
        for part in [&number.to_string(), "--port", &us] {
            assert!(error.contains(part), "{part} is not in: {error}");
        }
        drop(taken);
        check_free(&[port(number, "--port")]).unwrap();
    }

    #[test]
    fn a_port_asked_for_twice_is_refused() {
        let error = check_free(&[port(7, "--port"), port(7, "--nats-port")]).unwrap_err().to_string();
        assert!(error.contains("--nats-port") && error.contains('7'), "{error}");
    }
}

//! Bounds of open connections, in total and from one address. Checked before a byte of the request is read.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

/// Counts the open connections, in total and by address.
#[derive(Clone)]
pub struct Admission(Arc<Counts>);

struct Counts {
    open: Mutex<Open>,
    total_max: usize,
    /// 0: no bound.
    address_max: usize,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place; released on drop.
#[derive(Clone)]
pub struct Permit {
    _place: Arc<Place>,
}

struct Place {
    admission: Admission,
    address: IpAddr,
}

impl Admission {
    /// With a bound for all connections and one for those from one address (0: no bound).
    #[must_use]
    pub fn new(total_max: usize, address_max: usize) -> Self {
        Self(Arc::new(Counts { open: Mutex::default(), total_max, address_max }))
    }

    /// Takes a place for a connection from `address`; `None` when a bound is reached.
    #[must_use]
    pub fn admit(&self, address: IpAddr) -> Option<Permit> {
        let Counts { open, total_max, address_max } = &*self.0;
        let mut open = open.lock().expect("no panic while held");
        let of_address = open.by_address.get(&address).copied().unwrap_or(0);
        if open.total >= *total_max || (*address_max > 0 && of_address >= *address_max) {
            return None;
        }
        open.total += 1;
        if *address_max > 0 {
            open.by_address.insert(address, of_address + 1);
        }
        Some(Permit { _place: Arc::new(Place { admission: self.clone(), address }) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.admission.0.open.lock().expect("no panic while held");
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// An accepted connection, before its first read.
pub struct Accepted {
    /// Non-blocking.
    pub stream: mio::net::TcpStream,
    /// The client's address.
    pub peer: SocketAddr,
    /// Its place.
    pub permit: Permit,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_bounded_in_all_and_by_address_and_places_come_back() {
        let admission = Admission::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap());
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert!(admission.admit(a).is_none(), "the address has its share");
        let _third = admission.admit(b).unwrap();
        assert!(admission.admit(b).is_none(), "the edge is full");
        drop(first.clone());
        assert!(admission.admit(a).is_none(), "a clone is the same place");
        drop(first);
        assert!(admission.admit(b).is_some());
    }
}

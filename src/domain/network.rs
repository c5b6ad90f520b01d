//! Addresses of clients, and networks of them.
//!
//! May use: nothing.

use core::net::{IpAddr, Ipv6Addr};
use std::fmt;

/// A network: an address and how many of its bits are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    base: IpAddr,
    bits: u8,
}

/// Networks; none by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(Vec<Network>);

/// For whom limits by address count: an address of IPv4, or the first 64 bits of one of IPv6, as who has one of those has
/// all that begin so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Neighbour(IpAddr);

impl Neighbour {
    /// The one that an address belongs to.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => Self(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64))),
            v4 @ IpAddr::V4(_) => Self(v4),
        }
    }
}

impl Network {
    /// `10.0.0.0/8`, `fd00::/8`, or one address.
    fn parse(text: &str) -> Option<Self> {
        let (base, bits) = text.split_once('/').map_or((text, None), |(base, bits)| (base, Some(bits)));
        let base: IpAddr = base.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|bits| *bits <= most)?,
        };
        Some(Self { base, bits })
    }

    fn has(&self, address: IpAddr) -> bool {
        let (base, address, unused) = match (self.base, address) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                (base.to_bits().into(), address.to_bits().into(), 32 - self.bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => (base.to_bits(), address.to_bits(), 128 - self.bits),
            _ => return false,
        };
        let above = |bits: u128| bits.checked_shr(u32::from(unused)).unwrap_or(0);
        above(base) == above(address)
    }
}

impl Networks {
    /// A list with commas between networks; `none` for none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::default());
        }
        let network = |text: &str| {
            Network::parse(text.trim())
                .ok_or_else(|| format!("has {text:?}, which is no network: write one such as 10.0.0.0/8, or none"))
        };
        text.split(',').map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address is in one of them.
    pub fn have(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.has(address))
    }

    /// Whom a request comes from, where that can be told: `peer` is who connected, and `forwarded` are the values of
    /// `X-Forwarded-For`. What is in these networks passes requests on: it is believed in what it put behind what it got,
    /// and is nobody itself.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> Option<Neighbour> {
        if !self.have(peer) {
            return Some(Neighbour::of(peer));
        }
        let mut hops = forwarded.rev().flat_map(|value| value.rsplit(',')).take(HOPS_MAX).map(str::trim);
        // What stands before a word that is no address may be made up.
        let client = hops.by_ref().map_while(|hop| address(hop).ok()).find(|address| !self.have(*address));
        client.map(Neighbour::of)
    }
}

/// More balancers do not stand behind each other: a header of thousands is not gone through.
const HOPS_MAX: usize = 16;

/// An address with or without a port.
fn address(text: &str) -> Result<IpAddr, core::net::AddrParseError> {
    let of_socket = |_| text.parse::<core::net::SocketAddr>().map(|socket| socket.ip());
    text.parse::<IpAddr>().or_else(of_socket)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_the_networks_that_begin_as_it_does() {
        let networks = Networks::parse("127.0.0.0/8, 10.1.0.0/16,fd00::/8,192.0.2.7").unwrap();
        for (address, is_in) in [
            ("127.9.9.9", true),
            ("::ffff:127.0.0.1", true),
            ("10.1.255.255", true),
            ("10.2.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("fdff::1", true),
            ("fe00::1", false),
            ("::1", false),
        ] {
            assert_eq!(networks.have(ip(address)), is_in, "{address}");
        }
        let all = Networks::parse("0.0.0.0/0").unwrap();
        assert!(all.have(ip("203.0.113.1")) && !all.have(ip("2001:db8::1")));
        assert!(!Networks::parse("none").unwrap().have(ip("127.0.0.1")));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "localhost", "10.0.0.0/8,,", "10.0.0.0/-1"] {
            assert!(Networks::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn addresses_of_one_subscriber_are_one_neighbour() {
        let of = |text: &str| Neighbour::of(ip(text));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }

    #[test]
    fn a_client_behind_balancers_is_the_last_who_is_none() {
        let networks = Networks::parse("10.0.0.0/8").unwrap();
        let rows: [(&str, &[&str], Option<&str>); 9] = [
            ("192.0.2.1", &["203.0.113.9"], Some("192.0.2.1")),
            ("10.0.0.1", &[], None),
            ("10.0.0.1", &["203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], Some("203.0.113.9")),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.0.0.2"], Some("203.0.113.9")),
            ("10.0.0.1", &["203.0.113.9:4711"], Some("203.0.113.9")),
            ("10.0.0.1", &["198.51.100.1, unknown"], None),
            ("10.0.0.1", &["10.0.0.9"], None),
            ("10.0.0.1", &["198.51.100.1, , 10.0.0.9"], None),
        ];
        for (peer, forwarded, client) in rows {
            let found = networks.client(ip(peer), forwarded.iter().copied());
            assert_eq!(found, client.map(|client| Neighbour::of(ip(client))), "{peer} {forwarded:?}");
        }
        let long = vec!["10.0.0.9"; 10_000].join(",");
        assert_eq!(networks.client(ip("10.0.0.1"), [long.as_str()].into_iter()), None);
    }
}

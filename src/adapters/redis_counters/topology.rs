//! Which server has a key.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tracing::info;

use crate::domain::redis_url::RedisHost;

use super::live::{Away, CONNECT_MAX, Live};
use super::server::Server;
use super::settings::Settings;

/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// The map of a cluster is read again at least this often, as somebody may have moved slots.
const REFRESH_EVERY: Duration = Duration::from_secs(10);

/// And at most this often, whatever fails.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);

/// One node has so long to tell its map.
const REFRESH_MAX: Duration = Duration::from_millis(300);

/// One server, or a cluster of them.
pub(super) enum Topology {
    /// Also where several hosts are named, of which one is the master.
    Single(Arc<Server>),
    Cluster(Cluster),
}

/// A cluster, as its members last said. Dropping it closes all connections.
pub(super) struct Cluster {
    members: Arc<Members>,
    keeper: JoinHandle<()>,
}

struct Members {
    settings: Arc<Settings>,
    runtime: Handle,
    servers: Mutex<HashMap<RedisHost, Arc<Server>>>,
    map: watch::Sender<Told>,
    refresh: Notify,
}

/// What members told last.
#[derive(Clone)]
enum Told {
    /// Nothing yet. Whoever asks may wait.
    Nothing,
    Map(Arc<SlotMap>),
    /// None of them was of use, and none ever was.
    Away(Away),
}

/// Ranges of slots, each with its master.
#[derive(Debug, PartialEq, Eq)]
struct SlotMap(Vec<(u16, u16, RedisHost)>);

impl Topology {
    pub(super) fn start(settings: Arc<Settings>, runtime: &Handle) -> Self {
        if !settings.url.is_cluster() {
            let hosts = settings.url.hosts().to_vec();
            return Self::Single(Arc::new(Server::start(settings, hosts, runtime)));
        }
        let members = Arc::new(Members {
            settings,
            runtime: runtime.clone(),
            servers: Mutex::default(),
            map: watch::Sender::new(Told::Nothing),
            refresh: Notify::new(),
        });
        let keeper = runtime.spawn(keep(Arc::clone(&members)));
        Self::Cluster(Cluster { members, keeper })
    }

    /// The server that has a key.
    pub(super) async fn owner(&self, key: &[u8], wait: Duration) -> Result<Arc<Server>, Away> {
        match self {
            Self::Single(server) => Ok(Arc::clone(server)),
            Self::Cluster(cluster) => {
                let map = cluster.members.map(wait).await?;
                let slot = slot(key);
                let host =
                    map.owner(slot).ok_or_else(|| Away::Gone("nobody in the cluster has the slot".to_owned()))?;
                Ok(cluster.members.server(host))
            }
        }
    }

    /// The server at a host that another one named; `None` where there is no cluster.
    pub(super) fn server(&self, host: &RedisHost) -> Option<Arc<Server>> {
        match self {
            Self::Single(_) => None,
            Self::Cluster(cluster) => Some(cluster.members.server(host)),
        }
    }

    /// Every server that has keys.
    pub(super) async fn masters(&self, wait: Duration) -> Result<Vec<Arc<Server>>, Away> {
        match self {
            Self::Single(server) => Ok(vec![Arc::clone(server)]),
            Self::Cluster(cluster) => {
                let map = cluster.members.map(wait).await?;
                Ok(map.hosts().into_iter().map(|host| cluster.members.server(host)).collect())
            }
        }
    }

    /// Something was not where it should be: it is looked anew.
    pub(super) fn refresh(&self) {
        if let Self::Cluster(cluster) = self {
            cluster.members.refresh.notify_one();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Members {
    async fn map(&self, wait: Duration) -> Result<Arc<SlotMap>, Away> {
        let found = |told: &Told| match told {
            Told::Nothing => None,
            Told::Map(map) => Some(Ok(Arc::clone(map))),
            Told::Away(reason) => Some(Err(reason.clone())),
        };
        if let Some(known) = found(&self.map.borrow()) {
            return known;
        }
        let mut changes = self.map.subscribe();
        let known = tokio::time::timeout(wait, changes.wait_for(|told| found(told).is_some())).await;
        let not_yet = || Err(Away::Gone("the cluster is being connected to".to_owned()));
        known.ok().and_then(Result::ok).and_then(|told| found(&told)).unwrap_or_else(not_yet)
    }

    fn has_map(&self) -> bool {
        matches!(*self.map.borrow(), Told::Map(_))
    }

    fn server(&self, host: &RedisHost) -> Arc<Server> {
        let start = || Arc::new(Server::start(Arc::clone(&self.settings), vec![host.clone()], &self.runtime));
        Arc::clone(self.servers.lock().entry(host.clone()).or_insert_with(start))
    }

    /// Those that work first, then all that are known or were named.
    fn to_ask(&self) -> Vec<RedisHost> {
        let servers = self.servers.lock();
        let (live, other): (Vec<_>, Vec<_>) = servers.iter().partition(|(_, server)| server.is_live());
        let known = live.into_iter().chain(other).map(|(host, _)| host);
        let mut seen = HashSet::new();
        known.chain(self.settings.url.hosts()).filter(|host| seen.insert(*host)).cloned().collect()
    }

    /// Asks members until one tells a map. Servers that have no slots any more are let go, unless they were named.
    async fn read_map(&self) {
        let mut problem = Away::Gone("no member of the cluster tells where keys are".to_owned());
        // At first there is nobody else to ask; later one that does not answer is passed over.
        let wait = if self.has_map() { REFRESH_MAX } else { CONNECT_MAX };
        for host in self.to_ask() {
            match self.server(&host).live(wait).await {
                Ok(live) => {
                    if let Some(map) = told(&live, self.settings.now_us()).await {
                        return self.take(map);
                    }
                }
                // What an operator has to mend is told before what may pass.
                Err(reason @ Away::Unfit(_)) => problem = reason,
                Err(Away::Gone(_)) => {}
            }
        }
        if !self.has_map() {
            self.map.send_replace(Told::Away(problem));
        }
    }

    fn take(&self, map: SlotMap) {
        if matches!(&*self.map.borrow(), Told::Map(known) if **known == map) {
            return;
        }
        let hosts: Vec<_> = map.hosts().into_iter().map(ToString::to_string).collect();
        info!(masters = hosts.join(","), "The cluster tells its masters.");
        for host in map.hosts() {
            drop(self.server(host));
        }
        let (owners, named) = (map.hosts(), self.settings.url.hosts());
        self.servers.lock().retain(|host, _| owners.contains(host) || named.contains(host));
        self.map.send_replace(Told::Map(Arc::new(map)));
    }
}

impl SlotMap {
    fn owner(&self, slot: u16) -> Option<&RedisHost> {
        self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map(|(_, _, host)| host)
    }

    fn hosts(&self) -> HashSet<&RedisHost> {
        self.0.iter().map(|(_, _, host)| host).collect()
    }

    /// From the answer to `CLUSTER SLOTS`: ranges with their first and last slot, and nodes, the master first. `None` when
    /// it is no map of anything.
    fn read(value: &Value, asked: &RedisHost) -> Option<Self> {
        let Value::Array(ranges) = value else { return None };
        let mut map = Vec::with_capacity(ranges.len());
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { return None };
            let [name, Value::Int(port), ..] = master.as_slice() else { return None };
            // A node that does not know its own name is the one that was asked.
            let name = match name {
                Value::BulkString(name) if !name.is_empty() && name != b"?" => String::from_utf8(name.clone()).ok()?,
                _ => asked.name.clone(),
            };
            let host = RedisHost { name, port: u16::try_from(*port).ok()? };
            map.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, host));
        }
        map.sort_by_key(|(first, ..)| *first);
        (!map.is_empty()).then_some(Self(map))
    }
}

async fn told(live: &Live, now_us: u64) -> Option<SlotMap> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("SLOTS");
    let value = live.send(&command, now_us.saturating_add(super::micros(REFRESH_MAX))).await.ok()?;
    SlotMap::read(&value, &live.host)
}

/// Until it is aborted.
async fn keep(members: Arc<Members>) {
    loop {
        members.read_map().await;
        tokio::time::sleep(REFRESH_PAUSE).await;
        if members.has_map() {
            // The time that is over is the other reason to look.
            drop(tokio::time::timeout(REFRESH_EVERY, members.refresh.notified()).await);
        }
    }
}

/// The slot of a key: CRC16 (XMODEM) of what stands between the first braces, or of all.
/// <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>
fn slot(key: &[u8]) -> u16 {
    let mut parts = key.splitn(2, |&byte| byte == b'{');
    let tag = parts.nth(1).and_then(|rest| {
        let mut parts = rest.splitn(2, |&byte| byte == b'}');
        parts.next().filter(|tag| !tag.is_empty() && parts.next().is_some())
    });
    tag.unwrap_or(key).iter().fold(0_u16, |sum, &byte| {
        (0..8).fold(sum ^ (u16::from(byte) << 8), |sum, _| {
            let shifted = sum << 1;
            if sum & 0x8000 == 0 { shifted } else { shifted ^ 0x1021 }
        })
    }) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // `CLUSTER KEYSLOT` of Redis 7.0.15; 0x31c3 is the check value of XMODEM.
        for (key, expected) in
            [("123456789", 0x31c3), ("foo", 12_182), ("{foo}bar", 12_182), ("a{foo}{bar}", 12_182), ("", 0)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        // Braces with nothing between, or one alone, are a part of the key.
        assert_ne!(slot(b"{}foo"), slot(b"foo"));
        assert_ne!(slot(b"{foo"), slot(b"foo"));
    }
}

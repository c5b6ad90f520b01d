//! A TCP proxy on loopback that fails as networks do: it hangs, cuts, and is slow, switched at run time.
//!
//! Threads and blocking sockets: what a test switches is in force when the call returns.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// One read's worth.
const PIECE_BYTES: usize = 16 * 1024;
/// A socket is looked at this often for what was switched.
const TICK: Duration = Duration::from_millis(5);

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They are accepted and kept; nothing comes out on either side, on old connections and new ones. What was kept goes on
    /// its way when the fault is over.
    Hang,
    /// As [`Fault::Hang`] for what the server answers; what the client says gets there.
    HangAnswers,
    /// As [`Fault::Hang`] on connections of before; new ones are well. So a firewall forgets what it let through.
    HangOld,
    /// Every connection is closed, and new ones are closed at once.
    Cut,
    /// Each piece takes this long, one after the other, towards the server and back.
    Delay(Duration, Duration),
}

/// In front of one server. Dropping it closes all connections.
pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    fault: Fault,
    is_over: bool,
    /// Grows with each cut: connections of an earlier time are closed.
    cuts: u64,
    /// Grows with each switch.
    switched: u64,
    to: SocketAddr,
}

/// When a connection was opened.
#[derive(Clone, Copy)]
struct Opened {
    cuts: u64,
    switched: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl FaultProxy {
    /// A proxy that passes everything to `to`.
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { fault: Fault::None, is_over: false, cuts: 0, switched: 0, to };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_listener = Arc::clone(&shared);
        thread::spawn(move || of_listener.accept(&listener));
        Self { address, shared }
    }

    /// From now on. Bytes that are on their way already may still arrive.
    pub fn set(&self, fault: Fault) {
        let mut state = self.shared.state.lock().unwrap();
        state.fault = fault;
        state.switched += 1;
        state.cuts += u64::from(fault == Fault::Cut);
        self.shared.changed.notify_all();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().is_over = true;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            if self.state.lock().unwrap().is_over {
                return;
            }
            match listener.accept() {
                Ok((client, _)) => self.connect(client),
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(TICK),
                Err(_) => return,
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream) {
        let (to, opened) = {
            let state = self.state.lock().unwrap();
            if state.fault == Fault::Cut {
                return;
            }
            (state.to, Opened { cuts: state.cuts, switched: state.switched })
        };
        // A server that is not there closes the client's connection.
        let Ok(server) = TcpStream::connect_timeout(&to, Duration::from_secs(1)) else { return };
        for socket in [&client, &server] {
            socket.set_nonblocking(false).unwrap();
            drop(socket.set_nodelay(true));
            socket.set_read_timeout(Some(TICK)).unwrap();
        }
        let (Ok(client_again), Ok(server_again)) = (client.try_clone(), server.try_clone()) else { return };
        for (from, to, direction) in
            [(client, server, Direction::ToServer), (server_again, client_again, Direction::ToClient)]
        {
            let shared = Arc::clone(self);
            thread::spawn(move || {
                shared.carry(&from, &to, direction, opened);
                drop(from.shutdown(Shutdown::Both));
                drop(to.shutdown(Shutdown::Both));
            });
        }
    }

    /// Until one side ends, or the connection is cut.
    fn carry(&self, mut from: &TcpStream, mut to: &TcpStream, direction: Direction, opened: Opened) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match from.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    if !self.may_pass(direction, opened) || to.write_all(&piece[..length]).is_err() {
                        return;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if self.is_cut(opened.cuts) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    fn is_cut(&self, cuts: u64) -> bool {
        let state = self.state.lock().unwrap();
        state.is_over || state.cuts != cuts
    }

    /// Waits as long as the fault demands; `false` when the connection is cut.
    fn may_pass(&self, direction: Direction, opened: Opened) -> bool {
        let began = Instant::now();
        let mut state = self.state.lock().unwrap();
        loop {
            if state.is_over || state.cuts != opened.cuts {
                return false;
            }
            let wait = match (state.fault, direction) {
                (Fault::Hang, _) | (Fault::HangAnswers, Direction::ToClient) => Duration::MAX,
                (Fault::HangOld, _) if state.switched != opened.switched => Duration::MAX,
                (Fault::Delay(there, _), Direction::ToServer) => there.saturating_sub(began.elapsed()),
                (Fault::Delay(_, back), Direction::ToClient) => back.saturating_sub(began.elapsed()),
                (Fault::None | Fault::HangAnswers | Fault::HangOld | Fault::Cut, _) => Duration::ZERO,
            };
            if wait.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, wait.min(Duration::from_secs(1))).unwrap().0;
        }
    }
}

"""The real binary as a child process: started, its addresses, its log, ended. For all suites in Python."""

import subprocess
import threading

START_SECONDS = 30
STOP_SECONDS = 20


class Process:
    """A gateway in a directory. `proxy` and `admin` are its addresses, `lines` its log."""

    def __init__(self, command, directory, environment):
        self.lines, self.proxy, self.admin = [], None, None
        self.child = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        if not ready.wait(START_SECONDS) or not self.proxy:
            self.child.kill()
            raise RuntimeError("no ready line; the log:\n" + "".join(self.lines))

    def _read(self, ready):
        for line in self.child.stdout:
            self.lines.append(line)
            if line.startswith("tollgate ready "):
                words = dict(word.split("=", 1) for word in line.split()[2:])
                self.proxy, self.admin = words["proxy"], words["admin"]
                ready.set()
        # An end before the line is no reason to wait.
        ready.set()

    def close(self):
        """Ends it, and demands that it ends well."""
        self.child.terminate()
        try:
            code = self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            raise
        log = "".join(self.lines)
        assert code == 0 and "panicked" not in log, f"exit {code}:\n{log}"

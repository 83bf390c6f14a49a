"""Network namespaces without names: they end with the process, whatever becomes of it."""

import ctypes
import os
import socket
import subprocess
import threading

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def checked(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Namespace:
    """A machine's network: a loopback with more addresses on it."""

    def __init__(self, *addresses):
        self.fd = None
        in_thread(lambda: self.make(addresses))

    def make(self, addresses):
        checked(libc.unshare(CLONE_NEWNET))
        self.fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        for address in addresses:
            subprocess.run(["ip", "address", "add", address, "dev", "lo"], check=True)

    def listening(self, address, port):
        """A TCP socket in it; a socket stays in the namespace where it was made."""
        return self.call(lambda: socket.create_server((address, port), backlog=64))

    def call(self, function):
        """Calls function in a thread that is in here."""

        def inside():
            checked(libc.setns(self.fd, CLONE_NEWNET))
            return function()

        return in_thread(inside)

    def command(self, *words):
        """The words as a command line that runs in here."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self.fd}", *words]

    def close(self):
        os.close(self.fd)


def in_thread(function):
    """Its result or exception: a change of namespace ends with the thread."""
    results = []

    def run():
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    result, error = results[0]
    if error:
        raise error
    return result

"""Power cuts on a real file system: the kill tests' rounds (rig.py), where a round's death is the disk's.

In a mount namespace of its own, which ends with the process, an ext4 lies in a file:

    tmpfs ── image ── loop device ── ext4 ── data of the broker        clients and their ledger: in memory

A cut is EXT4_IOC_SHUTDOWN with NOLOGFLUSH: from that moment nothing reaches the image any more, neither what was dirty in
memory nor what the journal held back. The broker is left to notice, or not, for a moment, and is killed; the file
system is unmounted and mounted again, which replays the journal, and the broker starts on what is left. In every
tenth round the power goes once more while it starts.

What was synced is there after a cut, what was only written is mostly not. A disk that loses or reorders what the
kernel has handed to it is not played here but in tests/states.
"""

import ctypes
import fcntl
import os
import struct
import subprocess
import tempfile
import time

import rig

CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH = 0x8004587d, 2
IMAGE_SIZE = 512 << 20      # of which what is used takes memory
UNNOTICED = 0.08            # seconds for which the broker goes on at most


class Unable(Exception):
    """This kernel, or this user, cannot do it: with the reason."""


def enter_namespace():
    """Mounts of this process and its children are their own from here on; once, before there are threads."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b'none', b'/', None, MS_REC | MS_PRIVATE, None) != 0:
        raise Unable('no mount namespace: %s' % os.strerror(ctypes.get_errno()))


def run(*words):
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           encoding='utf-8', env=dict(os.environ, PATH=os.environ.get('PATH', '') + ':/usr/sbin:/sbin'))
    if ended.returncode != 0:
        raise Unable('%s: %s' % (' '.join(words), ended.stdout.strip()))


class Disk:
    """Mounted at `point` from the beginning; everything it has vanishes with the namespace."""

    def __init__(self):
        top = tempfile.mkdtemp(prefix='power-')
        run('mount', '-t', 'tmpfs', '-o', 'mode=700', 'power', top)
        self.image, self.point = os.path.join(top, 'image'), os.path.join(top, 'disk')
        os.mkdir(self.point)
        with open(self.image, 'wb') as image:
            image.truncate(IMAGE_SIZE)
        run('mkfs.ext4', '-q', '-F', '-E', 'lazy_itable_init=0,lazy_journal_init=0', self.image)
        self.mount()
        self.probe()

    def mount(self):
        run('mount', '-o', 'loop', self.image, self.point)

    def cut(self):
        disk = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(disk, EXT4_IOC_SHUTDOWN, struct.pack('I', NO_LOG_FLUSH))
        finally:
            os.close(disk)

    def restore(self):
        run('umount', self.point)
        self.mount()

    def probe(self):
        """What is synced must survive a cut, and what is not must not: or this rig would prove nothing."""
        for name, synced in (('synced', True), ('unsynced', False)):
            with open(os.path.join(self.point, name), 'wb') as file:
                file.write(b'x' * 5000)
                file.flush()
                if synced:
                    os.fdatasync(file.fileno())
        try:
            self.cut()
        except OSError as error:
            raise Unable('EXT4_IOC_SHUTDOWN: %s' % error.strerror) from None
        self.restore()
        with open(os.path.join(self.point, 'synced'), 'rb') as file:
            if file.read() != b'x' * 5000:
                raise Unable('what was synced does not survive a cut here')
        unsynced = os.path.join(self.point, 'unsynced')
        if os.path.exists(unsynced) and os.path.getsize(unsynced) > 0:
            raise Unable('a cut loses nothing here')


class PowerRig(rig.Rig):
    """`noticed`: cuts after which the broker stopped by itself."""

    def __init__(self, seed, disk, **others):
        super().__init__(seed, points=(), **others)
        self.disk = disk
        self.noticed = 0
        self.broker.data_dir = tempfile.mkdtemp(prefix='data-', dir=disk.point)

    def next_point(self):
        return None

    def die(self, point):
        time.sleep(self.random.uniform(*self.seconds))
        self.cut()

    def die_while_starting(self):
        self.broker.launch()
        time.sleep(self.random.uniform(0, 0.04))
        self.cut()

    def cut(self):
        self.kills += 1
        self.disk.cut()
        time.sleep(self.random.uniform(0, UNNOTICED))
        if self.broker.running():
            self.broker.kill()
        else:
            self.noticed += 1
            self.broker.collect()
        self.broker.log_paths.remove(self.broker.log_path)  # it complains of its disk, and is right
        self.disk.restore()

    def summary(self):
        return '%s; %d times the broker noticed' % (super().summary().replace('kills', 'power cuts', 1), self.noticed)
